"""Small numbers count as 0 in training and nowhere else: not after it, and not where distances are measured."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from augengine.denormals import denormals, flushes
from augengine.metrics import surface


def test_the_setting_ends_with_its_block_even_after_an_error() -> None:
    assert not flushes()
    with pytest.raises(ZeroDivisionError), denormals(flushed=True):  # noqa: PT012
        assert flushes()
        with denormals(flushed=False):
            assert not flushes()
        assert flushes()
        raise ZeroDivisionError
    assert not flushes()


def test_threads_take_over_what_holds_where_they_begin() -> None:
    found: list[bool] = []
    with denormals(flushed=True):
        thread = threading.Thread(target=lambda: found.append(flushes()))
        thread.start()
        thread.join()
    assert found == [True]


def test_distances_between_surfaces_are_measured_with_all_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []
    measured = surface.get_surface_distance

    def look(*args: Any, **named: Any) -> Any:
        seen.append(flushes())
        return measured(*args, **named)

    monkeypatch.setattr(surface, "get_surface_distance", look)
    mask = np.zeros((12, 12), bool)
    mask[3:6, 3:6] = True
    with denormals(flushed=True):
        assert surface.hd95_mm(mask, np.roll(mask, 2, axis=0), (1.0, 1.0)) == 2
        assert flushes()
    assert seen == [False, False]
