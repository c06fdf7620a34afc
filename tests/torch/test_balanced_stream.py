"""Streams of augmented rows that take the place of real ones of their kind, in each epoch others."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from balanced_rows import HEALTHY, ILL, MADE, row, write_balanced
from torch.utils.data import DataLoader
from training_cases import write_rows

from augengine.errors import ConfigError, DataError, RunError
from augengine.torch import ShardDataset, ShardStream
from augengine.train.data import BatchReader
from augengine.train.rows import SplitRows


@pytest.fixture
def folders(tmp_path: Path) -> list[str]:
    return write_balanced(tmp_path)


def stream(folders: list[str], share: float | None = 0.5, **more: object) -> ShardStream:
    return ShardStream(*folders, balance="core", augmented_per_real=share, **more)  # type: ignore[arg-type]


def numbers(items: object) -> list[int]:
    """The rows' own numbers, in order."""
    return [int(str(item["subject_id"])[1:]) for item in items]  # type: ignore[attr-defined]


def kinds(found: list[int]) -> Counter[str]:
    return Counter("made" if n >= 100 else "ill" if n < ILL else "healthy" for n in found)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_lesions_keep_their_share_and_no_row_comes_twice(folders: list[str], share: float) -> None:
    rows = stream(folders, share, window=2)
    for epoch in range(3):
        rows.set_epoch(epoch)
        found = numbers(rows)
        made = round(share * ILL)
        assert kinds(found) == +Counter({"made": made, "ill": ILL - made, "healthy": HEALTHY})
        assert len(set(found)) == len(found) == len(rows) == ILL + HEALTHY


def test_epochs_meet_all_rows_in_time(folders: list[str]) -> None:
    rows, met = stream(folders), set[int]()
    for epoch in range(40):
        rows.set_epoch(epoch)
        met |= set(numbers(rows))
    assert len(met) == ILL + HEALTHY + MADE
    rows.set_epoch(0)
    assert numbers(rows) == numbers(stream(folders))


def test_without_balance_lesions_become_more_common(folders: list[str]) -> None:
    found = kinds(numbers(ShardStream(*folders, augmented_per_real=0.5)))
    assert found == {"ill": ILL, "healthy": HEALTHY, "made": 15}


def test_ranks_and_workers_share_a_balanced_epoch(folders: list[str]) -> None:
    found: list[int] = []
    for rank in range(2):
        loader = DataLoader(stream(folders, rank=rank, world=2, batch_size=4), 4, num_workers=2)
        found += [int(subject[1:]) for batch in loader for subject in batch["subject_id"]]
    assert sorted(found) == sorted(numbers(stream(folders)))


def test_a_balanced_stream_resumes_to_the_row_and_not_with_another_share(folders: list[str]) -> None:
    whole, begun = numbers(stream(folders)), stream(folders)
    given = iter(begun)
    first = [next(given) for _ in range(7)]
    resumed = stream(folders)
    resumed.load_state_dict(begun.state_dict())
    assert numbers(first) + numbers(resumed) == whole
    with pytest.raises(RunError, match="a state belongs to"):
        stream(folders, 0.4).load_state_dict(begun.state_dict())


def test_training_by_recipes_leaves_out_the_same_rows(folders: list[str]) -> None:
    reader = BatchReader(folders, SplitRows("train", balance=("core",), augmented_per_real=0.5), 3, 1)
    theirs = {round(float(reader.batch(step).images[0, 0, 0, 0])) for step in range(reader.rows)}
    assert set(numbers(stream(folders, seed=3))) == theirs


def test_what_cannot_be_balanced_is_refused(folders: list[str]) -> None:
    for share in (None, 1.5):
        with pytest.raises(DataError, match="which share of them, 0 to 1"):
            stream(folders, share)
    with pytest.raises(ConfigError, match="give augmented, too"):
        ShardStream(folders[0], balance="core", augmented_per_real=0.5)
    with pytest.raises(ConfigError, match="unknown label 'cor'"):
        ShardStream(*folders, balance="cor", augmented_per_real=0.5)
    with pytest.raises(ConfigError, match="read by ShardStream"):
        ShardDataset(*folders, balance="core", augmented_per_real=0.5)


def test_too_few_augmented_rows_of_a_kind_are_refused(folders: list[str], tmp_path: Path) -> None:
    few = write_rows(tmp_path / "few", [row(100 + n, ill=True, augmented=True) for n in range(4)])
    assert len(stream([folders[0], few], 0.4)) == ILL + HEALTHY
    with pytest.raises(DataError, match="augmented rows that show core for each of 10 real ones are 5"):
        stream([folders[0], few], 0.5)
