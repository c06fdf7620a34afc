"""Names of installed packages are found beside our own; only what is asked for is imported; mistakes are one line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from installed_packages import Packages
from typer.testing import CliRunner

from augengine.bundled import policy_file, protocol_file, recipe_file
from augengine.cli import app
from augengine.commands.augment import JobFlags, augment_brats
from augengine.downstream.protocols import protocol
from augengine.downstream.segmenters import SEGMENTERS
from augengine.edits import EDITS
from augengine.errors import AugengineError, ConfigError
from augengine.export import TARGETS
from augengine.file_schemas import policy_schema
from augengine.gates import MEASURES
from augengine.io.layouts import READERS, check_root
from augengine.load import load_policy
from augengine.metrics.extractors import EXTRACTORS, load_extractor
from augengine.plugins import GROUPS
from augengine.train.config import read_recipe
from augengine.train.trackers import TRACKERS, check

SHIPPED = Path(__file__).parents[2] / "augengine"
OTHERS = """
from typing import ClassVar
from augengine.gates import Gate
from augengine.downstream.segmenters import Segmenter
from augengine.metrics.radiomics import RADIOMICS
from augengine.yaml_config import Strict

class Brightness(Gate):
    scale: float = 1.0
    def value(self, case, tools): return float(case.after.image.mean()) * self.scale

class Reader:
    layout = "ours"
    def __init__(self, root, options): self.root, self.options = root, options
    def listing(self): pass
    def files(self, entry): pass
    def scan(self, entry): pass
    def read(self, source): pass

class Thresholds(Segmenter):
    name = "thresholds"
    @classmethod
    def fit(cls, shards, steps, seed, out, **_): return out
    @classmethod
    def load(cls, folder, *, device="cpu"): return cls()
    def _predict(self, x, seeds): return x

class Lists(Strict):
    name: ClassVar[str] = "lists"
    def check(self, cases, about): pass
    def units(self, cases, about): pass
    def files(self, items, unit, about): pass
    def finish(self, cases, about, listed): pass
    def identity(self): return {}

class Log:
    def __init__(self, run_name, out, resumed_step): pass
    def scalars(self, step, values): pass
    def picture(self, step, name, png): pass
    def close(self): pass

def extractor(weights_path, device): return RADIOMICS
"""


def policy(path: Path, **values: Any) -> Path:
    """A policy of the edit `Adds`."""
    given = {"version": 1, "name": "adds", "edit": "Adds", "params": {}, "gates": [{"name": "changed", "min": 0}]}
    path.write_text(yaml.safe_dump({**given, **values}))
    return path


def test_each_kind_of_thing_is_found_by_its_name(packages: Packages, tmp_path: Path) -> None:
    recipe = yaml.safe_load((SHIPPED / "recipes/cddgm_small.yaml").read_text()) | {"trackers": ["log"]}
    files = {
        "more/__init__.py": OTHERS,
        "more/files/ours.yaml": policy(tmp_path / "p.yaml", edit="Adds").read_text(),
        "more/files/small.yaml": yaml.safe_dump(recipe),
        "more/files/strict.yaml": (SHIPPED / "protocols/duke_strict.yaml").read_text(),
    }
    names = {
        "gates": {"brightness": "more:Brightness"},
        "layouts": {"ours": "more:Reader"},
        "segmenters": {"thresholds": "more:Thresholds"},
        "targets": {"lists": "more:Lists"},
        "trackers": {"log": "more:Log"},
        "extractors": {"copied": "more:extractor"},
        "policies": {"ours_policy": "more.files:ours"},
        "recipes": {"ours_recipe": "more.files:small"},
        "protocols": {"ours_protocol": "more.files:strict"},
    }
    packages.add_edit("adder", "Adds")
    packages.add("more", {f"augengine.{group}": points for group, points in names.items()}, files, "2.1")
    assert {f"augengine.{group}" for group in names} | {"augengine.edits"} == set(GROUPS.values())
    registries: list[Any] = [EDITS, MEASURES, READERS, SEGMENTERS, TARGETS, TRACKERS]
    for registry, name in zip(registries, ("Adds", "brightness", "ours", "thresholds", "lists", "log"), strict=True):
        assert name in registry
        assert name in list(registry)
        assert registry.made_by(name) == ({"adder": "1.0"} if name == "Adds" else {"more": "2.1"})
        assert registry.made_by(next(iter(registry))) == {}
        assert registry[name].__module__ in ("adder", "more")
    check_root(tmp_path, "ours")
    check(["log"])
    assert "copied" in EXTRACTORS
    assert load_extractor("copied").id == "radiomics-1@more-2.1", "features of other code do not compare"
    assert load_policy("ours_policy").edit_name == "Adds"
    assert policy_file("ours_policy") == packages.folder / "more/files/ours.yaml"
    assert read_recipe("ours_recipe").trackers == ("log",)
    assert recipe_file("ours_recipe").name == "small.yaml"
    assert protocol("ours_protocol").digest == protocol("duke_strict").digest
    assert protocol_file("ours_protocol").name == "strict.yaml"


def test_only_what_is_asked_for_is_imported(packages: Packages, tmp_path: Path) -> None:
    packages.add_edit("adder", "Adds")
    packages.add_edit("other", "Others")
    packages.add("broken", {"augengine.edits": {"Broken": "broken:Broken"}}, {"broken.py": "1 / 0"})
    assert load_policy("duke_acquisition").edit_name == "acquisition"
    assert {"Adds", "Others", "Broken"} <= set(EDITS)
    assert packages.imported == set()
    load_policy(policy(tmp_path / "p.yaml"))
    assert packages.imported == {"adder"}


def test_the_list_of_commands_looks_for_no_plug_in(packages: Packages) -> None:
    packages.add("broken", {"augengine.edits": {"Broken": "broken:Broken"}}, {"broken.py": "raise SystemExit(9)"})
    code = (
        "import sys; sys.argv = ['augengine', '--help']\nfrom augengine.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "assert not {'augengine.plugins', 'broken', 'pydantic', 'torch'} & set(sys.modules)"
    )
    path = os.pathsep.join([str(packages.folder), str(SHIPPED.parent)])
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, check=True)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import nothing_of_the_kind", r"cannot be imported; found ModuleNotFoundError: No module named 'nothing_of"),
        ("raise SystemExit(3)", "cannot be imported; found SystemExit: 3"),
        ("from augengine.errors import DataError\nraise DataError('no weights')", "found DataError: no weights"),
        ("1 / 0", "cannot be imported; found ZeroDivisionError"),
        ("x = 1", "cannot be imported; found AttributeError"),
        (
            "class Broken: name = 'another'",
            "is no edit; found its name is 'another' and its entry point's",
        ),
        ("class Broken: name = 'Broken'", "is no edit; found .* lacks check, plan, apply, region"),
        ("Broken = 1", "is no edit"),
    ],
)
def test_a_broken_plug_in_is_one_line(packages: Packages, tmp_path: Path, source: str, said: str) -> None:
    packages.add("broken", {"augengine.edits": {"Broken": "broken:Broken"}}, {"broken.py": source}, "0.3")
    with pytest.raises(ConfigError, match=said) as error:
        load_policy(policy(tmp_path / "p.yaml", edit="Broken"))
    assert "plug-in edit 'Broken' of broken 0.3 (broken:Broken)" in str(error.value)
    assert str(error.value).endswith("mend, update or uninstall broken")
    assert "\n" not in str(error.value)


def test_a_name_belongs_to_one(packages: Packages, tmp_path: Path) -> None:
    packages.add_edit("first", "Adds")
    packages.add_edit("second", "Adds", "3.0")
    with pytest.raises(ConfigError, match=r"found 'Adds' of first 1.0 and of second 3.0; uninstall first, or have it"):
        load_policy(policy(tmp_path / "p.yaml"))
    assert packages.imported == set()
    packages.add("third", {"augengine.edits": {"acquisition": "third:X"}, "augengine.policies": {"duke_strict": "x:y"}})
    with pytest.raises(ConfigError, match=r"found 'acquisition' of augengine and of third 1.0"):
        load_policy("duke_acquisition")
    with pytest.raises(ConfigError, match=r"found 'duke_strict' of augengine and of third 1.0"):
        policy_file("duke_strict")
    assert protocol_file("duke_strict").is_file(), "a protocol may bear a policy's name"
    packages.add("fourth", {"augengine.layouts": {"auto": "fourth:X"}})
    with pytest.raises(ConfigError, match=r"'auto' of augengine and of fourth 1\.0"):
        _ = READERS["auto"]


def test_an_unknown_name_is_told_the_nearest_plug_in(packages: Packages, tmp_path: Path) -> None:
    packages.add_edit("adder", "Adds")
    packages.add("more", {"augengine.policies": {"ours_policy": "more:ours"}, "augengine.gates": {"haze": "more:Haze"}})
    with pytest.raises(ConfigError, match=r"p.yaml:1: unknown edit 'Addz'; did you mean 'Adds'\?"):
        load_policy(policy(tmp_path / "p.yaml", edit="Addz"))
    with pytest.raises(ConfigError, match=r"unknown gate 'hazes'; did you mean 'haze'\?"):
        load_policy(policy(tmp_path / "p.yaml", gates=[{"name": "hazes", "max": 1}]))
    with pytest.raises(ConfigError, match="such as ours_policy"):
        policy_file("our_policy")
    assert packages.imported == set()
    with pytest.raises(ConfigError, match=r"plug-in policy 'ours_policy' of more 1.0 .* cannot be imported"):
        policy_file("ours_policy")


def test_editors_are_offered_the_names_and_parameters_of_plug_ins(packages: Packages, tmp_path: Path) -> None:
    values = yaml.safe_load(policy(tmp_path / "p.yaml").read_text())
    assert not jsonschema.Draft202012Validator(policy_schema()).is_valid(values)
    packages.add_edit("adder", "Adds")
    packages.add("more", {"augengine.gates": {"brightness": "more:Brightness"}}, {"more.py": OTHERS})
    schema = jsonschema.Draft202012Validator(policy_schema())
    assert schema.is_valid(values)
    assert schema.is_valid(values | {"params": {"by": 2.0}})
    assert not schema.is_valid(values | {"params": {"bye": 2.0}})
    gate = {"name": "brightness", "min": 0, "options": {"scale": 2}}
    assert schema.is_valid(values | {"gates": [gate]})
    assert not schema.is_valid(values | {"gates": [gate | {"options": {"scales": 2}}]})


def test_help_and_errors_of_commands_name_them(packages: Packages) -> None:
    packages.add("more", {"augengine.targets": {"lists": "more:Lists"}}, {"more.py": OTHERS})
    result = CliRunner().invoke(app, ["export", "list", "DATA", "--out", "x"])
    assert (result.exit_code, "did you mean 'lists'?" in result.output) == (2, True)
    assert packages.imported == set()


def test_a_list_of_edits_says_which_one_cannot_be_imported(packages: Packages) -> None:
    packages.add("broken", {"augengine.edits": {"Broken": "broken:Broken"}}, {"broken.py": "1 / 0"})
    with pytest.raises(AugengineError, match=r"of broken 1\.0"):
        dict(EDITS)
    with pytest.raises(SystemExit) as end:
        augment_brats(flags=JobFlags())
    assert end.value.code == 2


def test_a_list_of_edits_holds_those_of_plug_ins(packages: Packages, capsys: pytest.CaptureFixture[str]) -> None:
    packages.add_edit("adder", "Adds")
    augment_brats(flags=JobFlags())
    assert "Adds: It says nothing of itself. Models: none." in capsys.readouterr().out
