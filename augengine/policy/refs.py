"""A policy as it stands in its file in; the same with the `ref`s of its models and gates as absolute paths or URIs out.

A relative path means the folder of the file, as a mix's members do, so that a policy and its models can be moved
together; one that is set by an override means the working directory, as all flags do.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from augengine.errors import ConfigError
from augengine.yaml_config import Document, Path_


def resolve_refs(document: Document, data: dict[str, Any], at: Path_) -> None:
    """Make the paths of a policy that stands at `at` in the file absolute; changes `data`.

    Raises:
        ConfigError: nothing lies there, and something does in the working directory.
    """
    folder = Path(os.path.abspath(document.name)).parent
    for section, path in _sections(data, at):
        ref = section.get("ref")
        if not isinstance(ref, str) or not ref or "://" in ref:
            continue
        where = document.where((*path, "ref"))
        beside, here = folder / Path(ref).expanduser(), Path(os.path.abspath(Path(ref).expanduser()))
        if where.startswith("override "):
            beside = here
        if not os.path.exists(beside) and os.path.exists(here):
            raise ConfigError(
                "a ref is relative to the folder of its policy",
                where=where,
                found=f"nothing at {beside}, something at {here} in the working directory",
                next_step="write the path from the policy's folder, an absolute one, or give --checkpoint",
            )
        section["ref"] = os.path.normpath(beside)


def _sections(data: Any, at: Path_) -> Iterator[tuple[dict[str, Any], Path_]]:
    """Every section of a policy, its steps and their gates that may name a file by `ref`, and its place."""
    if not isinstance(data, dict):
        return  # what it should be is said when it is validated
    models, gates, steps = data.get("models"), data.get("gates"), data.get("edits")
    for role, model in models.items() if isinstance(models, dict) else ():
        if isinstance(model, dict):
            yield model, (*at, "models", role)
    for n, gate in enumerate(gates if isinstance(gates, list) else ()):
        options = gate.get("options") if isinstance(gate, dict) else None
        for name in ("model", "reference"):
            if isinstance(options, dict) and isinstance(options.get(name), dict):
                yield options[name], (*at, "gates", n, "options", name)
    for n, step in enumerate(steps if isinstance(steps, list) else ()):
        yield from _sections(step, (*at, "edits", n))
