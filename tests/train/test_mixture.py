"""Several folders as one data set: which real and augmented rows a training sees."""

from pathlib import Path

import numpy as np
import pytest
from training_cases import recipe, samples_of, write_rows

from augengine.errors import DataError
from augengine.records import Provenance, Sample
from augengine.train.data import BatchReader
from augengine.train.rows import SplitRows, dataset_facts

REAL, COPIES = 12, 3


def row(number: int, split: str = "train", *, augmented: bool = False, labelled: bool = True) -> Sample:
    """A flat slice whose normalised value is its number; augmented ones begin at 100."""
    subject = f"S{number % 100 % REAL}"
    made = Provenance(f"made-{number}", subject, "policy", "0", "edit", {}) if augmented else None
    return samples_of()[0].replace(
        image=np.full((1, 16, 16), number, np.float32),
        subject_id=subject,
        volume_id=subject,
        slice_index=0,
        split=split,
        provenance=made,
        **({} if labelled else {"label": None}),
    )


@pytest.fixture
def folders(tmp_path: Path) -> list[str]:
    real = [row(n) for n in range(REAL)] + [row(50, "val")]
    made = [row(100 + n, augmented=True) for n in range(COPIES * REAL)] + [row(190, "val", augmented=True)]
    return [write_rows(tmp_path / "real", real), write_rows(tmp_path / "made", made)]


def seen(folders: str | list[str], rows: SplitRows, seed: int = 0, epoch: int = 0) -> list[int]:
    reader = BatchReader(folders, rows, seed, 3)
    steps = range(epoch * reader.rows // 3, (epoch + 1) * reader.rows // 3)
    return [round(float(image[0, 0, 0])) for step in steps for image in reader.batch(step).images]


def test_folders_are_read_as_one(folders: list[str]) -> None:
    everything = seen(folders, SplitRows("train"))
    assert sorted(everything) == [*range(REAL), *range(100, 100 + COPIES * REAL)]
    assert min(everything.index(n) for n in range(100, 136)) < max(everything.index(n) for n in range(REAL))
    found = dataset_facts(folders, SplitRows("train"))
    assert found.rows == len(everything)
    assert len(found.subjects) == REAL
    assert (
        found.ids
        == dataset_facts(folders[::-1], SplitRows("train")).ids
        != dataset_facts(folders[0], SplitRows("train")).ids
    )
    assert seen(folders[0], SplitRows("train")) == seen(folders[:1], SplitRows("train"))
    assert sorted(seen(folders[:1] * 2, SplitRows("train"))) == sorted([*range(REAL)] * 2)


def test_a_ratio_takes_the_same_rows_in_every_epoch_and_those_of_a_smaller_one(folders: list[str]) -> None:
    smaller: set[int] = set()
    for ratio in (0.0, 0.25, 1.0, 3.0):
        rows = SplitRows("train", augmented_per_real=ratio)
        epochs = [seen(folders, rows, seed=seed, epoch=epoch) for seed, epoch in ((0, 0), (0, 1), (7, 0))]
        assert epochs[0] != epochs[1]
        assert sorted(epochs[0]) == sorted(epochs[1]) == sorted(epochs[2])
        made = {n for n in epochs[0] if n >= 100}
        assert len(made) == len(epochs[0]) - REAL == round(ratio * REAL)
        assert smaller <= made
        smaller = made
        assert dataset_facts(folders, rows).rows == len(epochs[0])
    assert sorted({n % 100 // REAL for n in seen(folders, SplitRows("train", augmented_per_real=1.0)) if n >= 100}) != [
        0
    ]


def test_the_ratio_counts_within_a_fold_and_leaves_its_subjects_out_of_both(folders: list[str]) -> None:
    rows = SplitRows("train", (0, 2), augmented_per_real=2.0)
    kept = seen(folders, rows)
    real = {n for n in kept if n < 100}
    assert 0 < len(real) < REAL
    assert {n % 100 % REAL for n in kept} == real
    assert len(set(kept)) == 3 * len(real)


def test_more_than_there_is_is_refused(folders: list[str]) -> None:
    with pytest.raises(DataError, match=r"3.5 augmented rows for each of 12 real ones are 42; found 36 of split"):
        dataset_facts(folders, SplitRows("train", augmented_per_real=3.5))


def test_what_learns_regions_leaves_out_rows_without_a_label_map(tmp_path: Path) -> None:
    uri = write_rows(tmp_path, [row(1), row(2, labelled=False), row(3)])
    labelled, any_row = recipe("segmenter").data.rows("train"), recipe("m1").data.rows("train")
    reader = BatchReader(uri, labelled, 0, 2)
    assert sorted(float(image[0, 0, 0]) for image in reader.batch(0).images) == [1, 3]
    assert dataset_facts(uri, labelled).rows == reader.rows == 2
    assert dataset_facts(uri, any_row).rows == 3
    with pytest.raises(DataError, match="no labelled rows of split 'train'"):
        dataset_facts(write_rows(tmp_path / "none", [row(2, labelled=False)]), labelled)


def test_validation_is_of_real_rows_where_a_ratio_is_asked_for(folders: list[str]) -> None:
    data = recipe("segmenter").data
    assert dataset_facts(folders, data.rows("val")).rows == 2
    mixed = data.model_copy(update={"augmented_per_real": 1.0})
    assert dataset_facts(folders, mixed.rows("val")).rows == 1
    assert dataset_facts(folders, mixed.rows("train")).rows == 2 * REAL


def test_recipes_without_a_mixture_keep_the_identity_that_they_had() -> None:
    plain = recipe("segmenter")
    assert "augmented_per_real" not in plain.model_dump(mode="json")["data"]
    assert "classical" not in plain.model_dump(mode="json")
    mixed = recipe("segmenter", data={**plain.data.model_dump(), "augmented_per_real": 1.0})
    assert len({plain.digest, mixed.digest, recipe("segmenter", classical={}).digest}) == 3
    assert mixed == type(mixed).model_validate(mixed.model_dump(mode="json"))


def test_a_recipe_chooses_rows_by_label_scanner_and_split(tmp_path: Path) -> None:
    vendors = [samples_of()[n].acquisition for n in (0, 1)]
    rows = [
        row(n, "val" if n >= 8 else "train", labelled=n % 4 < 2).replace(acquisition=vendors[n % 2]) for n in range(12)
    ]
    uri = write_rows(tmp_path, rows)

    def taken(use: str, **data: object) -> set[str]:
        chosen = recipe("m1", data=data).data.rows(use)  # type: ignore[arg-type]
        read = BatchReader(uri, chosen, 0, 1)
        assert dataset_facts(uri, chosen).rows == read.rows
        return {f"{float(image[0, 0, 0]):.0f}" for step in range(read.rows) for image in read.batch(step).images}

    siemens = {"where": {"manufacturer": "SIEMENS"}}
    assert taken("train", labelled=False) == {"2", "3", "6", "7"}
    assert taken("train", **siemens) == {"1", "3", "5", "7"}
    assert taken("train", labelled=True, **siemens) == {"1", "5"}
    assert taken("val", labelled=True, **siemens) == {"9"}
    assert taken("train", split="val", validation_rows=0) == {"8", "9", "10", "11"}
    with pytest.raises(DataError, match=r"no rows of split 'train' that say .*Philips"):
        dataset_facts(uri, recipe("m1", data={"where": {"manufacturer": "Philips"}}).data.rows("train"))
    for mistake, says in (
        ({"split": "val"}, "cannot validate"),
        ({"labelled": False, "showing": ("core",)}, "no regions"),
        ({"where": {"vendor": "GE"}}, "no acquisition parameter 'vendor'"),
    ):
        with pytest.raises(ValueError, match=says):
            recipe("m1", data=mistake)
    assert recipe("m1").digest == recipe("m1", data={"split": "train", "where": {}, "labelled": None}).digest
