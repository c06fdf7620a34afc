"""Augmented rows that take the place of real ones of their kind: the share of lesions is that of the real rows."""

from collections import Counter
from pathlib import Path

import pytest
from balanced_rows import HEALTHY, ILL, MADE, row, write_balanced
from training_cases import write_rows

from augengine.errors import ConfigError, DataError
from augengine.io.store import Store
from augengine.train.data import BatchReader
from augengine.train.rows import SplitRows, dataset_facts
from augengine.train.sections import DataRecipe
from augengine.train.shown_share import share_warning


@pytest.fixture
def folders(tmp_path: Path) -> list[str]:
    return write_balanced(tmp_path)


def balanced(ratio: float | None) -> SplitRows:
    return SplitRows("train", balance=("core",), augmented_per_real=ratio)


def epoch(folders: list[str], rows: SplitRows, number: int = 0, window: int = 8) -> list[int]:
    reader = BatchReader(folders, rows, 0, 1, window_groups=window)
    steps = range(number * reader.rows, (number + 1) * reader.rows)
    return [round(float(reader.batch(step).images[0, 0, 0, 0])) for step in steps]


@pytest.mark.parametrize("ratio", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("window", [1, 8])
def test_the_share_of_lesions_stays_that_of_the_real_rows(folders: list[str], ratio: float, window: int) -> None:
    for number in range(3):
        seen = epoch(folders, balanced(ratio), number, window)
        kinds = Counter("made" if n >= 100 else "ill" if n < ILL else "healthy" for n in seen)
        made = round(ratio * ILL)
        assert +kinds == +Counter({"made": made, "ill": ILL - made, "healthy": HEALTHY})
        assert len(set(seen)) == len(seen)


def test_other_real_rows_are_left_out_in_each_epoch_and_the_same_by_any_reader(folders: list[str]) -> None:
    left_out = [set(range(ILL)) - set(epoch(folders, balanced(0.5), number)) for number in range(4)]
    assert [len(found) for found in left_out] == [5] * 4
    assert len(set(map(frozenset, left_out))) > 1
    assert set.union(*left_out) == set(range(ILL))
    assert epoch(folders, balanced(0.5), 1) == epoch(folders, balanced(0.5), 1)


def test_other_augmented_rows_are_drawn_in_each_epoch(folders: list[str]) -> None:
    drawn = [{n for n in epoch(folders, balanced(0.5), number) if n >= 100} for number in range(20)]
    assert {len(found) for found in drawn} == {5}
    assert len(set.union(*drawn)) > MADE * 3 / 4


def test_without_balance_lesions_become_more_common(folders: list[str]) -> None:
    seen = epoch(folders, SplitRows("train", augmented_per_real=0.5))
    assert len(seen) == 45
    assert sum(n < ILL or n >= 100 for n in seen) == 25  # of 45, against 10 of 30


def test_healthy_augmented_rows_stand_for_healthy_ones(folders: list[str], tmp_path: Path) -> None:
    removed = write_rows(tmp_path / "removed", [row(200 + n, ill=False, augmented=True) for n in range(40)])
    seen = epoch([*folders, removed], balanced(0.5))
    assert len(seen) == ILL + HEALTHY
    assert Counter(n // 100 for n in seen) == {0: 15, 1: 5, 2: 10}


def test_a_ratio_is_needed_and_cannot_exceed_one(folders: list[str]) -> None:
    for ratio in (None, 1.5):
        with pytest.raises(DataError, match="says which share of them, 0 to 1"):
            dataset_facts(folders, balanced(ratio))
    assert dataset_facts(folders[:1], balanced(None)).rows == ILL + HEALTHY


def test_a_recipe_says_it() -> None:
    data = DataRecipe(lesion=("core",), balance=("core",), augmented_per_real=0.5)
    assert data.rows("train").balance == ("core",)
    assert data.rows("val").balance == ()
    assert "balance" not in DataRecipe().model_dump(mode="json")


def test_a_changed_share_of_lesions_is_told_before_training(folders: list[str], tmp_path: Path) -> None:
    stores, regions = [Store(folder) for folder in folders], {"lesion": ("core",)}
    told = share_warning(stores, SplitRows("train", augmented_per_real=1.0), regions)
    assert told is not None
    assert told.startswith(
        "lesion shows in 33% of the real rows and in 67% of all: the segmenter will find it too often"
    )
    assert "data.balance=[core]" in told
    assert share_warning(stores, balanced(0.5), regions) is None
    assert share_warning(stores[:1], SplitRows("train"), regions) is None, "no augmented rows"
    removed = write_rows(tmp_path / "removed", [row(200 + n, ill=False, augmented=True) for n in range(30)])
    told = share_warning([stores[0], Store(removed)], SplitRows("train"), regions)
    assert told is not None
    assert "in 17% of all: the segmenter will find it too seldom" in told
    alike = [row(300 + n, ill=n < 10, augmented=True) for n in range(30)]
    assert share_warning([stores[0], Store(write_rows(tmp_path / "alike", alike))], SplitRows("train"), regions) is None


def test_labels_that_no_row_knows_and_rows_that_stand_alone_are_refused(folders: list[str]) -> None:
    with pytest.raises(ConfigError, match="unknown label 'cor'"):
        dataset_facts(folders, SplitRows("train", balance=("cor",), augmented_per_real=0.5))
    with pytest.raises(DataError, match=r"take the place of real ones \(data.balance\); found no real rows"):
        dataset_facts(folders[1:], balanced(0.5))
