"""A path, or the name of a policy, recipe or protocol of augengine or an installed package, in; its file's path out."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from augengine.errors import ConfigError
from augengine.plugins import installed, plugin

POLICIES, RECIPES, PROTOCOLS = (Path(__file__).parent / kind for kind in ("policies", "recipes", "protocols"))
KINDS = {"policies": "policy", "recipes": "recipe", "protocols": "protocol"}
"""By the name of their folder."""
_NEAR = 3


def policy_file(text: str | Path) -> Path:
    """A policy or mix: the file of that path or, where there is none, the one of that name in the package or
    in an installed one (`augengine.policies`).

    >>> policy_file("duke_acquisition").relative_to(POLICIES)
    PosixPath('duke_acquisition.yaml')

    Raises:
        ConfigError: none is there, with the nearest names; or several packages have one.
    """
    return _file(Path(text), [POLICIES])


def recipe_file(text: str | Path) -> Path:
    """As `policy_file`, of a training recipe."""
    return _file(Path(text), [RECIPES])


def protocol_file(text: str | Path) -> Path:
    """As `policy_file`, of an evaluation protocol; some of these bear a policy's name."""
    return _file(Path(text), [PROTOCOLS])


def configuration_file(text: str | Path) -> Path:
    """As `policy_file`, of a policy, mix or recipe, or of a protocol whose name none of these bears."""
    return _file(Path(text), [POLICIES, RECIPES, PROTOCOLS])


def names(folder: Path) -> list[str]:
    """What ships in a folder."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def known(folder: Path) -> list[str]:
    """`names`, and those that installed packages add."""
    return sorted({*names(folder), *installed()[KINDS[folder.name]]})


def _file(path: Path, folders: list[Path]) -> Path:
    if os.path.isfile(path):  # unlike its namesake it takes every text
        return path
    for folder in folders:
        shipped = folder / f"{path.name}.yaml"
        if path.name == str(path):
            if found := plugin(KINDS[folder.name], path.name, shipped.is_file()):
                return found.file()
            if shipped.is_file():
                return shipped
    if os.path.exists(path):  # a folder: who reads it says so
        return path
    valid = [name for folder in folders for name in known(folder)]
    near = difflib.get_close_matches(path.stem, valid, n=_NEAR, cutoff=0.5)
    said = f"such as {', '.join(near)}" if near else f"of {' or '.join(map(str, folders))}"
    raise ConfigError(
        "no such configuration file",
        where=str(path),
        next_step=f"check the path, or give a name that ships with augengine, {said}",
    )
