"""YAML text to a strict pydantic model; every error names `file:line`, the value found and the nearest valid name.

The text is parsed by PyYAML, and its nodes are made plain values here: PyYAML's own constructor knows no places, takes
`1:30` for 90 and `<<` for an order, and builds aliases of aliases until memory ends. Schema-first readers (strictyaml)
cannot say that a section is one of several kinds, and ruamel.yaml has the same constructors.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from augengine.errors import ConfigError

Model = TypeVar("Model", bound=BaseModel)
Path_ = tuple[str | int, ...]
MOST_BYTES, MOST_NODES, MOST_DEPTH, MOST_ALIASES = 2**20, 20_000, 40, 100
"""Of a configuration file; nodes are counted with aliases written out."""
LARGEST = 1e12
Width = Annotated[int, Field(ge=1, le=8192)]
"""Features of a layer."""
Count = Annotated[int, Field(ge=1, le=128)]
"""Layers, blocks, heads or levels of a network."""
_TAG = "tag:yaml.org,2002:"
_WHOLE = re.compile(r"[-+]?(0|[1-9]\d{0,17})")
_NUMBER = re.compile(r"[-+]?(\d+\.\d*|\.\d+|\d+)([eE][-+]?\d+)?")
_TRUE, _FALSE = ("true", "yes", "on"), ("false", "no", "off")
_HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def unset(value: object) -> bool:
    """For `exclude_if` of a key that came later: where nobody sets it, digests stay what they were."""
    return value is None or value == {}


class Strict(BaseModel):
    """Base of every configuration section: unknown keys are refused, values are frozen, no coercion of text."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, allow_inf_nan=False)

    @field_validator("version", mode="before", check_fields=False)
    @classmethod
    def _number(cls, value: Any) -> Any:
        """True equals 1 in Python, and so in its literals."""
        if isinstance(value, bool):
            raise ValueError("a version is a number")
        return value

    @model_validator(mode="after")
    def _credible(self) -> Strict:
        """Refuse numbers that are none of anything that is counted or measured here."""
        for name in type(self).model_fields:
            value = getattr(self, name)
            for one in value if isinstance(value, tuple | list) else (value,):
                if isinstance(one, int | float) and abs(one) > LARGEST and not name.endswith("seed"):
                    raise ValueError(f"{name}: a number is at most {LARGEST:.0e}, found {one:.6g}")
        return self


class Document:
    """A parsed YAML file that remembers the place, `file:line`, of every key and value.

    Values are texts, finite numbers, true, false, null, lists and mappings with texts as keys. `1e-3` is a number, a
    date is a text, and what YAML 1.1 alone takes for a number (`017`, `1:30`, `1_000`, `0x1F`) is refused.
    """

    def __init__(self, text: str, name: str) -> None:
        self.name = name
        self._nodes = 0
        self._set: list[Path_] = []
        try:
            _check_events(text, name)
            node = yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = mark.line + 1 if mark else 1
            raise ConfigError("this is not valid YAML", found=error.problem, where=f"{name}:{line}") from None
        except yaml.reader.ReaderError as error:
            line = text.count("\n", 0, error.position) + 1
            raise ConfigError(
                "a configuration holds no control characters",
                found=f"character {error.character:#06x}",
                where=f"{name}:{line}",
            ) from None
        except (ValueError, RecursionError) as error:  # PyYAML's scanner, of an escape that is no character
            raise ConfigError("this is not valid YAML", found=type(error).__name__, where=f"{name}:1") from None
        self.places: dict[Path_, str] = {(): f"{name}:1"}
        self.data = self._build(node, ()) if node is not None else {}
        if not isinstance(self.data, dict):
            raise ConfigError("a configuration is a mapping of keys to values", where=f"{name}:1")

    @classmethod
    def read(cls, path: str | Path) -> Document:
        """Read a file; a missing or unreadable one is a `ConfigError`."""
        try:
            with Path(path).open("rb") as file:
                content = file.read(MOST_BYTES + 1)
            if len(content) > MOST_BYTES:
                raise ConfigError(f"a configuration file has at most {MOST_BYTES >> 10} KiB", where=str(path))
            return cls(content.decode("utf-8-sig"), str(path))
        except FileNotFoundError:
            raise ConfigError("no such configuration file", where=str(path), next_step="check the path") from None
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            raise ConfigError("a configuration file is UTF-8 text", where=f"{path}:{line}") from None
        except (OSError, ValueError) as error:  # a path with a zero byte is a ValueError
            raise ConfigError("cannot read the configuration file", found=str(error), where=str(path)) from None

    def _build(self, node: yaml.Node, path: Path_) -> Any:
        self.places.setdefault(path, self._place(node))
        self._nodes += 1
        if len(path) > MOST_DEPTH or self._nodes > MOST_NODES:
            raise ConfigError(
                f"a configuration nests at most {MOST_DEPTH} deep and has at most {MOST_NODES} values, aliases written "
                "out",
                where=self._place(node),
            )
        if isinstance(node, yaml.MappingNode):
            out: dict[Any, Any] = {}
            for key_node, value_node in node.value:
                key = self._key(key_node)
                if key in out:
                    raise ConfigError("a key may stand once", found=key, where=self._place(key_node))
                self.places[(*path, key)] = self._place(key_node)
                out[key] = self._build(value_node, (*path, key))
            return out
        if isinstance(node, yaml.SequenceNode):
            return [self._build(child, (*path, i)) for i, child in enumerate(node.value)]
        return self._scalar(node)

    def _place(self, node: yaml.Node) -> str:
        return f"{self.name}:{node.start_mark.line + 1}"

    def _key(self, node: yaml.Node) -> str:
        if node.tag == f"{_TAG}merge":
            raise ConfigError(
                "a configuration has no merge keys", found="<<", where=self._place(node), next_step="write the keys out"
            )
        if not isinstance(node, yaml.ScalarNode) or not isinstance(key := self._scalar(node), str):
            raise ConfigError(
                "a key is a text",
                found=node.value if isinstance(node, yaml.ScalarNode) else "a list or mapping",
                where=self._place(node),
                next_step="write it in quotes",
            )
        return key

    def _scalar(self, node: yaml.Node) -> str | int | float | bool | None:
        """The value of a scalar; of a plain one by what it looks like."""
        text: str = node.value
        if (hidden := _HIDDEN.search(text)) is not None:
            raise ConfigError(
                "a configuration holds no control characters",
                found=f"character {ord(hidden.group()):#06x}",
                where=self._place(node),
            )
        kind = node.tag.removeprefix(_TAG)
        if isinstance(node, yaml.ScalarNode) and node.style is not None:
            return text
        number = _NUMBER.fullmatch(text)
        if kind == "null" and text in ("", "~", "null", "Null", "NULL"):
            return None
        if kind == "bool" and text.lower() in (*_TRUE, *_FALSE):
            return text.lower() in _TRUE
        if kind in ("int", "str") and _WHOLE.fullmatch(text):
            return int(text)
        if kind in ("float", "str") and number is not None and (number.group(2) or "." in text):
            value = float(text)
            if value - value == 0:
                return value
        if kind in ("int", "float", "null", "bool") or number is not None:
            raise ConfigError(
                "a number is written in decimal, with at most 18 digits before its point, and finite",
                found=text,
                where=self._place(node),
                next_step="write it so, or in quotes if it is a text",
            )
        return text

    def override(self, assignment: str) -> None:
        """Set one value by `path.to.key=YAML`; what comes of it is checked like the file itself.

        Of two that set one key, or a key and later the section around it, the first would be lost without a word.

        >>> document = Document("network: {width: 8}", "recipe.yaml")
        >>> document.override("network.width=16")
        >>> document.data
        {'network': {'width': 16}}
        """
        path, found, text = assignment.partition("=")
        keys, section = path.strip().split("."), self.data
        for key in keys[:-1]:
            section = section.setdefault(key, {}) if isinstance(section, dict) else None
        if not found or not isinstance(section, dict) or len(keys) > MOST_DEPTH:
            raise ConfigError("an override is path.to.key=value", found=assignment, next_step="for example steps=100")
        under = tuple(keys)
        if lost := [before for before in self._set if before[: len(under)] == under]:
            raise ConfigError(
                "set a key once, and a section before its keys",
                found=".".join(map(str, lost[0])) + (" twice" if lost[0] == under else f", and then {path.strip()}"),
                where=f"override {assignment}",
                next_step="leave one of them out",
            )
        given = Document(f"value: {text}", f"override {path}").data
        if set(given) != {"value"}:
            raise ConfigError("an override sets one value", found=assignment, next_step="give one --set for each key")
        section[keys[-1]] = given["value"]
        self._set.append(under)
        self.places = {at: place for at, place in self.places.items() if at[: len(under)] != under}
        for depth in range(1, len(keys) + 1):  # sections on the way may be the override's own, too
            self.places.setdefault(under[:depth], f"override {assignment}")

    def where(self, path: Sequence[str | int]) -> str:
        """`file:line` of the deepest part of `path` that stands in the file, or the override that set it."""
        known = tuple(path)
        while known not in self.places:
            known = known[:-1]
        return self.places[known]

    def validate(self, model: type[Model], data: Any = None, at: Path_ = ()) -> Model:
        """Build `model` from `data` (default: the whole document) that stands at `at` in the file.

        A text is no number, and true is no 1.
        """
        text = json.dumps(self.data if data is None else data)
        try:
            return model.model_validate_json(text, strict=True)  # in JSON a list may be a tuple, in Python it may not
        except ValidationError as error:
            # A misspelt key is both unknown and missing: name the one that stands in the file. Of a section that may
            # be one of several kinds, the deepest mistake is that of the kind that was meant.
            problems = sorted(error.errors(), key=lambda p: (p["type"] != "extra_forbidden", -len(p["loc"])))
            raise self._explain(model, problems[0], at) from None

    def _explain(self, model: type[BaseModel], problem: Any, at: Path_) -> ConfigError:
        kind, context = problem["type"], problem.get("ctx", {})
        keys = self._keys(problem["loc"], at, missing=kind == "missing")
        if kind.startswith("union_tag"):
            keys = (*keys, context["discriminator"].strip("'"))
        where, dotted = self.where((*at, *keys)), ".".join(str(p) for p in (*at, *keys))
        if kind == "extra_forbidden":
            return unknown_name("key", str(keys[-1]), known_keys(model, problem["loc"][:-1]), where)
        if kind == "union_tag_invalid":
            valid = context["expected_tags"].replace("'", "").split(", ")
            return unknown_name(f"value of {dotted}:", context["tag"], valid, where)
        if kind in ("missing", "union_tag_not_found"):
            return ConfigError(f"'{dotted}' is required", where=where, next_step="add the key")
        if problem["type"].startswith("union_tag"):
            key = problem["ctx"]["discriminator"].strip("'")
            step = f"one of {problem['ctx']['expected_tags']}" if "expected_tags" in problem["ctx"] else "add the key"
            rule = f"'{dotted}.{key}' says which kind of section this is"
            return ConfigError(rule, found=problem["ctx"].get("tag"), next_step=step, where=where)
        message = problem["msg"].removeprefix("Value error, ")
        if isinstance(problem["input"], dict):  # a rule of a whole section, which says what it found
            return ConfigError(f"{dotted}: {message}" if dotted else message, where=where)
        return ConfigError(f"'{dotted}': {message[0].lower()}{message[1:]}", found=repr(problem["input"]), where=where)

    def _keys(self, loc: Path_, at: Path_, *, missing: bool) -> Path_:
        """`loc` without the tags that pydantic puts between the keys where a value is one of several kinds."""
        node: Any = self.data
        keys: list[str | int] = []
        for part in at:
            node = node[part]
        for n, part in enumerate(loc):
            inside = part in node if isinstance(node, dict) else isinstance(node, list) and part in range(len(node))
            if inside or (missing and n == len(loc) - 1):
                keys.append(part)
                node = node[part] if inside else None
        return tuple(keys)


def _check_events(text: str, name: str) -> None:
    """Refuse what PyYAML would build without end: it composes by recursion, and an alias is its anchor once more."""
    depth = aliases = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        aliases += isinstance(event, yaml.AliasEvent)
        tag = getattr(event, "tag", None)
        if tag not in (None, "!"):
            raise ConfigError(
                "a configuration has plain values, without YAML tags",
                found=tag.replace(_TAG, "!!"),
                where=f"{name}:{event.start_mark.line + 1 if event.start_mark else 1}",
            )
        if depth > MOST_DEPTH or aliases > MOST_ALIASES:
            raise ConfigError(
                f"a configuration nests at most {MOST_DEPTH} deep and has at most {MOST_ALIASES} aliases",
                where=f"{name}:{event.start_mark.line + 1 if event.start_mark else 1}",
            )


def unknown_name(kind: str, name: str, valid: Sequence[str], where: str | None) -> ConfigError:
    """The error for a name that does not exist, with the nearest valid one."""
    close = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
    step = f"did you mean '{close[0]}'?" if close else f"valid: {', '.join(sorted(valid)) or 'none'}"
    return ConfigError(f"unknown {kind} '{name}'", where=where, next_step=step)


def known_keys(model: type[BaseModel], path: Path_) -> list[str]:
    """Field names of the section of `model` that `path` leads to."""
    sections: list[type[BaseModel]] = [model]
    for part in path:
        if isinstance(part, int):
            continue
        tagged = [s for s in sections if any(part in get_args(f.annotation) for f in s.model_fields.values())]
        fields = [s.model_fields[part] for s in sections if part in s.model_fields]
        sections = [m for f in fields for m in _models(f.annotation)] if fields else tagged or sections
    return [f.alias or name for section in sections for name, f in section.model_fields.items()]


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [m for a in getattr(annotation, "__args__", ()) for m in _models(a)]
