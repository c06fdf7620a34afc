"""The order of an epoch: every row once, ranks and workers apart, and the same again after any number of rows."""

from __future__ import annotations

import numpy as np
import pytest

from augengine.torch.order import Order, Part

COUNTS = (64, 64, 3, 0, 64, 17, 64, 1, 64, 64)


def rows(order: Order, epoch: int, part: Part, skip: int = 0) -> list[tuple[int, int]]:
    return [(int(g), int(n)) for window in order.windows(epoch, part, skip) for g, n in window]


def every_row() -> list[tuple[int, int]]:
    return [(g, n) for g, count in enumerate(COUNTS) for n in range(count)]


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("even", [True, False])
@pytest.mark.parametrize("batch_size", [1, 8])
@pytest.mark.parametrize(("world", "workers"), [(1, 1), (1, 3), (2, 1), (3, 2), (7, 5)])
def test_parts_are_apart_and_ranks_take_equally_many(
    shuffle: bool, even: bool, batch_size: int, world: int, workers: int
) -> None:
    order = Order(COUNTS, 3, shuffle, 3, even, batch_size)
    for epoch in (0, 1):
        ranks = []
        for rank in range(world):
            parts = [rows(order, epoch, Part(rank, world, worker, workers)) for worker in range(workers)]
            sizes = [len(part) for part in parts]
            assert sum(size % batch_size != 0 for size in sizes) <= 1
            assert max(sizes) - min(sizes) < 2 * batch_size
            ranks.append([row for part in parts for row in part])
            start, stop = order.span(Part(rank, world))
            assert len(ranks[-1]) == stop - start
        together = [row for rank in ranks for row in rank]
        assert len(set(together)) == len(together)
        assert set(together) <= set(every_row())
        if even:
            assert {len(rank) for rank in ranks} == {len(every_row()) // world}
        else:
            assert sorted(together) == every_row()
        if not shuffle and world == 1:
            assert together == every_row()


def test_epochs_and_seeds_differ_and_each_is_the_same_again() -> None:
    orders = {(seed, epoch): rows(Order(COUNTS, seed), epoch, Part()) for seed in (0, 1) for epoch in (0, 1)}
    assert len({tuple(order) for order in orders.values()}) == 4
    assert rows(Order(COUNTS, 1), 1, Part()) == orders[1, 1]
    assert sorted(orders[0, 0]) == every_row()


def test_what_is_left_over_is_not_the_same_rows_in_every_epoch() -> None:
    order = Order(COUNTS)
    whole, missing = set(every_row()), []
    for epoch in (0, 1):
        missing.append(whole - {row for rank in range(11) for row in rows(order, epoch, Part(rank, 11))})
    assert [len(rest) for rest in missing] == [len(whole) % 11] * 2
    assert missing[0] != missing[1]


@pytest.mark.parametrize("part", [Part(), Part(1, 2, 1, 2)])
def test_a_later_start_goes_on_with_the_same_rows(part: Part) -> None:
    order = Order(COUNTS, 5, window=2)
    whole = rows(order, 4, part)
    for skip in range(len(whole) + 1):
        assert rows(order, 4, part, skip) == whole[skip:]


def test_rows_are_mixed_within_a_window_and_row_groups_are_read_once() -> None:
    order = Order((64,) * 24, window=4)
    groups = np.array(rows(order, 0, Part()))[:, 0]
    for n in range(0, len(groups), 4 * 64):
        window = groups[n : n + 256]
        assert len(set(window)) == 4
        assert (np.diff(window) != 0).mean() > 0.6
    assert not set(groups[:256]) & set(groups[256:])
    places = np.array(rows(Order((64,) * 24, window=4), 0, Part()))[:, 1]
    assert not (places[:256] == places[256:512]).all()  # each window has a shuffle of its own


def test_more_parts_than_rows() -> None:
    order = Order((3,), even=False)
    shares = [rows(order, 0, Part(rank, 2, worker, 4)) for rank in range(2) for worker in range(4)]
    assert sorted(row for share in shares for row in share) == [(0, 0), (0, 1), (0, 2)]
    assert [rows(Order((3,)), 0, Part(rank, 4)) for rank in range(4)] == [[]] * 4
