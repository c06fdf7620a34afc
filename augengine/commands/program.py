"""A command in; it is run as the work of a process of its own, which Ctrl-C ends at once, with all that it started."""

from __future__ import annotations

import functools
import inspect
import os
import signal
import sys
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.models import OptionInfo

from augengine.machine import RAY_MESSAGES
from augengine.report.console import finish, want_json, want_quiet

STOPPED = 130
"""Exit code after Ctrl-C, as shells have it."""


JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON object; all else goes to standard error.")]
QuietFlag = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, tables and remarks; errors are told.")]
RayFlag = Annotated[bool, typer.Option("--ray-messages", help="Show what Ray and its workers print.")]


def command_of(function: Callable[..., None], name: str | None = None) -> Any:
    """The command of a function whose annotations say its flags, with those that every command has.

    Args:
        function: its docstring is the help.
        name: by which it is called, for its usage line.
    """
    own = inspect.signature(function, eval_str=True)
    told = {text for p in own.parameters.values() for text in _declared(p.annotation)}
    common = {key: flag for key, flag in COMMON.items() if told.isdisjoint(_declared(flag[0]))}

    @functools.wraps(function)
    def wrapped(**given: Any) -> None:
        for key, (_, act) in common.items():
            if given.pop(key):
                act()
        function(**given)

    more = [
        inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=annotation)
        for key, (annotation, _) in common.items()
    ]
    keyword = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own.parameters.values()]
    wrapped.__signature__ = own.replace(parameters=[*keyword, *more])  # type: ignore[attr-defined]
    single = typer.Typer(add_completion=False)
    single.command(name)(wrapped)
    return typer.main.get_command(single)


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
