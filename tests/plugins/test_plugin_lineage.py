"""Which package made a row, and in which version, stands in the row; other versions make other rows, and say so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from builders import slice_sample, write_samples
from installed_packages import Packages
from typer.testing import CliRunner

from augengine.cli import app
from augengine.errors import AugengineError, RunError
from augengine.io.dataset import run_files
from augengine.io.shards import iter_samples
from augengine.io.store import Store
from augengine.load import load_mixture, load_policy
from augengine.pipeline.augment import augment
from augengine.pipeline.augment_worker import AugmentWorker
from augengine.pipeline.lineage import Run
from augengine.pipeline.units import Actors
from augengine.records import Provenance, Sample

INLINE = Actors(inline=True)
GATE = """
from augengine.gates import Gate

class Brightness(Gate):
    def value(self, case, tools): return float(case.after.image.mean())
"""


def policy(folder: Path, edit: str = "Adds", gate: str = "changed") -> Path:
    path = folder / "policy.yaml"
    gates = [{"name": gate, "min": 0}]
    path.write_text(yaml.safe_dump({"version": 1, "name": "adds", "edit": edit, "params": {}, "gates": gates}))
    return path


def rows(out: Path | str) -> list[Sample]:
    store = Store(str(out))
    return list(iter_samples(store, run_files(store, "accepted")))


@pytest.fixture
def data(tmp_path: Path) -> str:
    return write_samples(tmp_path / "data", [slice_sample(n) for n in range(3)])


def test_a_row_names_the_package_and_its_version(packages: Packages, data: str, tmp_path: Path) -> None:
    packages.add_edit("adder", "Adds", "1.4")
    packages.add("judge", {"augengine.gates": {"brightness": "judge:Brightness"}}, {"judge.py": GATE}, "0.2")
    out = tmp_path / "out"
    summary = augment(load_policy(policy(tmp_path, gate="brightness")), data, out, {}, actors=INLINE)
    assert summary.counts["accepted"] == 3
    for row in rows(out):
        assert row.provenance is not None
        assert row.provenance.plugins == {"adder": "1.4", "judge": "0.2"}
        replay = Run(out).replay(row.sample_id)
        assert replay.equal
        asked = ["explain", row.sample_id, "--out", str(out), "--picture", str(tmp_path / "picture.png")]
        told = CliRunner().invoke(app, asked).output
        assert "plug-in adder: 1.4" in told
        assert "plug-in judge: 0.2" in told
    assert json.loads((out / "inputs.json").read_text())["plugins"] == {"adder": "1.4", "judge": "0.2"}


def test_rows_of_our_own_edits_do_not_speak_of_plug_ins() -> None:
    made = Provenance("a", "b", "p", "0", "edit", {})
    assert "plugins" not in json.loads(made.to_json())
    assert Provenance.from_json(made.to_json()).plugins == {}
    loaded = load_policy("duke_acquisition")
    assert loaded.plugins == {}


def test_another_version_makes_other_rows_of_the_same_draws(packages: Packages, data: str, tmp_path: Path) -> None:
    def made(version: str) -> tuple[Any, list[Sample]]:
        packages.add_edit("adder", "Adds", version)
        loaded = load_mixture(policy(tmp_path))
        augment(loaded, data, tmp_path / version, {}, actors=INLINE)
        return loaded, sorted(rows(tmp_path / version), key=lambda row: row.provenance.parent_id)  # type: ignore[union-attr]

    (old, before), (new, after) = made("1.0"), made("1.1")
    assert old.digest == new.digest, "the file asks for the same"
    assert {row.sample_id for row in before}.isdisjoint(row.sample_id for row in after)
    assert [r.provenance.plan["params"] for r in before] == [r.provenance.plan["params"] for r in after]  # type: ignore[union-attr]
    with pytest.raises(RunError, match=r"holds a run with another plugins; .*1\.0.*1\.1"):
        augment(new, data, tmp_path / "1.0", {}, actors=INLINE)


def test_replay_takes_no_other_version_for_the_same(packages: Packages, data: str, tmp_path: Path) -> None:
    packages.add_edit("adder", "Adds", "1.0")
    out = tmp_path / "out"
    augment(load_policy(policy(tmp_path)), data, out, {}, actors=INLINE)
    row = rows(out)[0].sample_id
    packages.add_edit("adder", "Adds", "1.1")
    assert Run(out).row(row).provenance.plugins == {"adder": "1.0"}, "its history can be read all the same"
    with pytest.raises(RunError, match=r"row was made by adder 1\.0; found version 1\.1; pip install adder==1\.0"):
        Run(out).replay(row)
    for about in packages.folder.glob("adder-*.dist-info"):
        about.rename(tmp_path / "gone")
    packages.look_again()
    with pytest.raises(RunError, match=r"the run was made by adder 1\.0; found no such package; pip install"):
        Run(out)


def test_a_worker_with_another_version_refuses(packages: Packages, data: str, tmp_path: Path) -> None:
    packages.add_edit("adder", "Adds", "1.0")
    mixture = load_mixture(policy(tmp_path))
    args: dict[str, Any] = {
        "policy": mixture.to_dict(),
        "data": data,
        "models": {"adds": {}},
        "hashes": {"adds": {}},
        "donors": [],
        "device": "cpu",
        "plugins": mixture.plugins,
    }
    AugmentWorker(**args)
    packages.add_edit("adder", "Adds", "1.1")
    with pytest.raises(RunError, match=r"worker on .*: these rows are to be made by adder 1\.0; found version 1\.1"):
        AugmentWorker(**args)
    for about in packages.folder.glob("adder-*.dist-info"):
        about.rename(tmp_path / "gone")
    packages.look_again()
    with pytest.raises(AugengineError, match=r"adder 1\.0; found no such package"):
        AugmentWorker(**args)
