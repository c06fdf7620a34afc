"""The floors are as CONTRIBUTING draws them (`make lint` holds them), and commands and workers start light."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from augengine.cli import COMMANDS

ROOT = Path(__file__).parents[1]


def test_floors_are_drawn_as_they_are_checked() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (floors,) = [contract for contract in settings["contracts"] if contract["id"] == "floors"]
    checked = [sorted(re.split(r" [|:] ", layer)) for layer in reversed(floors["layers"])]
    rows = re.findall(r"^\| (\d+) \| (.*) \|$", (ROOT / "CONTRIBUTING.md").read_text(), re.M)
    drawn = {int(number): sorted(re.findall(r"`(\w+)`", rooms)) for number, rooms in rows}
    assert [drawn[n] for n in sorted(drawn)] == checked
    assert "ignore_imports" not in str(settings)


# Those of segmenters are left out: they are made of MONAI's networks.
LIGHT = [
    f"augengine.commands.{target.split(':')[0]}"
    for name, (target, _) in COMMANDS.items()
    if name not in ("advise", "evaluate", "ensembles")
]


@pytest.mark.parametrize("modules", [LIGHT, ["augengine.pipeline.augment_worker"]], ids=["commands", "worker"])
def test_commands_and_actors_start_without_heavy_libraries(modules: list[str]) -> None:
    """MONAI and diffusers take longer to import than a unit of work; networks import them where they are built."""
    code = f"import sys, {', '.join(modules)}; print(*sorted({{'monai', 'diffusers'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"
