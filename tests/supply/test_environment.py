"""An environment of links holds what is asked for, whole, and nothing that the checkout or its tests bring."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from supply.environment import link
from supply.installed import reached


def test_links_bring_packages_and_what_they_need_and_nothing_else(tmp_path: Path) -> None:
    names = reached(["typer", "jinja2"])
    assert {"typer", "rich", "markupsafe"} <= set(names)
    link(names, tmp_path)
    found = {path.name for path in tmp_path.iterdir()}
    assert {"typer", "jinja2", "markupsafe"} <= found
    assert not {name for name in found if name.endswith(".pth") or "augengine" in name or name in ("bin", "pytest")}
    code = "import typer, jinja2, importlib.metadata as m, importlib.util as u; assert m.version('typer'); print("
    said = subprocess.run(
        [
            sys.executable,
            "-I",
            "-S",
            "-c",
            f"import sys; sys.path.append({str(tmp_path)!r}); {code}u.find_spec('pytest'))",
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert said.split() == ["None"]


def test_a_package_of_editable_installs_is_not_linked(tmp_path: Path) -> None:
    """Its only files are what leads the interpreter to the checkout."""
    link(["augengine"], tmp_path)
    assert not list(tmp_path.glob("*.pth"))
