"""The package that docs/plugins.md writes, as it stands there: checked, and its policy run."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from builders import lesion_sample, write_samples
from installed_packages import Packages
from typer.testing import CliRunner

from augengine.cli import app
from augengine.load import load_policy
from augengine.pipeline.augment import augment
from augengine.pipeline.units import Actors
from augengine.plugins import GROUPS

PAGE = (Path(__file__).parents[2] / "docs/plugins.md").read_text()


def test_the_documented_package_works(packages: Packages, tmp_path: Path) -> None:
    files = dict(re.findall(r"```(?:python|yaml)\n# (\S+)\n(.*?)```", PAGE, re.DOTALL))
    assert len(files) == 4
    (text,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    project = tomllib.loads(text)["project"]
    packages.add(project["name"], project["entry-points"], files, project["version"])
    result = CliRunner().invoke(app, ["check", "--plugin", "my_package"])
    assert result.exit_code == 0, result.output
    for kind in ("edit 'brighter'", "gate 'mean_ratio'", "segmenter 'threshold'", "policy 'brighter_scans'"):
        assert f"{kind}: " in result.output
    data = write_samples(tmp_path / "data", [lesion_sample(n) for n in range(3)])
    found = augment(load_policy("brighter_scans"), data, tmp_path / "out", {}, actors=Actors(inline=True))
    assert found.counts["accepted"] == 3


def test_every_group_is_told() -> None:
    said = PAGE.replace("`.recipes`", "`augengine.recipes`").replace("`.protocols`", "`augengine.protocols`")
    assert all(f"`{group}`" in said for group in GROUPS.values())
