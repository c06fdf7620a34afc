"""Streaming: every row once among ranks and workers, epochs, and resuming to the row."""

from __future__ import annotations

import copy
import gc
import itertools
import pickle
import weakref
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from augmented_rows import made_rows, real_rows
from builders import write_samples
from torch.utils.data import DataLoader

from augengine.errors import ConfigError, RunError
from augengine.torch import ShardDataset, ShardStream
from augengine.torch.groups import Groups

ROWS = 16 + 32


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    real = write_samples(tmp_path_factory.mktemp("real"), real_rows(), per_file=5)
    return real, write_samples(tmp_path_factory.mktemp("run"), made_rows(2), per_file=7)


def ids(items: Any) -> list[str]:
    """Of items, or of batches of them."""
    found: list[str] = []
    for item in items:
        found += [item["sample_id"]] if isinstance(item["sample_id"], str) else item["sample_id"]
    return found


def test_a_stream_gives_the_items_of_the_data_set(places: tuple[str, str]) -> None:
    found, stream = ShardDataset(*places), ShardStream(*places, window=2)
    by_id = {item["sample_id"]: item for item in (found[n] for n in range(len(found)))}
    items = list(stream)
    assert len(items) == len(stream) == ROWS
    assert sorted(ids(items)) == sorted(by_id)
    for item in items:
        other = by_id[item["sample_id"]]
        assert item.keys() == other.keys()
        assert all(torch.equal(v, other[k]) if torch.is_tensor(v) else v == other[k] for k, v in item.items())
    assert ids(ShardStream(*places, shuffle=False)) == ids(found[n] for n in range(len(found)))
    assert (stream.channels, stream.label_names) == (found.channels, found.label_names)


def test_epochs_differ_and_return(places: tuple[str, str]) -> None:
    stream = ShardStream(*places, seed=2)
    first = ids(stream)
    assert ids(stream) == first
    stream.set_epoch(1)
    second = ids(stream)
    assert second != first
    assert sorted(second) == sorted(first)
    stream.set_epoch(0)
    assert ids(stream) == first
    assert ids(ShardStream(*places, seed=3)) != first


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_ranks_and_workers_share_an_epoch(places: tuple[str, str], context: str) -> None:
    seen = []
    for rank in range(2):
        stream = ShardStream(*places, rank=rank, world=2, batch_size=4)
        loader = DataLoader(stream, 4, num_workers=2, multiprocessing_context=context)
        batches = list(loader)
        assert [len(batch["weight"]) for batch in batches] == [4] * 6
        assert len(loader) == 6
        seen += ids(batches)
    assert len(seen) == len(set(seen)) == ROWS


def test_workers_that_persist_learn_of_a_new_epoch(places: tuple[str, str]) -> None:
    stream = ShardStream(*places)
    loader = DataLoader(stream, None, num_workers=1, persistent_workers=True)
    assert ids(loader) == ids(ShardStream(*places))
    stream.set_epoch(1)
    other = ShardStream(*places)
    other.set_epoch(1)
    assert ids(loader) == ids(other)


def test_the_environment_says_which_rank_this_is(places: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    stream = ShardStream(*places)
    seen = []
    monkeypatch.setenv("WORLD_SIZE", "3")
    for rank in range(3):
        monkeypatch.setenv("RANK", str(rank))
        found = ids(pickle.loads(pickle.dumps(stream)))  # as a driver sends it to its workers
        assert len(found) == len(stream) == ROWS // 3
        seen += found
    assert len(set(seen)) == ROWS
    with pytest.raises(ConfigError, match="rank and world belong together"):
        ShardStream(*places, rank=1)


def test_a_process_group_says_which_rank_a_spawned_worker_reads_for(
    places: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = ShardStream(*places)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    own, sent = ids(stream), pickle.dumps(stream)
    monkeypatch.undo()
    assert ids(pickle.loads(sent)) == own
    assert len(own) == ROWS // 2


def test_a_stream_resumes_to_the_row(places: tuple[str, str]) -> None:
    options: dict[str, Any] = {"seed": 5, "window": 2}
    whole = ShardStream(*places, **options)
    whole.set_epoch(3)
    expected = ids(whole)
    whole.set_epoch(4)
    following = ids(whole)
    for stop in (0, 1, 7, 14, 15, 31, ROWS - 1, ROWS):
        stream = ShardStream(*places, **options)
        stream.set_epoch(3)
        begun = ids(itertools.islice(iter(stream), stop))
        state = copy.deepcopy(stream.state_dict())
        resumed = ShardStream(*places, **options)
        resumed.load_state_dict(state)
        assert resumed.state_dict() == state
        assert begun + ids(resumed) == expected
        resumed.set_epoch(4)
        assert ids(resumed) == following


def test_a_state_before_the_first_row_knows_its_epoch(places: tuple[str, str]) -> None:
    stream = ShardStream(*places)
    stream.set_epoch(2)
    assert (stream.state_dict()["epoch"], stream.state_dict()["row"]) == (2, 0)
    list(stream)
    assert stream.state_dict()["row"] == ROWS
    iter(stream)  # a new pass begins before its first row is asked for
    assert stream.state_dict()["row"] == 0


@pytest.mark.parametrize(
    "other", [{"seed": 1}, {"window": 3}, {"batch_size": 2}, {"split": None}, {"rank": 0, "world": 2}]
)
def test_a_state_of_another_order_is_refused(places: tuple[str, str], other: dict[str, Any]) -> None:
    state = ShardStream(*places).state_dict()
    with pytest.raises(RunError, match="a state belongs to the same rows, seed"):
        ShardStream(*places, **other).load_state_dict(state)


def test_a_state_that_only_workers_know_is_not_made_up(places: tuple[str, str]) -> None:
    stream = ShardStream(*places)
    next(iter(DataLoader(stream, 4, num_workers=1)))
    with pytest.raises(RunError, match=r"load by torchdata\.stateful_dataloader"):
        stream.state_dict()


class Watch:
    """How many row groups that a stream read are in memory at a time, at most."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = self.most = self.reads = 0
        load = Groups.load

        def counted(groups: Groups, index: int) -> Any:
            rows = load(groups, index)
            weakref.finalize(rows, self.gone)
            self.now, self.reads = self.now + 1, self.reads + 1
            self.most = max(self.most, self.now)
            return rows

        monkeypatch.setattr(Groups, "load", counted)

    def gone(self) -> None:
        self.now -= 1


def test_memory_holds_two_windows_or_one_in_a_worker(places: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    watch, stream = Watch(monkeypatch), ShardStream(*places, window=2)
    groups = len(stream.selected.groups)
    assert len(list(stream)) == ROWS
    gc.collect()
    assert (watch.reads, watch.now) == (groups, 0)
    assert 2 <= watch.most <= 4
    monkeypatch.setattr("augengine.torch.stream.get_worker_info", lambda: WorkerInfo(0, 1))
    watch.most = 0
    assert len(list(stream)) == ROWS
    assert watch.most <= 2
    next(iter(stream))  # a pass that is broken off leaves nothing
    gc.collect()
    assert watch.now == 0


class WorkerInfo(NamedTuple):
    id: int
    num_workers: int


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("persistent", [False, True])
def test_a_stateful_loader_resumes_to_the_row(places: tuple[str, str], workers: int, persistent: bool) -> None:
    pytest.importorskip("torchdata", reason="torchdata is not installed")
    from torchdata.stateful_dataloader import StatefulDataLoader

    def loader(epoch: int = 1) -> tuple[ShardStream, Any]:
        stream = ShardStream(*places, seed=7, window=3, batch_size=4)
        stream.set_epoch(epoch)
        return stream, StatefulDataLoader(stream, 4, num_workers=workers, persistent_workers=persistent and workers > 0)

    expected = ids(loader(1)[1])
    following = ids(loader(2)[1])
    assert len(set(expected)) == ROWS
    for batches in (0, 1, 5, 11, 12):
        _, begun = loader()
        iterator = iter(begun)
        first = ids(next(iterator) for _ in range(batches))
        state = pickle.loads(pickle.dumps(begun.state_dict()))
        stream, resumed = loader(0)
        resumed.load_state_dict(state)
        rest = ids(resumed)
        assert first + rest == expected, (batches, len(first), len(rest))
        stream.set_epoch(2)
        assert ids(resumed) == following
        del iterator, begun, resumed
