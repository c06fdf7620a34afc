"""The command line and the JSON Schemas of the project's files in; the pages of `docs/reference` that list them out."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from importlib import import_module
from typing import Any, Literal, get_args, get_origin

from typer.models import ArgumentInfo

from augengine.commands.program import flags_of
from pages.tables import NONE, table

NOTE = "<!-- Written by `make pages` from the code; change the code, not this file. -->"
_ENTRY = re.compile(r"^(\w+(?:, \w+)*): (.*?)(?=^\w+(?:, \w+)*: |\Z)", re.MULTILINE | re.DOTALL)


def texts() -> dict[str, str]:
    """Path below `docs` to the text of each page."""
    return {"reference/command-line.md": command_line(), "reference/keys.md": keys()}


def command_line() -> str:
    """Every command with its arguments and flags."""
    from augengine.cli import COMMANDS

    parts = [
        "# Command line",
        NOTE,
        "This page lists every command of `augengine` and its flags. `augengine COMMAND --help` prints the same. The "
        "scripts in `jobs/` take the same flags as the commands of their names; they are for `ray job submit`. All of "
        "them also take `--json`, `--quiet` and `--ray-messages` ([commands in scripts](../scripts.md)).",
    ]
    for name, (place, summary) in COMMANDS.items():
        module, _, function = place.partition(":")
        command = getattr(import_module(f"augengine.commands.{module}"), function)
        parts += [f"## {name}", summary, table(["flag", "takes", "default", "meaning"], _flags(command))]
    return "\n\n".join(parts) + "\n"


def keys() -> str:
    """Every key of policies, recipes and protocols, with what it takes and its default."""
    from augengine.file_schemas import SCHEMAS

    parts = [
        "# Keys of policies, recipes and protocols",
        NOTE,
        "This page lists every key that a YAML file of this project may have. [Policies](../policies.md), "
        "[Training](../training.md) and [Protocols](../evidence.md#protocols) say what they are for. `augengine schema "
        "policy` (or `recipe`, `protocol`) prints the same as JSON Schema, by which editors complete and check a file.",
    ]
    for title, schema in SCHEMAS.items():
        parts += [f"## {title}", *_definitions(title, schema())]
    return "\n\n".join(parts) + "\n"


def _flags(function: Callable[..., Any]) -> Iterator[list[str]]:
    """Flags, what they take, default and meaning, from the signature of a command."""
    for flag in flags_of(function):
        kind, info = get_args(flag.annotation)[:2]
        # In `Annotated` the first name is where a default would stand.
        names = [text for text in (info.default, *(info.param_decls or ())) if isinstance(text, str)]
        if isinstance(info, ArgumentInfo):
            names = [info.metavar or flag.name.upper()]
        elif not names:
            names = [f"--{flag.name.strip('_').replace('_', '-')}"]
        required = flag.default is inspect.Parameter.empty
        default = "**required**" if required else NONE
        if not required and (shown := _text(flag.default)) not in ("", "None", "False"):
            default = f"`{names[0].partition('/')[0] if shown == 'True' else shown}`"
        yield [", ".join(f"`{n}`" for n in names), _kind(kind), default, " ".join((info.help or "").split())]


def _kind(kind: Any) -> str:
    """What a flag takes, in words."""
    if get_origin(kind) in (list, tuple):
        return f"{_kind(get_args(kind)[0])}, several"
    if get_origin(kind) is Literal:
        return ", ".join(f"`{one}`" for one in get_args(kind))
    if isinstance(kind, type) and issubclass(kind, Enum):
        return ", ".join(f"`{one.value}`" for one in kind)
    inner = [one for one in get_args(kind) if one is not type(None)]
    if inner:
        return _kind(inner[0])
    names = {"str": "text", "int": "whole number", "float": "number", "bool": NONE, "Path": "path"}
    return names.get(getattr(kind, "__name__", ""), str(kind))


def _text(value: Any) -> str:
    value = getattr(value, "value", value)
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _definitions(title: str, schema: Mapping[str, Any]) -> Iterator[str]:
    if "properties" in schema:
        yield from _definition(title, schema, heading=False)
    defs = schema.get("$defs", {})
    # A step has the keys of a policy, and gates differ in their options alone, which have definitions of their own.
    for name in sorted(name for name in defs if not name.startswith(("Step_", "Gate_"))):
        if defs[name].get("properties"):
            yield from _definition(f"{title}: {name}", defs[name])
    gates = {name.removeprefix("Gate_"): defs[name] for name in sorted(defs) if name.startswith("Gate_")}
    if gates:
        rows = [[f"`{name}`", _takes(gate["properties"]["options"])] for name, gate in gates.items()]
        yield f"### {title}: options of gates"
        yield table(["gate", "options"], rows)


def _definition(title: str, found: Mapping[str, Any], heading: bool = True) -> Iterator[str]:
    if heading:
        yield f"### {title}"
    description = found.get("description", "")
    about, _, attributes = description.partition("Attributes:")
    if about.strip():
        yield _escaped(" ".join(about.split()))
    meanings: dict[str, str] = {}
    lines = "\n".join(line.strip() for line in attributes.splitlines())
    for entry in _ENTRY.finditer(lines.strip()):
        meanings |= dict.fromkeys(entry[1].split(", "), " ".join(entry[2].split()))
    needed = found.get("required", ())
    rows = []
    for key, value in found["properties"].items():
        default = "**required**" if key in needed else _default(value)
        meaning = meanings.get(key) or value.get("description") or ""
        rows.append([f"`{key}`", _takes(value), default, _escaped(" ".join(meaning.split()))])
    yield table(["key", "takes", "default", "meaning"], rows)


def _default(value: Mapping[str, Any]) -> str:
    if "default" not in value:
        return NONE
    return f"`{'null' if value['default'] is None else str(value['default']).replace('|', '/')}`"


def _takes(value: Mapping[str, Any]) -> str:
    """What a key takes, in words."""
    if "$ref" in value:
        return str(value["$ref"]).rpartition("/")[2]
    for many in ("anyOf", "oneOf"):
        if many in value:
            kinds = dict.fromkeys(_takes(one) for one in value[many])
            for prefix, kind in {"Gate_": "a gate (see below)", "Step_": "a step, with the keys of a policy"}.items():
                if any(one.startswith(prefix) for one in kinds):
                    kinds = dict.fromkeys(kind if one.startswith(prefix) else one for one in kinds)
            return " or ".join(kinds)
    if "allOf" in value:
        return _takes(value["allOf"][0])
    if "const" in value:
        return f"`{value['const']}`"
    if "enum" in value:
        return ", ".join(f"`{one}`" for one in value["enum"])
    kind = str(value.get("type", "anything"))
    if kind == "array":
        items: Mapping[str, Any] = value.get("items") or next(iter(value.get("prefixItems", [])), {})
        return f"list of {_takes(items)}"
    if kind == "object":
        inner = value.get("additionalProperties")
        return f"map to {_takes(inner)}" if isinstance(inner, Mapping) and inner else "map"
    return {"null": "`null`"}.get(kind, kind) + _bounds(value)


def _bounds(value: Mapping[str, Any]) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    return "".join(f" {sign} {value[name]:g}" for name, sign in signs.items() if name in value)


def _escaped(text: str) -> str:
    return text.replace("<", "&lt;").replace("[", "\\[")
