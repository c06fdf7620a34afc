"""The guard: no augmented row in which a held-out subject had a part, by its own rows, as a donor or as a model."""

from __future__ import annotations

from pathlib import Path

import pytest
from augmented_rows import NAMES, made_row, made_rows, real_rows, write_model, write_run
from builders import tiny_spec, write_samples

from augengine.errors import AugengineError, DataError
from augengine.leakage import LeakageError
from augengine.selection import Request, fold_of, folds_of, select
from augengine.torch import ShardDataset


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_samples(tmp_path_factory.mktemp("real"), real_rows())


def run_of(folder: Path, trained_on: tuple[int, ...], **options: object) -> tuple[str, str]:
    """A run by a generator that saw some subjects: the run and the checkpoint."""
    model = write_model(folder / "model", tiny_spec("acquisition"), trained_on)
    rows = made_rows(1, models={"generator": model.sha256}, **options)  # type: ignore[arg-type]
    return write_run(folder / "run", rows, str(folder / "model"), model.sha256), str(folder / "model")


def test_a_generator_that_saw_a_validation_subject_is_refused(tmp_path: Path, data: str) -> None:
    clean, _ = run_of(tmp_path / "clean", (1, 2, 3, 4))
    assert select(Request.of(data, clean)).augmented == 16
    leaky, _ = run_of(tmp_path / "leaky", (1, 5))
    with pytest.raises(LeakageError, match=r"S005 trained model .*leaky/model"):
        select(Request.of(data, leaky))
    assert select(Request.of(data, leaky, split=None)).augmented == 16  # no one is held out


def test_a_model_that_is_not_to_be_found_is_refused_until_its_checkpoint_is_given(tmp_path: Path, data: str) -> None:
    run, model = run_of(tmp_path, (1, 2))
    moved = tmp_path / "elsewhere"
    Path(model).rename(moved)
    with pytest.raises(
        LeakageError, match=r"generator: every model in a row's lineage must be known.*; pass its checkpoint, too"
    ):
        select(Request.of(data, run))
    assert select(Request.of(data, run, checkpoints=str(moved))).augmented == 16
    with pytest.raises(AugengineError, match="a checkpoint folder holds"):
        select(Request.of(data, run, checkpoints=str(tmp_path / "nowhere")))


def test_a_donor_of_the_test_split_is_refused(tmp_path: Path, data: str) -> None:
    run = write_samples(tmp_path, [made_row(1, 0, donors=["S002"]), made_row(2, 0, donors=["S006"])])
    with pytest.raises(LeakageError, match="S006 is a donor of its plan"):
        select(Request.of(data, run))


def test_an_augmented_row_of_a_held_out_subject_is_refused_whatever_its_split(tmp_path: Path, data: str) -> None:
    run = write_samples(tmp_path, [made_row(5, 0, split="train")])
    with pytest.raises(LeakageError, match="S005 is the row's own subject"):
        select(Request.of(data, run))


def test_excluded_subjects_are_left_out_with_all_that_was_made_of_them(tmp_path: Path, data: str) -> None:
    rows = [*made_rows(2), made_row(2, 0, 7, donors=["S001"]), made_row(2, 0, 8, donors=["S003"])]
    run = write_samples(tmp_path / "run", rows)
    found = select(Request.of(data, run, exclude_subjects=["S001"]))
    kept = {row["sample_id"] for row in found.rows()}
    assert kept == {r.sample_id for r in [*real_rows()[4:16], *rows] if r.subject_id != "S001"} - {"made-removal-2-0-7"}
    assert found.left_out["excluded subject"] == 4 + 8
    assert found.left_out["donor is an excluded subject"] == 1
    assert found.held_out == {"S001", "S005", "S006"}
    with pytest.raises(DataError, match="an excluded subject must be one of the data's; found S1"):
        select(Request.of(data, run, exclude_subjects=["S001", "S1"]))
    leaky, _ = run_of(tmp_path / "leaky", (1, 2))
    with pytest.raises(LeakageError, match="S001 trained model"):
        select(Request.of(data, leaky, exclude_subjects=["S001"]))


FOLDS = 2


def test_folds_are_those_of_training_and_share_no_subject(data: str) -> None:
    whole = ShardDataset(data, split=None)
    subjects = sorted({f"S{n:03d}" for n in range(1, 7)})
    seen = []
    for n, (train, val) in enumerate(whole.folds(FOLDS)):
        assert set(val.subjects) == {s for s in subjects if fold_of(s, FOLDS) == n} != set()
        assert set(train.subjects) == set(subjects) - set(val.subjects)
        assert (train.label_names, len(train) + len(val)) == (NAMES, 24)
        seen += val.subjects.tolist()
    assert sorted(seen) == sorted(whole.subjects)


def test_folds_hold_augmented_rows_in_training_alone_and_none_of_the_fold(tmp_path: Path, data: str) -> None:
    rows = [*made_rows(2), *(made_row(s, 0, 9 + d, donors=[f"S{d:03d}"]) for s in range(1, 5) for d in range(1, 5))]
    whole = ShardDataset(data, write_samples(tmp_path, rows), augmented_per_real=2.0)
    for train, val in whole.folds(FOLDS):
        fold = set(val.subjects)
        assert not val.synthetic.any()
        assert train.synthetic.sum() == 2 * (~train.synthetic).sum()
        assert not fold & set(train.subjects)
        plans = [row["provenance"] or "" for row in train.selected.rows(["provenance"])]
        assert not any(subject in plan for plan in plans for subject in fold)


def test_folds_refuse_a_generator_that_saw_the_fold_and_take_one_for_each(tmp_path: Path, data: str) -> None:
    run, _ = run_of(tmp_path / "all", (1, 2, 3, 4))
    whole = ShardDataset(data, run)
    with pytest.raises(LeakageError, match="trained model"):
        list(whole.folds(FOLDS))
    runs = []
    for n, fold in enumerate(folds_of({"S001", "S002", "S003", "S004"}, FOLDS)):
        seen = tuple(s for s in range(1, 5) if f"S{s:03d}" not in fold)
        runs.append(run_of(tmp_path / f"{n}", seen)[0])
    pairs = list(whole.folds(FOLDS, augmented=runs))
    assert [train.synthetic.sum() for train, _ in pairs] == [(~train.synthetic).sum() for train, _ in pairs]
    with pytest.raises(LeakageError, match="trained model"):
        list(whole.folds(FOLDS, augmented=runs[::-1]))


def test_folds_without_subjects_are_refused(data: str) -> None:
    whole = ShardDataset(data)
    with pytest.raises(DataError, match="every fold must have a subject; found none in fold"):
        list(whole.folds(4))
    with pytest.raises(DataError, match="two folds at least; found 1"):
        list(whole.folds(1))
