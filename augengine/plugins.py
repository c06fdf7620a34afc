"""Entry points of installed packages in; for each kind of thing one table of names, our own and theirs, out.

A package adds an edit, a gate, a policy and so on by an entry point in the group of that kind:

    [project.entry-points."augengine.edits"]
    motion_ghosting = "my_package.motion_ghosting:MotionGhosting"

Names are read from the metadata of packages, and only what is asked for is imported. Every process looks up for itself,
Ray's workers too: a package must be installed wherever they run.
"""

from __future__ import annotations

import importlib.resources
import re
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

from augengine.errors import ConfigError, RunError
from augengine.yaml_config import unknown_name

T = TypeVar("T")

GROUPS = {
    "edit": "augengine.edits",
    "gate": "augengine.gates",
    "layout": "augengine.layouts",
    "segmenter": "augengine.segmenters",
    "target": "augengine.targets",
    "tracker": "augengine.trackers",
    "extractor": "augengine.extractors",
    "policy": "augengine.policies",
    "recipe": "augengine.recipes",
    "protocol": "augengine.protocols",
}
"""Kind of thing to the group of its entry points."""
RESERVED = ("auto", "all", "none")
"""Names that mean something else wherever they may stand."""


@dataclass(frozen=True)
class Plugin:
    """One entry point of an installed package: what it adds, and under which name; nothing of it is imported yet."""

    kind: str
    name: str
    value: str
    package: str
    version: str

    def __str__(self) -> str:
        return f"{self.kind} '{self.name}' of {self.package} {self.version} ({self.value})"

    def load(self) -> Any:
        """Import the package and return the object that the entry point names.

        Raises:
            ConfigError: whatever the package raises on import, in one line with its name and version.
        """
        try:
            return metadata.EntryPoint(self.name, self.value, GROUPS[self.kind]).load()
        except (Exception, SystemExit) as error:  # of code that is not ours: it may be anything
            raise self.unusable("cannot be imported", _told(error)) from error

    def file(self) -> Path:
        """The YAML file that `package.folder:stem` names.

        Raises:
            ConfigError: the package cannot be imported, or holds no such file.
        """
        folder, _, stem = self.value.partition(":")
        try:
            found = importlib.resources.files(folder.strip()).joinpath(f"{stem.strip() or self.name}.yaml")
            path = Path(str(found))
        except (Exception, SystemExit) as error:  # as in `load`
            raise self.unusable("cannot be imported", _told(error)) from error
        if not path.is_file():
            raise self.unusable("names no file", str(path))
        return path

    def unusable(self, what: str, found: str) -> ConfigError:
        """The error of a plug-in that there is and that does not work."""
        return ConfigError(
            f"the plug-in {self} {what}", found=found, next_step=f"mend, update or uninstall {self.package}"
        )


@cache
def installed() -> Mapping[str, Mapping[str, tuple[Plugin, ...]]]:
    """Kind → name → the plug-ins of that name; read once per process (about 10 ms), from metadata alone."""
    found: dict[str, dict[str, tuple[Plugin, ...]]] = {kind: {} for kind in GROUPS}
    for plugin in sorted(_plugins(), key=lambda p: (p.name, p.package)):
        found[plugin.kind][plugin.name] = (*found[plugin.kind].get(plugin.name, ()), plugin)
    return found


def _plugins() -> Iterator[Plugin]:
    points: Any = metadata.entry_points()  # one reading for all groups; its class depends on the version of Python
    for kind, group in GROUPS.items():
        for point in points.select(group=group):
            yield Plugin(kind, point.name, point.value, point.dist.name, point.dist.version)


def plugin(kind: str, name: str, own: bool) -> Plugin | None:
    """The plug-in of a name, None if there is none; `own` says that augengine has something of that name.

    Raises:
        ConfigError: two packages claim the name, or a package claims one of augengine's own.
    """
    claims = installed()[kind].get(name, ())
    owners = ["augengine"] if own or name in RESERVED else []
    owners += [f"{p.package} {p.version}" for p in claims]
    if claims and len(owners) > 1:
        raise ConfigError(
            f"a {kind} has a name of its own",
            found=f"'{name}' of {' and of '.join(owners)}",
            next_step=f"uninstall {claims[0].package}, or have it renamed there",
        )
    return claims[0] if claims else None


class Registry(MutableMapping[str, T]):
    """Things of one kind by name: augengine's own, and those of installed packages, which are imported when asked for.

    Names are all there is without an import: `in`, `len` and iteration import nothing.

    Args:
        kind: of `GROUPS`.
        own: augengine's own.
        accept: what an entry point names in, the thing itself out; raises whatever says why it is none.
    """

    def __init__(self, kind: str, own: Mapping[str, T], accept: Callable[[str, Any], T]) -> None:
        self.kind, self.own, self._accept = kind, dict(own), accept

    def __getitem__(self, name: str) -> T:
        found = plugin(self.kind, name, name in self.own)
        if found is None:
            return self.own[name]
        thing = found.load()
        try:
            return self._accept(name, thing)
        except Exception as error:  # of code that is not ours: it may be anything
            raise found.unusable(f"is no {self.kind}", str(error)) from error

    def find(self, name: str, where: str | None = None) -> T:
        """As `[name]`; a name that there is not is a `ConfigError` with the nearest valid one."""
        if name not in self:
            raise unknown_name(self.kind, name, list(self), where)
        return self[name]

    def __contains__(self, name: object) -> bool:
        return name in self.own or name in installed()[self.kind]

    def __iter__(self) -> Iterator[str]:
        yield from self.own
        yield from (name for name in installed()[self.kind] if name not in self.own)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __setitem__(self, name: str, thing: T) -> None:
        self.own[name] = thing

    def __delitem__(self, name: str) -> None:
        del self.own[name]

    def made_by(self, name: str) -> dict[str, str]:
        """Package → version of the plug-in of that name; empty for our own."""
        found = plugin(self.kind, name, name in self.own)
        return {} if found is None else {found.package: found.version}


def of_class(kind: type[Any], attribute: str | None = "name") -> Callable[[str, Any], Any]:
    """An `accept` for subclasses of `kind` whose `attribute`, unless None, is the entry point's name."""

    def accept(name: str, thing: Any) -> Any:
        if not (isinstance(thing, type) and issubclass(thing, kind)):
            raise TypeError(f"{thing!r} is no subclass of {kind.__module__}.{kind.__qualname__}")
        return named(name, thing, attribute)

    return accept


def named(name: str, thing: Any, attribute: str | None = "name") -> Any:
    """`thing`, whose `attribute` is the name by which it is looked up: rows and files carry it."""
    if attribute is not None and getattr(thing, attribute, None) != name:
        raise ValueError(f"its {attribute} is {getattr(thing, attribute, None)!r} and its entry point's name '{name}'")
    return thing


def with_methods(protocol: type[Any], thing: Any) -> Any:
    """`thing`, a class that has every public method of `protocol`."""
    methods = [name for name, own in vars(protocol).items() if not name.startswith("_") and callable(own)]
    missing = [name for name in methods if not callable(getattr(thing, name, None))]
    if missing:
        raise TypeError(f"{thing!r} lacks {', '.join(missing)}")
    return thing


def plugins_of(package: str) -> list[Plugin]:
    """All that an installed package adds; it may be called as it is installed or, if that differs, as it is imported.

    Raises:
        ConfigError: no such package, nothing in it, or a group that augengine does not know.
    """
    every = [p for by_name in installed().values() for claims in by_name.values() for p in claims]
    asked = _plain(package)
    found = [p for p in every if asked in (_plain(p.package), _plain(re.split("[.:]", p.value)[0]))]
    if is_installed(name := found[0].package if found else package):
        for point in metadata.distribution(name).entry_points:
            if point.group.startswith("augengine.") and point.group not in GROUPS.values():
                raise unknown_name("group of entry points", point.group, list(GROUPS.values()), name)
    if not found:
        others = sorted({p.package for p in every})
        raise ConfigError(
            "a plug-in is an installed package with entry points of augengine's groups",
            found=package,
            next_step=f"give it one of {', '.join(GROUPS.values())}, and install it again"
            if is_installed(package)
            else f"pip install it into this environment; installed plug-ins: {', '.join(others) or 'none'}",
        )
    return found


def is_installed(package: str) -> bool:
    """True if there is a package of that name."""
    try:
        return bool(metadata.version(package))
    except metadata.PackageNotFoundError:
        return False


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def check_versions(made: Mapping[str, str], what: str, where: str) -> None:
    """Refuse plug-ins of other versions than those that made something: other code may make other rows.

    Args:
        made: package → version.
        what: was made by them.
        where: it lies, or runs.

    Raises:
        RunError: with the version wanted and the one that is installed.
    """
    for package, version in made.items():
        found = metadata.version(package) if is_installed(package) else None
        if found != version:
            raise RunError(
                f"{what} by {package} {version}",
                found=f"version {found}" if found else "no such package",
                where=where,
                next_step=f"pip install {package}=={version} there, on every node that takes part",
            )
