"""YAML text to a strict pydantic model; every error names `file:line`, the value found and the nearest valid name."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from augengine.errors import ConfigError

Model = TypeVar("Model", bound=BaseModel)
Path_ = tuple[str | int, ...]


def unset(value: object) -> bool:
    """For `exclude_if` of a key that came later: where nobody sets it, digests stay what they were."""
    return value is None or value == {}


class Strict(BaseModel):
    """Base of every configuration section: unknown keys are refused, values are frozen, no coercion of text."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, allow_inf_nan=False)


class Document:
    """A parsed YAML file that remembers the place, `file:line`, of every key and value."""

    def __init__(self, text: str, name: str) -> None:
        self.name = name
        try:
            node = yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            raise ConfigError("this is not valid YAML", found=error.problem, where=f"{name}:{line}") from None
        self.places: dict[Path_, str] = {(): f"{name}:1"}
        self.data = self._build(node, ()) if node is not None else {}
        if not isinstance(self.data, dict):
            raise ConfigError("a configuration is a mapping of keys to values", where=f"{name}:1")

    @classmethod
    def read(cls, path: str | Path) -> Document:
        """Read a file; a missing or unreadable one is a `ConfigError`."""
        try:
            return cls(Path(path).read_text(encoding="utf-8"), str(path))
        except FileNotFoundError:
            raise ConfigError(
                "no such configuration file", where=str(path), next_step="check the path; policies/ holds examples"
            ) from None
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError("cannot read the configuration file", found=str(error), where=str(path)) from None

    def _build(self, node: yaml.Node, path: Path_) -> Any:
        self.places.setdefault(path, f"{self.name}:{node.start_mark.line + 1}")
        if isinstance(node, yaml.MappingNode):
            out: dict[Any, Any] = {}
            for key_node, value_node in node.value:
                key = yaml.SafeLoader("").construct_object(key_node)
                place = f"{self.name}:{key_node.start_mark.line + 1}"
                if key in out:
                    raise ConfigError("a key may stand once", found=str(key), where=place)
                self.places[(*path, key)] = place
                out[key] = self._build(value_node, (*path, key))
            return out
        if isinstance(node, yaml.SequenceNode):
            return [self._build(child, (*path, i)) for i, child in enumerate(node.value)]
        return yaml.SafeLoader("").construct_object(node)

    def override(self, assignment: str) -> None:
        """Set one value by `path.to.key=YAML`; what comes of it is checked like the file itself.

        >>> document = Document("network: {width: 8}", "recipe.yaml")
        >>> document.override("network.width=16")
        >>> document.data
        {'network': {'width': 16}}
        """
        path, found, text = assignment.partition("=")
        keys, section = path.strip().split("."), self.data
        for key in keys[:-1]:
            section = section.setdefault(key, {}) if isinstance(section, dict) else None
        if not found or not isinstance(section, dict):
            raise ConfigError("an override is path.to.key=value", found=assignment, next_step="for example steps=100")
        section[keys[-1]] = Document(f"value: {text}", f"override {path}").data["value"]
        under = tuple(keys)
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
        """Build `model` from `data` (default: the whole document) that stands at `at` in the file."""
        try:
            return model.model_validate(self.data if data is None else data)
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
            inside = part in node if isinstance(node, dict) else isinstance(node, list) and isinstance(part, int)
            if inside or (missing and n == len(loc) - 1):
                keys.append(part)
                node = node[part] if inside else None
        return tuple(keys)


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
