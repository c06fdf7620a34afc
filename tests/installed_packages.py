"""Packages of a few lines, installed into a folder as pip would leave them."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from pathlib import Path

from augengine import plugins

EDIT = """
import numpy as np
from augengine.edits.base import Drawing
from augengine.yaml_config import Strict

class {name}Params(Strict):
    by: float = 10.0

class {name}:
    name = "{name}"
    Params = {name}Params
    MODELS = {{}}
    def check(self, params, sampler, specs): pass
    def plan(self, sample, params, rng, context): return Drawing({{"add": float(rng.uniform(1, params.by))}})
    def apply(self, samples, plans, models, params, sampler):
        return [s.replace(image=s.image + np.float32(p.params["add"])) for s, p in zip(samples, plans)]
    def region(self, sample, plan): return None
"""
"""An edit that adds a number that was drawn, by `str.format(name=…)`."""


class Packages:
    """A folder of installed packages; what is added is found at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(
        self,
        package: str,
        points: Mapping[str, Mapping[str, str]],
        files: Mapping[str, str] | None = None,
        version: str = "1.0",
    ) -> None:
        """Install a package, or another version of it: entry points (group → name → value) and files."""
        base = package.replace("-", "_")  # as pip writes it
        for old in self.folder.glob(f"{base}-*.dist-info"):
            for file in old.iterdir():
                file.unlink()
            old.rmdir()
        about = self.folder / f"{base}-{version}.dist-info"
        about.mkdir(parents=True)
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
        groups = [f"[{group}]\n" + "".join(f"{n} = {v}\n" for n, v in of.items()) for group, of in points.items()]
        (about / "entry_points.txt").write_text("\n".join(groups))
        for name, text in (files or {}).items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self.look_again()

    def add_edit(self, package: str, name: str, version: str = "1.0") -> None:
        """Install a package with one module, of its own name, that holds one edit."""
        self.add(
            package,
            {"augengine.edits": {name: f"{package}:{name}"}},
            {f"{package}.py": EDIT.format(name=name)},
            version,
        )

    @property
    def imported(self) -> set[str]:
        """The modules of these packages that were imported."""
        files = {name: str(getattr(module, "__file__", None)) for name, module in list(sys.modules.items())}
        return {name for name, file in files.items() if file.startswith(str(self.folder))}

    def look_again(self) -> None:
        """Forget what was installed."""
        importlib.invalidate_caches()
        plugins.installed.cache_clear()
