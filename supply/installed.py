"""Installed packages in; those that augengine stands on out, each with its version, licence and reason to be there."""

from __future__ import annotations

import importlib.metadata as metadata
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from augengine.errors import ConfigError

ROOT = Path(__file__).parents[1]
RUNTIME, TESTS, DOCS = "runtime", "tests", "documentation"


@dataclass(frozen=True)
class Package:
    """One installed distribution.

    Attributes:
        pinned: it stands in `constraints.txt`.
        use: `runtime`, or `tests` or `documentation` if only these need it.
        needs: canonical names of what it needs here, sorted.
    """

    name: str
    version: str
    pinned: bool
    use: str
    needs: tuple[str, ...]
    info: metadata.PackageMetadata

    @property
    def key(self) -> str:
        """The canonical name."""
        return str(canonicalize_name(self.name))


def pins(path: Path = ROOT / "constraints.txt") -> dict[str, str]:
    """Version by canonical name; a line that is no exact pin is a `ConfigError`."""
    found = {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not (text := line.split("#")[0].strip()):
            continue
        name, equals, version = text.partition("==")
        if not equals or not version:
            raise ConfigError("a pin reads name==version", found=text, where=f"{path.name}:{number}")
        found[str(canonicalize_name(name))] = version
    return found


def packages(docs: bool = False) -> list[Package]:
    """Everything that `augengine[test]` brings on this platform, and with `docs` `augengine[docs]`; sorted by name.

    Raises:
        ConfigError: a package is not installed, or not in the pinned version.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    runtime = reached(project["dependencies"])
    tested = reached([*project["dependencies"], *project["optional-dependencies"]["test"]])
    everything = tested | (reached(project["optional-dependencies"]["docs"]) if docs else {})
    pinned = pins()
    found = []
    for key, needs in everything.items():
        one = metadata.distribution(key)
        public = one.version.split("+")[0]  # PyTorch's builds for a device add their name to the version
        if key in pinned and public != pinned[key]:
            raise ConfigError(
                f"{one.name} is installed as pinned",
                found=f"{one.version}, pinned is {pinned[key]}",
                next_step="install with --constraint constraints.txt",
            )
        use = RUNTIME if key in runtime else TESTS if key in tested else DOCS
        found.append(Package(one.name, one.version, key in pinned, use, tuple(sorted(needs)), one.metadata))
    return sorted(found, key=lambda package: package.key)


def reached(requirements: Iterable[str]) -> dict[str, set[str]]:
    """Canonical name → canonical names of what it needs, from these requirements on.

    Raises:
        ConfigError: one of them is not installed.
    """
    todo = [Requirement(text) for text in requirements]
    extras_seen: dict[str, set[str]] = {}
    found: dict[str, set[str]] = {}
    while todo:
        wanted = todo.pop()
        key = str(canonicalize_name(wanted.name))
        extras = extras_seen.setdefault(key, set())
        if key in found and wanted.extras <= extras:
            continue
        extras |= wanted.extras
        needs = _needs(key, extras)
        found[key] = {str(canonicalize_name(need.name)) for need in needs}
        todo += needs
    return found


def _needs(key: str, extras: set[str]) -> list[Requirement]:
    try:
        texts = metadata.requires(key) or []
    except metadata.PackageNotFoundError:
        raise ConfigError("every dependency is installed", found=key, next_step='pip install ".[test]"') from None
    needs = [Requirement(text) for text in texts]
    return [n for n in needs if n.marker is None or any(n.marker.evaluate({"extra": e}) for e in ("", *extras))]
