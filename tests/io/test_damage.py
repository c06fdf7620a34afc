"""Flipped bits in what the engine writes are told; rows that state what none can are refused by name."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from builders import slice_sample, write_samples
from typer.testing import CliRunner

from augengine.cli import app
from augengine.errors import DataError
from augengine.io.dataset import dataset_files, read_manifest, write_dataset
from augengine.io.row_problems import SeenIds, row_problem
from augengine.io.sealed import sealed, unsealed
from augengine.io.shards import SCHEMA, from_row, iter_samples, to_row
from augengine.io.store import Store

SAMPLE = slice_sample(1, size=8)


def flip(path: Path, place: int, bit: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1 << bit
    path.write_bytes(content)


def checked(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["check", *arguments])
    return result.exit_code, result.output


@pytest.mark.parametrize("place", [-1, -7, -40, -200])
def test_a_damaged_footer_is_told_before_it_is_parsed(tmp_path: Path, place: int) -> None:
    store = Store(write_samples(tmp_path, [SAMPLE]))
    (name,) = dataset_files(store)
    flip(tmp_path / name, place)
    with pytest.raises(DataError, match=r"the footer of a shard must be|not a readable Parquet"):
        list(iter_samples(store, [name]))


def test_a_deep_check_finds_what_a_look_at_sizes_does_not(tmp_path: Path) -> None:
    store = Store(write_samples(tmp_path, [slice_sample(s, size=8) for s in range(3)], per_file=1))
    assert checked(str(tmp_path), "--deep") == (0, checked(str(tmp_path), "--deep")[1])
    assert "3 files" in checked(str(tmp_path))[1]
    flip(tmp_path / dataset_files(store)[1], 20)
    assert checked(str(tmp_path))[0] == 0
    code, text = checked(str(tmp_path), "--deep")
    assert code == 2
    assert "another content (sha256); 1 of 3 files" in text
    (tmp_path / dataset_files(store)[2]).unlink()
    assert "missing; 1 of 3 files" in checked(str(tmp_path))[1]


def test_a_manifest_is_sealed(tmp_path: Path) -> None:
    store = Store(write_samples(tmp_path, [SAMPLE]))
    assert unsealed(sealed(read_manifest(store)), "here") == read_manifest(store)
    text = (tmp_path / "manifest.json").read_text()
    (tmp_path / "manifest.json").write_text(text.replace("written", "wrippen"))
    with pytest.raises(DataError, match=r"as it was written; found another checksum"):
        dataset_files(store)
    assert unsealed({"of": "an older version"}, "here") == {"of": "an older version"}


ABSURD = {
    "flip_angle_deg must be a number that a scanner can have; found -1": {
        "acquisition": {**to_row(SAMPLE)["acquisition"], "flip_angle_deg": -1.0}
    },
    "slice_thickness_mm must be": {"acquisition": {**to_row(SAMPLE)["acquisition"], "slice_thickness_mm": 1e300}},
    "voxels must measure 0.001 to 1000 mm": {"affine": np.diag([1e9, 1, 1, 1]).ravel().tolist()},
    "labels must have different names and codes": {"label_names": ["fat", "tumour"], "label_codes": [1, 1]},
    "every label must have a code": {"label_codes": []},
    "subject_id must be stated; found none": {"subject_id": None},
    "image_shape must be": {"image_shape": [1, 2**20, 2**20]},
    "image_dtype must be a number's": {"image_dtype": "object"},
    "an intensity range must be two rising numbers": {"intensity_low": [900.0]},
    "slab_end_mm must be 0 to 10000": {"slab_end_mm": -1.0},
    "pixels must fit": {"image": b""},
}


@pytest.mark.parametrize("rule", ABSURD)
def test_a_row_that_states_what_none_can_is_refused(rule: str) -> None:
    row = to_row(SAMPLE)
    assert row_problem(row) is None
    with pytest.raises(DataError, match=r"S001#0000|None") as caught:
        from_row({**row, **ABSURD[rule]})
    assert rule in str(caught.value)


@pytest.mark.parametrize("column", SCHEMA.names)
def test_a_row_without_a_column_is_refused_or_the_same(column: str) -> None:
    row = to_row(SAMPLE)
    del row[column]
    with suppress(DataError):
        assert to_row(from_row(row)).keys() == to_row(SAMPLE).keys()


def test_an_id_that_stands_twice_is_found(tmp_path: Path) -> None:
    from augengine.selection import Request, select

    seen = SeenIds()
    seen.add(["a", "b"])
    seen.check("here")
    seen.add(["c", "a"])
    assert seen.count == 4
    with pytest.raises(DataError, match="1 rows with an id that another one has"):
        seen.check("here")
    from augengine.io.shards import to_table

    twice = write_dataset(str(tmp_path), [to_table([SAMPLE, SAMPLE])])
    with pytest.raises(DataError, match="may stand once"):
        select(Request.of(twice, split=None))
