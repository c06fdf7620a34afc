"""`augengine export`: its flags, its one-line errors, and the same bytes from any number of writers on any storage."""

from __future__ import annotations

import json
from pathlib import Path

import fsspec
import pytest
from export_cohorts import exported, slice_cohort, volume_cohort
from typer.testing import CliRunner

from augengine.cli import app
from augengine.export.monai import Monai
from augengine.export.run import export
from augengine.io.store import Store
from augengine.pipeline.units import Actors
from augengine.selection import Request


def call(*words: object) -> tuple[int, str]:
    """Exit code and output of the command."""
    found = CliRunner().invoke(app, ["export", *map(str, words), "--inline"])
    return found.exit_code, found.output


def test_from_the_flags_to_the_folder(tmp_path: Path) -> None:
    volume_cohort(tmp_path)
    (tmp_path / "weights.csv").write_text("sample_id,weight\nS001,2.5\n")
    code, text = call(
        "nnunet",
        tmp_path / "data",
        "--augmented",
        tmp_path / "run",
        "--out",
        tmp_path / "Dataset501_X",
        "--labels",
        "lesion=necrosis+enhancing,oedema",
        "--augmented-per-real",
        "0.34",
        "--source-orientation",
        "lps",
        "--sampling-ratio",
        "0.5",
        "--weights",
        tmp_path / "weights.csv",
        "--licence",
        "CC0 1.0",
    )
    assert code == 0, text
    about = json.loads((tmp_path / "Dataset501_X/dataset.json").read_text())
    assert about["labels"] == {"background": 0, "lesion": 1, "oedema": 2}
    assert len(about["augengine"]["synthetic"]) == 1
    assert about["augengine"]["sampling_ratio"] == 0.5
    assert about["augengine"]["weights"] == {"S001": 2.5}
    record = json.loads((tmp_path / "Dataset501_X/export.json").read_text())
    assert record["counts"] == {"test real": 1, "train augmented": 1, "train real": 3, "val real": 1}
    assert record["fingerprint"]["options"]["source_orientation"] == "LPS"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("monnai",), "unknown target 'monnai'; did you mean 'monai'?"),
        (("monai", "--readers", "3"), "--readers: the target monai has no such flag; it is for webdataset"),
        (("nnunet", "--ignore-below", "300"), "--ignore-below"),
        (("nnunet", "--source-orientation", "LLS"), "three letters"),
        (("bids", "--suffixes", "t1"), "--suffixes: give name=value"),
        (("nnunet", "--weights", "nowhere.csv"), "nowhere.csv: cannot read the weights"),
        (("nnunet", "--weights", f"{__file__}"), "line 2: weights are a table with the columns sample_id and weight"),
        (("monai", "--split", "train,dev"), "splits are train, val, test"),
    ],
)
def test_a_mistake_is_one_line(
    tmp_path: Path, words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    volume_cohort(tmp_path)
    target, *flags = words
    code, text = call(target, tmp_path / "data", "--out", tmp_path / "out", *flags)
    assert code == 2
    assert message in text + capsys.readouterr().err


def test_any_number_of_writers_writes_the_same(tmp_path: Path, ray_session: None) -> None:
    stores = slice_cohort(tmp_path)
    exported(Monai(), stores, tmp_path / "one" / "out")
    request = Request((stores[0],), (stores[1],), splits=("train", "val", "test"))
    export(Monai(), request, Store(str(tmp_path / "two" / "out")), actors=Actors(2))
    one, two = (
        {p.relative_to(tmp_path / n).as_posix(): p.read_bytes() for p in (tmp_path / n).rglob("*") if p.is_file()}
        for n in ("one", "two")
    )
    assert one == two


def test_an_object_store_gets_the_same(tmp_path: Path) -> None:
    stores = volume_cohort(tmp_path)
    exported(Monai(), stores, tmp_path / "here" / "out")
    try:
        exported(Monai(), stores, "memory://there/out")
        assert exported(Monai(), stores, "memory://there/out").made == 0
        there = fsspec.filesystem("memory")
        found = {name.removeprefix("/there/out/"): there.cat_file(name) for name in there.find("/there")}
    finally:
        fsspec.filesystem("memory").store.clear()
    here = tmp_path / "here" / "out"
    assert found == {p.relative_to(here).as_posix(): p.read_bytes() for p in here.rglob("*") if p.is_file()}
