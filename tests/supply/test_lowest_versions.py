"""Floors of dependencies: every one has a plain one, the same wherever it is asked for, and pins are not below it."""

from __future__ import annotations

import tomllib
from collections import defaultdict
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from augengine.errors import ConfigError
from supply.floors import floors, main
from supply.installed import pins

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


def test_every_dependency_of_the_package_and_its_extras_has_a_floor() -> None:
    for name, texts in {"dependencies": PROJECT["dependencies"], **EXTRAS}.items():
        silent = {Requirement(text).name for text in texts} - floors(texts).keys()
        assert silent <= {"types-PyYAML"}, f"{name}: {silent}"


def test_a_package_has_one_floor_wherever_it_is_asked_for() -> None:
    found = defaultdict(set)
    for texts in (PROJECT["dependencies"], *EXTRAS.values()):
        for name, version in floors(texts).items():
            found[canonicalize_name(name)].add(version)
    assert {name: versions for name, versions in found.items() if len(versions) > 1} == {}
    pinned = pins()
    below = {name for name, versions in found.items() if name in pinned and Version(pinned[name]) < Version(*versions)}
    assert below == set()


def test_the_lowest_versions_are_printed_but_for_those_left_to_pip(capsys: pytest.CaptureFixture[str]) -> None:
    wanted = floors([*PROJECT["dependencies"], *EXTRAS["test"]])
    assert main("torch", "ruff") == 0
    lines = capsys.readouterr().out.split()
    assert lines == [f"{name}=={version}" for name, version in wanted.items() if name not in ("torch", "ruff")]
    assert {"ray", "numpy", "pytest"} <= wanted.keys()


@pytest.mark.parametrize("texts", [["a==1"], ["a~=1.2"], ["a>1"], ["a>=1,>=2"], ["a>=1", "a>=2"]])
def test_what_has_no_plain_floor_is_refused(texts: list[str]) -> None:
    with pytest.raises(ConfigError, match="states one floor, as name>=version"):
        floors(texts)
