from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from training_cases import batch_of, recipe, samples_of, survey_of, write_rows

from augengine.errors import ConfigError, DataError
from augengine.io.dataset import write_dataset
from augengine.io.shards import to_table
from augengine.records import Acquisition, Sample
from augengine.selection import fold_of
from augengine.train.data import Batch, BatchReader
from augengine.train.rows import SplitRows, dataset_facts, row_bytes
from augengine.train.run import _tell_memory


def sample(subject: int, index: int, split: str = "train", size: int = 8) -> Sample:
    """A flat slice whose normalised value is its number, so that a batch tells which rows it holds."""
    return Sample(
        image=np.full((1, size, size), 100 + 10 * (subject * 10 + index), np.float32),
        affine=np.diag([1.0, 1.0, 3.0, 1.0]),
        channels=("t1",),
        subject_id=f"S{subject}",
        volume_id=f"S{subject}",
        acquisition=Acquisition("GE", "Signa", 1.5, "FS", 10.0, 2.0, 2.0 + subject / 10, 5.0),
        slice_index=index,
        split=split,
        intensity_range=((100.0, 110.0),),
    )


@pytest.fixture
def data(tmp_path: Path) -> str:
    def rows(shard: int) -> list[Sample]:
        return [sample(4 * shard + s, k, "val" if s == 3 else "train") for s in range(4) for k in range(10)]

    return write_dataset(tmp_path / "data", [to_table(rows(shard)) for shard in range(3)]).uri


def numbers(reader: BatchReader, steps: range, rank: int = 0, world: int = 1) -> list[list[int]]:
    return [[round(float(x[0, 0, 0])) for x in reader.batch(s, rank, world).images] for s in steps]


def test_an_epoch_holds_every_training_row_once_and_no_other(data: str) -> None:
    seen = [n for batch in numbers(BatchReader(data, SplitRows("train"), 0, 9), range(10)) for n in batch]
    expected = [10 * s + k for s in range(12) if s % 4 != 3 for k in range(10)]
    assert sorted(seen) == expected
    assert seen != expected
    assert (
        sorted(n for batch in numbers(BatchReader(data, SplitRows("train"), 0, 9), range(10, 20)) for n in batch)
        == expected
    )


def test_a_resumed_reader_goes_on_as_an_undisturbed_one(data: str) -> None:
    through = numbers(BatchReader(data, SplitRows("train"), 5, 7), range(30))
    assert numbers(BatchReader(data, SplitRows("train"), 5, 7), range(17, 30)) == through[17:]
    assert numbers(BatchReader(data, SplitRows("train"), 6, 7), range(30)) != through


def test_ranks_share_a_global_batch_without_overlap(data: str) -> None:
    alone = numbers(BatchReader(data, SplitRows("train"), 5, 8), range(12))
    ranks = [numbers(BatchReader(data, SplitRows("train"), 5, 8), range(12), rank, 2) for rank in (0, 1)]
    for whole, first, second in zip(alone, *ranks, strict=True):
        assert sorted(first + second) == sorted(whole)
        assert len(first) == len(second) == 4


def test_memory_stays_at_the_stated_limit(data: str) -> None:
    reader = BatchReader(data, SplitRows("train"), 0, 9, window_groups=1)
    reader.cache_bytes = 30 * 64 * 4  # one decoded row group
    whole = numbers(BatchReader(data, SplitRows("train"), 0, 9, window_groups=1), range(20))
    assert numbers(reader, range(20)) == whole
    assert len(reader._cache) == 1


class Counting(BatchReader):
    """A reader that counts the row groups that it decodes."""

    decoded = 0

    def _decoded(self, folder: int, name: str, group: int) -> Batch:
        self.decoded += 1
        return super()._decoded(folder, name, group)


def counted(data: str, **options: Any) -> tuple[Counting, list[list[int]]]:
    """Two epochs in batches of 9, and the reader."""
    reader = Counting(data, SplitRows("train"), 0, 9, **options)
    return reader, numbers(reader, range(-(-2 * reader.rows // 9)))


def test_a_row_group_is_decoded_once_an_epoch_however_small_the_cache(tmp_path: Path) -> None:
    shards = (to_table([sample(shard, k) for k in range(10)]) for shard in range(16))
    store = write_dataset(tmp_path / "many", shards)
    seen = {}
    for cache_mb in (0, 1024):
        for window_groups in (1, 4, 8):
            reader, seen[cache_mb, window_groups] = counted(store.uri, cache_mb=cache_mb, window_groups=window_groups)
            # The last batch reaches into a third epoch.
            assert 32 <= reader.decoded <= 33 if cache_mb == 0 else reader.decoded == 16
            if cache_mb == 0:
                assert len(reader._cache) <= window_groups
    assert all(seen[0, groups] == seen[1024, groups] for groups in (1, 4, 8))
    thrashing = Counting(store.uri, SplitRows("train"), 0, 9)
    thrashing.cache_bytes = 4 * 10 * row_bytes((1, 8, 8), 0)  # half a window, as a recipe could ask for
    assert numbers(thrashing, range(-(-320 // 9))) == seen[0, 8]
    assert thrashing.decoded > 4 * 33


def test_the_memory_of_a_window_is_known_before_anything_is_decoded(data: str) -> None:
    found = dataset_facts(data, SplitRows("train"))
    assert found.group_rows == (30, 30, 30)
    for context in ((), (-1, 1)):
        reader = BatchReader(data, SplitRows("train"), 0, 9, context=context, window_groups=2, cache_mb=0)
        largest = max(reader._decoded(*place).nbytes for place, _ in reader.groups)
        assert found.window_bytes(2, len(context)) == 2 * largest == reader.cache_bytes
        assert found.window_bytes(8, len(context)) == 3 * largest


def test_more_memory_than_the_recipe_allows_is_told_and_more_than_there_is_refused(
    data: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(**changes: Any) -> list[str]:
        lines: list[str] = []
        found = replace(dataset_facts(data, SplitRows("train")), **changes)
        _tell_memory(recipe("segmenter"), found, lines.append)
        return lines

    assert told() == []
    full = {"image_size": (240, 240, 155), "group_rows": (4,) * 50}  # volumes, four to a row group
    (line,) = told(**full)
    assert "one window of 8 row groups takes 1363 MiB" in line
    assert "instead of data.cache_mb 1024" in line
    monkeypatch.setattr("augengine.train.run.os.sysconf", lambda name: 2**20 if name == "SC_PAGE_SIZE" else 1000)
    with pytest.raises(ConfigError, match=r"1363 MiB, decoded, of 1000 MiB here; lower data.window_groups to 2"):
        told(**full)


def test_windows_are_read_group_by_group(data: str) -> None:
    first = numbers(BatchReader(data, SplitRows("train"), 0, 30, window_groups=1), range(1))[0]
    assert len({n // 40 for n in first}) == 1  # a window of one group: one shard


def test_acquisitions_belong_to_their_images(data: str) -> None:
    batch = BatchReader(data, SplitRows("train"), 0, 16).batch(0)
    for image, acquisition in zip(batch.images, batch.acquisitions, strict=True):
        assert acquisition.echo_time_ms == pytest.approx(2.0 + round(float(image[0, 0, 0])) // 10 / 10)


def test_survey_reads_the_training_split_only(data: str) -> None:
    found = dataset_facts(data, SplitRows("train"))
    assert (found.rows, found.channels, found.image_size, found.spacing_mm) == (90, ("t1",), (8, 8), (1.0, 1.0, 3.0))
    assert found.subjects == tuple(sorted(f"S{s}" for s in range(12) if s % 4 != 3))
    assert found.vocabulary.maxima["echo_time_ms"] == pytest.approx(3.0)  # subject 10, not 11 of the validation split


def test_survey_refuses_mixed_shapes_and_missing_splits(tmp_path: Path, data: str) -> None:
    with pytest.raises(DataError, match="no rows of split 'test'"):
        dataset_facts(data, SplitRows("test"))
    write_dataset(tmp_path / "mixed", [to_table([sample(0, 0), sample(0, 1, size=9)])])
    with pytest.raises(DataError, match="share one image_shape"):
        dataset_facts(str(tmp_path / "mixed"), SplitRows("train"))
    with pytest.raises(DataError, match="a data set is a folder with manifest"):
        dataset_facts(str(tmp_path / "empty"), SplitRows("train"))


def test_masks_come_as_tissue_maps_by_name(tmp_path: Path) -> None:
    label = np.zeros((8, 8), np.uint8)
    label[:4] = 5
    rows = [
        sample(0, 0).replace(label=label, labels={"fat": 5}),
        sample(0, 1).replace(label=(label > 0).astype(np.uint8), labels={"fat": 1}),
        sample(1, 0),
    ]
    store = write_dataset(tmp_path / "masks", [to_table(rows)])
    found = dataset_facts(store.uri, SplitRows("train"))
    assert found.labels == ("fat",)
    tissue = BatchReader(store.uri, SplitRows("train"), 0, 3, found.labels).batch(0).tissue
    assert sorted((int(t[0, 0]), int(t[7, 7])) for t in tissue) == [(-1, -1), (1, 0), (1, 0)]


def test_each_fold_lacks_its_own_subjects_and_together_they_lack_each_once(data: str) -> None:
    whole = dataset_facts(data, SplitRows("train"))
    kept = [dataset_facts(data, SplitRows("train", (k, 3))) for k in range(3)]
    for k, fold in enumerate(kept):
        assert set(fold.subjects) == {s for s in whole.subjects if fold_of(s, 3) != k} != set(whole.subjects)
        assert fold.rows == 10 * len(fold.subjects)
        seen = [
            n for batch in numbers(BatchReader(data, SplitRows("train", (k, 3)), 0, fold.rows), range(1)) for n in batch
        ]
        assert sorted({f"S{n // 10}" for n in seen}) == sorted(fold.subjects)
        assert len(set(seen)) == fold.rows
    left_out = [set(whole.subjects) - set(fold.subjects) for fold in kept]
    assert sorted(s for fold in left_out for s in fold) == list(whole.subjects)


def test_a_fold_follows_from_the_id_alone_and_folds_are_even() -> None:
    assert [fold_of(f"S{n}", 2) for n in range(8)] == [0, 1, 0, 0, 1, 0, 0, 1]  # must never change: checkpoints know it
    shares = np.bincount([fold_of(f"subject-{n}", 5) for n in range(2000)]) / 2000
    assert np.abs(shares - 0.2).max() < 0.04


def test_context_shows_the_neighbouring_slices_and_the_edge_repeats(data: str) -> None:
    batch = BatchReader(data, SplitRows("train"), 0, 90, context=(-1, 1, 3)).batch(0)
    assert batch.context.shape == (90, 3, 8, 8)
    for image, shown in zip(batch.images, batch.context, strict=True):
        number = round(float(image[0, 0, 0]))
        volume, index = divmod(number, 10)
        wanted = [10 * volume + min(max(index + offset, 0), 9) for offset in (-1, 1, 3)]
        assert [round(float(plane[0, 0])) for plane in shown] == wanted
        assert (shown == shown[:, :1, :1]).all()


def test_context_of_several_channels_goes_offset_by_offset(tmp_path: Path) -> None:
    images = [np.full((2, 4, 4), 10 * k, np.float32) + np.array([[[0]], [[5]]], np.float32) for k in range(3)]
    rows = [
        sample(0, k).replace(image=image, channels=("a", "b"), intensity_range=((0.0, 10.0),) * 2)
        for k, image in enumerate(images)
    ]
    batch = BatchReader(write_rows(tmp_path, rows), SplitRows("train"), 0, 3, context=(-1, 1)).batch(0)
    middle = next(n for n in range(3) if batch.images[n, 0, 0, 0] == 1)
    assert batch.context[middle, :, 0, 0].tolist() == [0.0, 0.5, 2.0, 2.5]


def test_copies_of_a_slice_train_together_but_have_no_neighbours(tmp_path: Path) -> None:
    uri = write_rows(tmp_path, [sample(0, 0), sample(0, 0), sample(0, 1)])
    assert sorted(numbers(BatchReader(uri, SplitRows("train"), 0, 3), range(1))[0]) == [0, 0, 1]
    with pytest.raises(DataError, match="each slice of a volume must stand in one row"):
        BatchReader(uri, SplitRows("train"), 0, 3, context=(1,)).batch(0)


@pytest.mark.parametrize("dims", [2, 3])
def test_slices_and_volumes_come_back_as_they_were_written(tmp_path: Path, dims: int) -> None:
    uri = write_rows(tmp_path, samples_of(dims))
    found, written = dataset_facts(uri, SplitRows("train")), batch_of(dims)
    assert found == survey_of(dims)
    batch = BatchReader(uri, SplitRows("train"), 0, 4, found.labels).batch(0)
    order = [written.subjects.index(subject) for subject in batch.subjects]
    np.testing.assert_array_equal(batch.images, written.images[order])
    np.testing.assert_array_equal(batch.tissue, written.tissue[order])
    assert batch.acquisitions == [written.acquisitions[n] for n in order]
    assert batch.context.shape == (4, 0, *found.image_size)


@pytest.mark.parametrize("groups", [((8, 8), (12,)), ((8, 12), (8,)), ((8, 12), (12, 8))])
def test_row_groups_of_differing_shape_come_together_in_a_batch(
    tmp_path: Path, groups: tuple[tuple[int, ...], ...]
) -> None:
    tables = [to_table([sample(n, k, size=size) for k, size in enumerate(sizes)]) for n, sizes in enumerate(groups)]
    reader = BatchReader(write_dataset(tmp_path / "data", tables).uri, SplitRows("train"), 0, 4)
    found = [(0, 0), (0, 1), (1, 0)]
    batch, sizes = reader.take(found), [groups[n][k] for n, k in found]
    assert [image.shape for image in batch.images] == [(1, size, size) for size in sizes]
    assert [plane.shape for plane in batch.context] == [(0, size, size) for size in sizes]
    assert batch.nbytes == sum((4 + 1) * size**2 for size in sizes)
    alike = reader.take([place for place, size in zip(found, sizes, strict=True) if size == 8])
    assert isinstance(alike.images, np.ndarray)
    assert isinstance(alike.context, np.ndarray)
    assert alike.context.shape == (len(alike), 0, 8, 8)


def test_rows_may_be_asked_to_show_a_label(tmp_path: Path) -> None:
    lesion, fat = np.zeros((2, 8, 8), np.uint8)
    lesion[2, 2], fat[2, 2] = 7, 5
    rows = [
        sample(0, 0).replace(label=lesion, labels={"lesion": 7, "fat": 5}),
        sample(0, 1).replace(label=fat, labels={"lesion": 7, "fat": 5}),
        sample(1, 2).replace(label=lesion, labels={"fat": 7}),  # the same code by another name
        sample(1, 3),
    ]
    uri = write_rows(tmp_path, rows)
    showing = SplitRows("train", showing=("lesion",))
    assert numbers(BatchReader(uri, showing, 0, 2), range(1)) == [[0, 0]]
    found = dataset_facts(uri, showing)
    assert (found.rows, found.subjects, found.labels) == (1, ("S0",), ("fat", "lesion"))
