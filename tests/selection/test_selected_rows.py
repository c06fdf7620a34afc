"""Which rows a request takes: splits, ratio, conditions, rows without labels; and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from augmented_rows import made_row, made_rows, real_row, real_rows
from builders import write_samples

from augengine.errors import ConfigError, DataError
from augengine.io.shards import has_labels
from augengine.io.store import Store
from augengine.selection import Condition, Request, Selected, select
from augengine.torch import ShardDataset
from augengine.train.data import BatchReader
from augengine.train.rows import SplitRows


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_samples(tmp_path_factory.mktemp("real"), real_rows())


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    rows = made_rows() + made_rows(1, policy="relocation") + made_rows(1, (5, 6), policy="of_test")
    return write_samples(tmp_path_factory.mktemp("run"), rows)


def ids(selected: Selected) -> list[str]:
    return [row["sample_id"] for row in selected.rows(["sample_id"])]


def names(rows: list[Any]) -> list[str]:
    return [row.sample_id for row in rows]


def test_augmented_rows_are_taken_for_training_alone(data: str, run: str) -> None:
    train = select(Request.of(data, run))
    assert ids(train) == names(real_rows()[:16] + made_rows() + made_rows(1, policy="relocation"))
    assert (train.real, train.augmented, len(train)) == (16, 64, 80)
    assert train.left_out["split"] == 8 + 8
    assert train.held_out == {"S005", "S006"}
    every = select(Request.of(data, run, split=("train", "val", "test")))
    assert [row["split"] for row in every.rows(["split", "synthetic"]) if row["synthetic"]] == ["train"] * 64
    assert (every.real, every.augmented, every.held_out) == (24, 64, {"S005", "S006"})
    assert ids(select(Request.of(data, split="val"))) == names(real_rows()[16:20])
    whole = select(Request.of(data, run, split=None))
    assert (whole.real, whole.augmented, whole.held_out) == (24, 72, frozenset())
    both = select(Request.of(data, run, split=("train", "val"), training=("train", "val")))
    assert (both.real, both.augmented, both.held_out) == (20, 68, {"S006"})
    assert both.held_out == ShardDataset(data, run, split=("train", "val")).selected.held_out
    with pytest.raises(ConfigError, match="augmented rows are for training alone; found split val"):
        ShardDataset(data, run, split="val")
    with pytest.raises(ConfigError, match="augmented rows are for training alone; found split val"):
        Request.of(data, run, split="val")


def test_smaller_ratios_are_within_larger_ones_and_training_takes_the_same_rows(data: str, run: str) -> None:
    smaller: set[str] = set()
    for ratio in (0.0, 0.5, 2.0, 4.0):
        taken = set(ids(select(Request.of(data, run, augmented_per_real=ratio)))) - set(names(real_rows()))
        assert len(taken) == 16 * ratio
        assert smaller <= taken
        smaller = taken
    reader = BatchReader([data, run], SplitRows("train", augmented_per_real=0.5), 0, 24)
    chosen = select(Request.of(data, run, augmented_per_real=0.5))
    trained = sorted(float(image.sum()) for image in reader.batch(0).images)
    samples = {s.sample_id: s for s in real_rows() + made_rows() + made_rows(1, policy="relocation")}
    mine = sorted(float(((samples[i].image - 30) / np.float32(670)).astype(np.float32).sum()) for i in ids(chosen))
    assert np.allclose(trained, mine)
    with pytest.raises(DataError, match=r"5 augmented rows for each of 16 real ones are 80; found 64 of split 'train'"):
        select(Request.of(data, run, augmented_per_real=5))


@pytest.mark.parametrize(
    ("where", "real", "augmented"),
    [
        ("policy = relocation", 16, 16),
        ("policy != relocation", 16, 48),
        ("policy = relocation|removal", 16, 64),
        ("gate.locality >= 0.1", 16, 32),
        ("gate.locality = 0.2", 16, 16),
        ("replicate < 1", 16, 32),
        ("manufacturer = SIEMENS", 8, 32),
        ("field_strength_t = 1.50", 8, 32),
        ("field_strength_t > 1.5", 8, 32),
        ("synthetic = true", 0, 64),
        ("subject_id != S001|S002", 8, 32),
        ("slice_index <= 1", 8, 32),
        ("parent_id = S001#0002", 16, 4),
    ],
)
def test_conditions(data: str, run: str, where: str, real: int, augmented: int) -> None:
    found = select(Request.of(data, run, where=where))
    assert (found.real, found.augmented) == (real, augmented)
    assert found.left_out.get(str(Condition.parse(where)), 0) == 80 - real - augmented


def test_conditions_all_hold(data: str, run: str) -> None:
    found = select(Request.of(data, run, where=["manufacturer = SIEMENS", "policy = removal", "replicate = 0"]))
    assert (found.real, found.augmented) == (8, 8)


@pytest.mark.parametrize(
    ("where", "says"),
    [
        ("policy removal", "a condition is a field, an operator"),
        ("polcy = removal", "unknown field of a condition 'polcy'; did you mean 'policy'"),
        ("manufacturer > GE", r"'manufacturer >' needs = or !="),
        ("field_strength_t = three", "needs numbers"),
        ("replicate < 1|2", "'<' takes one number"),
        ("gate.localty > 0", "unknown gate 'localty'; did you mean 'locality'"),
    ],
)
def test_conditions_that_cannot_be_obeyed(data: str, run: str, where: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        select(Request.of(data, run, where=where))


def test_a_condition_on_what_no_row_says_is_refused(data: str) -> None:
    with pytest.raises(DataError, match="no row says its inversion_time_ms"):
        select(Request.of(data, where="inversion_time_ms < 1000"))
    with pytest.raises(DataError, match=r"no rows of split train are left; found 16 left out for manufacturer = X"):
        select(Request.of(data, where="manufacturer = X"))


def test_rows_without_label_maps(tmp_path: Path) -> None:
    rows = [real_row(1, 0), real_row(1, 1, label=None), real_row(2, 0, label=None, labels={}), real_row(2, 1)]
    uri = write_samples(tmp_path, rows)
    with pytest.raises(DataError, match="S001#0001: every row must have a label map; found none"):
        select(Request.of(uri))
    skipped = select(Request.of(uri, unlabelled="skip"))
    assert (ids(skipped), skipped.left_out["no label map"]) == (["S001#0000", "S002#0001"], 2)
    assert len(select(Request.of(uri, unlabelled="keep"))) == 4


@pytest.mark.parametrize("statistics", [False, True])
def test_statistics_tell_of_label_maps_what_reading_them_tells(tmp_path: Path, statistics: bool) -> None:
    for n, rows in enumerate([real_rows(), real_rows(label=None), [real_row(1, 0), real_row(1, 1, label=None)]]):
        uri = write_samples(tmp_path / f"{n}", rows, per_file=100)
        name = next(Path(uri).rglob("*.parquet"))
        table = pq.read_table(name)
        pq.write_table(table, f"{uri}/other.parquet", write_statistics=["label"] if statistics else False)
        found = has_labels(Store(uri).parquet("other.parquet"), 0)
        assert found == [row.label is not None for row in rows]


def test_real_and_augmented_data_are_not_taken_for_each_other(tmp_path: Path, data: str, run: str) -> None:
    with pytest.raises(DataError, match=r"must hold real rows; found augmented ones, such as made-removal-1-0-0"):
        select(Request.of([data, run]))
    with pytest.raises(DataError, match="must hold augmented rows; found real ones"):
        select(Request.of(data, [run, write_samples(tmp_path, real_rows())]))


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: Request.of(()), "at least one real data set"),
        (lambda: Request.of("a", split="training"), "splits are train, val, test; found training"),
        (lambda: Request.of("a", split=()), "splits are"),
        (lambda: Request.of("a", augmented_per_real=1), "of 0 augmented data sets"),
        (lambda: Request.of("a", "b", augmented_per_real=-1), "from 0 on"),
        (lambda: Request.of("a", unlabelled="no"), "unlabelled is one of"),
        (lambda: Request.of("a", ["b", "a"]), "given twice"),
    ],
)
def test_requests_that_cannot_be_obeyed(build: Callable[[], Request], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        build()


def test_a_split_that_is_not_there_names_those_that_are(tmp_path: Path) -> None:
    uri = write_samples(tmp_path, real_rows()[:20])
    with pytest.raises(DataError, match="no rows of split test are left; found rows of train, val"):
        select(Request.of(uri, split="test"))


def test_the_digest_tells_rows_apart(tmp_path: Path, data: str, run: str) -> None:
    same = write_samples(tmp_path / "same", real_rows())
    assert select(Request.of(data)).ids == select(Request.of(same)).ids
    others = [Request.of(data, split="val"), Request.of(data, run), Request.of(data, where="slice_index < 3")]
    assert len({select(request).ids for request in [Request.of(data), *others]}) == 4


def test_a_made_row_stands_for_its_parent() -> None:
    made = made_row(1, 2, 1)
    assert (made.sample_id, made.subject_id, made.provenance and made.provenance.parent_id) == (
        "made-removal-1-2-1",
        "S001",
        "S001#0002",
    )
