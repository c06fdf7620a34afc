"""Policies and recipes are found by path or by the name under which they ship, also from a built wheel elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from augengine.bundled import POLICIES, RECIPES, names, policy_file, recipe_file
from augengine.cli import app
from augengine.errors import ConfigError
from augengine.load import load_mixture
from augengine.train.config import read_recipe

ROOT = Path(__file__).parents[1]


def test_a_file_comes_before_a_name_and_a_name_before_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert policy_file("duke_acquisition") == POLICIES / "duke_acquisition.yaml"
    own = Path("duke_acquisition")
    own.mkdir()
    assert policy_file("duke_acquisition") == POLICIES / "duke_acquisition.yaml", "a run may be called as its policy"
    own.rmdir()
    own.write_text("own")
    assert policy_file("duke_acquisition") == own
    assert recipe_file("cddgm_small") == RECIPES / "cddgm_small.yaml"
    with pytest.raises(ConfigError, match=r"no such configuration file; .* such as cddgm_small, cddgm"):
        recipe_file("cddgm_smal")
    with pytest.raises(ConfigError, match="give a name that ships with augengine, such as brats_tumor_removal"):
        policy_file("policies/brats_tumor_removal.yaml")
    with pytest.raises(ConfigError, match=rf"of {POLICIES}$"):
        policy_file("zzz")
    for text in ("seg_m3", "../policies/duke_strict", "duke_strict.yaml", str(POLICIES / "duke_strict"), "\0"):
        with pytest.raises(ConfigError):
            policy_file(text)


def test_every_name_is_read_and_none_stands_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(names(POLICIES)) >= 17
    assert len(names(RECIPES)) >= 37
    assert set(names(POLICIES)).isdisjoint(names(RECIPES))
    for name in names(POLICIES):
        assert load_mixture(name).digest == load_mixture(POLICIES / f"{name}.yaml").digest
    for name in names(RECIPES):
        assert read_recipe(name).digest == read_recipe(str(RECIPES / f"{name}.yaml")).digest


def test_a_mix_of_one_s_own_takes_members_by_name(tmp_path: Path) -> None:
    mix = tmp_path / "mix.yaml"
    mix.write_text(
        "version: 1\nname: own\nmix:\n- {policy: brats_tumor_removal, share: 0.5}\n"
        "- {policy: brats_tumor_relocation, share: 0.5}\n"
    )
    assert [m.name for m in load_mixture(mix).members] == ["brats-tumor-removal", "brats-tumor-relocation"]
    mix.write_text(mix.read_text().replace("tumor_relocation", "tumour_relocation"))
    with pytest.raises(ConfigError, match="did you mean 'brats_tumor_relocation'"):
        load_mixture(mix)


def test_check_says_where_a_name_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["check", "duke_acquisition", "cddgm_small"])
    assert result.exit_code == 0, result.output
    assert f"{POLICIES / 'duke_acquisition.yaml'}: policy " in result.output
    assert f"{RECIPES / 'cddgm_small.yaml'}: recipe " in result.output


@pytest.mark.slow
def test_the_wheel_holds_all_that_names_and_commands_need(tmp_path: Path) -> None:
    pytest.importorskip("setuptools", "77")
    source = tmp_path / "source"
    source.mkdir()
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    if not tracked:
        pytest.skip("no git checkout to build from")
    for name in tracked:  # the build writes into its folder
        if name.startswith(("augengine/", "pyproject.toml", "README.md", "LICENSE")) and (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    build = [sys.executable, "-m", "pip", "wheel", str(source), "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*build, "-q", "-w", str(tmp_path)], check=True, capture_output=True, timeout=300)
    (wheel,) = tmp_path.glob("augengine-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
        archive.extractall(tmp_path / "installed")
    wanted = {name for name in tracked if name.startswith("augengine/") and (ROOT / name).is_file()}
    assert wanted <= held, f"left out: {sorted(wanted - held)}"
    tops = {name.split("/")[0] for name in held if ".dist-info" not in name}
    assert tops == {"augengine"}, "nothing else goes into site-packages"
    (tmp_path / "empty").mkdir()
    code = (
        "import augengine; from augengine.load import load_mixture; from augengine.train.config import read_recipe;"
        "print(augengine.__file__, load_mixture('duke_acquisition').name, read_recipe('cddgm_small').name)"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "installed")}
    said = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path / "empty",
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert Path(said[0]).is_relative_to(tmp_path / "installed")
    assert said[1:] == [load_mixture("duke_acquisition").name, read_recipe("cddgm_small").name]
