"""A command in; it is run as the work of a process of its own, which Ctrl-C ends at once, with all that it started."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import os
import signal
import sys
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer
from typer.core import TyperCommand, TyperOption
from typer.models import OptionInfo

from augengine.errors import ConfigError
from augengine.machine import RAY_MESSAGES
from augengine.report.console import finish, want_json, want_quiet

STOPPED = 130
"""Exit code after Ctrl-C, as shells have it."""


JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON object; all else goes to standard error.")]
QuietFlag = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, tables and remarks; errors are told.")]
RayFlag = Annotated[bool, typer.Option("--ray-messages", help="Show what Ray and its workers print.")]


class StrictCommand(TyperCommand):
    """A command that refuses what would be ignored without a word.

    That is a flag of one value given twice, where the last one would hold, and an empty value, which would count as
    none (in scripts it is a variable that nobody set).
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """The words that are left when the flags are taken; exit code 2 for one that stands twice or is empty."""
        from augengine.pipeline.cluster import user_errors  # the list of all commands needs none of what it imports

        values, _, order = self.make_parser(ctx).parse_args(list(args))
        counts = Counter(flag for flag in order if isinstance(flag, TyperOption) and not flag.multiple)
        with user_errors():
            for flag, count in counts.items():
                if count > 1:
                    name = "/".join([*flag.opts, *flag.secondary_opts])
                    raise ConfigError("give this flag once", found=f"{count} times", where=name)
            for given in dict.fromkeys(order):
                name = given.name or ""
                if any(map(_empty, value if isinstance(value := values[name], list | tuple) else [value])):
                    optional = isinstance(given, TyperOption)
                    raise ConfigError(
                        "a value that is given is not empty",
                        found="nothing",
                        where=given.opts[0] if optional else (given.metavar or name.upper()).rstrip("."),
                        next_step="give a value, or leave the flag out" if optional else "give a value",
                    )
        return super().parse_args(ctx, args)


def _empty(value: object) -> bool:
    """True for a text, such as a list of names, in which there is nothing."""
    return isinstance(value, str) and not value.replace(",", " ").strip()


def command_of(function: Callable[..., None], name: str | None = None) -> Any:
    """The command of a function whose annotations say its flags, with those that every command has.

    Args:
        function: its docstring is the help. A parameter that is a dataclass stands for the flags that its fields say.
        name: by which it is called, for its usage line.
    """
    own = inspect.signature(function, eval_str=True)
    groups: dict[str, Any] = {
        key: p.annotation for key, p in own.parameters.items() if dataclasses.is_dataclass(p.annotation)
    }
    flags = flags_of(function)
    told = {text for flag in flags for text in _declared(flag.annotation)}
    common = {key: flag for key, flag in COMMON.items() if told.isdisjoint(_declared(flag[0]))}

    @functools.wraps(function)
    def wrapped(**given: Any) -> None:
        for key, (_, act) in common.items():
            if given.pop(key):
                act()
        for key, group in groups.items():
            given[key] = group(**{field.name: given.pop(field.name) for field in dataclasses.fields(group)})
        function(**given)

    more = [_flag(key, False, annotation) for key, (annotation, _) in common.items()]
    wrapped.__signature__ = own.replace(parameters=[*flags, *more])  # type: ignore[attr-defined]
    single = typer.Typer(add_completion=False)
    single.command(name, cls=StrictCommand)(wrapped)
    return typer.main.get_command(single)


def flags_of(function: Callable[..., None]) -> list[inspect.Parameter]:
    """The flags of a command, each a parameter by keyword with its annotation; those of a dataclass are its fields."""
    flags = []
    for parameter in inspect.signature(function, eval_str=True).parameters.values():
        group = parameter.annotation
        if dataclasses.is_dataclass(group):
            hints = get_type_hints(group, include_extras=True)
            flags += [_flag(field.name, field.default, hints[field.name]) for field in dataclasses.fields(group)]
        else:
            flags.append(_flag(parameter.name, parameter.default, group))
    return flags


def _flag(name: str, default: Any, annotation: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _declared(annotation: Any) -> tuple[str, ...]:
    """Names of an option as the command line has them; typer keeps the first one as a default until it is used."""
    options = (one for one in getattr(annotation, "__metadata__", ()) if isinstance(one, OptionInfo))
    names = (name for option in options for name in (option.default, *(option.param_decls or ())))
    return tuple(name for name in names if isinstance(name, str) and name.startswith("-"))


def show_ray_messages() -> None:
    """For `augengine.pipeline.cluster.connect`, which need not be imported for it."""
    os.environ[RAY_MESSAGES] = "1"


COMMON: dict[str, tuple[Any, Callable[[], None]]] = {
    "as_json": (JsonFlag, want_json),
    "quiet": (QuietFlag, want_quiet),
    "ray_messages": (RayFlag, show_ray_messages),
}
"""Flags that every command has, unless it has one of that name: annotation, and what it does before the command."""


def run_program(command: Callable[[], object]) -> None:
    """Run a command that ends this process, and print what it tells to programs.

    After Ctrl-C everything is said and given back when the exit begins, and Ray's own would take seconds more: it ends
    the processes of a local Ray one after the other and waits for each. They are killed together instead. On a cluster
    there are none below this process, and Ray ends the job of a driver that is gone.
    """
    if "--json" in sys.argv[1:] and sys.argv[1:2] != ["ls"]:  # also for mistakes in the flags themselves
        want_json()
    try:
        command()
    except SystemExit as stopped:
        finish(stopped.code if isinstance(stopped.code, int) else 0 if stopped.code is None else 1)
        if stopped.code != STOPPED:
            raise
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        for pid in descendants(os.getpid()):
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        os._exit(STOPPED)


def descendants(pid: int) -> list[int]:
    """Numbers of the processes below one, parents before their children; none where there is no /proc."""
    children = defaultdict(list)
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended since
            children[int(stat.read_text().rpartition(")")[2].split()[1])].append(int(stat.parent.name))
    found = [pid]
    for parent in found:
        found += children[parent]
    return found[1:]
