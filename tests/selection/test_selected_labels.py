"""Channels and labels by name: what a code means is the same in every item, or an error says why not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from augmented_rows import CODES, real_row
from builders import write_samples

from augengine.errors import ConfigError, DataError
from augengine.selection import Labels, Request, select


def scheme(**codes: int) -> tuple[list[str], list[int]]:
    return list(codes), list(codes.values())


def test_a_table_gives_consecutive_codes_or_unions() -> None:
    label = np.array([0, 2, 5, 9], np.uint8)
    cases: list[tuple[Labels, list[int]]] = [
        (Labels.of(None), [0, 1, 2, 3]),
        (Labels.of(["cyst", "fat"]), [0, 2, 0, 1]),
        (Labels.of("gland"), [0, 0, 1, 0]),
        (Labels.of({"breast": ["fat", "gland"], "cyst": "cyst"}), [0, 1, 1, 2]),
    ]
    for labels, expected in cases:
        assert labels.mapped(label, *scheme(**CODES), "row").tolist() == expected
    assert Labels.of(["fat"]).mapped(label[:0], *scheme(**CODES), "row").size == 0


def test_schemes_with_other_codes_give_the_same_meaning() -> None:
    labels = Labels.of({"lesion": ["core", "oedema"]})
    assert labels.mapped(np.array([1, 2, 3], np.uint8), *scheme(core=3, oedema=1, csf=2), "a").tolist() == [1, 0, 1]
    assert labels.mapped(np.array([1, 2, 3], np.uint8), *scheme(core=1, csf=2, x=3), "b").tolist() == [1, 0, 0]


def test_a_code_without_a_name_is_refused() -> None:
    with pytest.raises(DataError, match="row: every code of a label map must have a name; found code 7"):
        Labels.of(["fat"]).mapped(np.array([2, 7], np.uint8), *scheme(**CODES), "row")


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: Labels.of([]), "one at least"),
        (lambda: Labels.of({"a": []}), "one at least"),
        (lambda: Labels.of(["a", "a"]), "stands in one union alone"),
        (lambda: Labels.of({"whole": ["core", "oedema"], "core": ["core"]}), "stands in one union alone"),
    ],
)
def test_labels_that_no_map_can_hold(build: Callable[[], Labels], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        build()


def test_rows_must_know_the_labels_asked_for(tmp_path: Path) -> None:
    half = real_row(2, 0, labels={"fat": 2, "gland": 5})
    uri = write_samples(tmp_path / "a", [real_row(1, 0), half])
    with pytest.raises(DataError, match=r"S002#0000: rows must have the same labels; S001#0000 has fat, gland, cyst"):
        select(Request.of(uri))
    assert select(Request.of(uri, labels=["gland", "fat"])).label_names == ("gland", "fat")
    with pytest.raises(DataError, match="S002#0000: every row must know the label 'cyst'; found fat, gland"):
        select(Request.of(uri, labels=["cyst"]))
    assert select(Request.of(uri, labels={"any": ["cyst", "gland"]})).label_names == ("any",)
    with pytest.raises(ConfigError, match="unknown label 'glnd'; did you mean 'gland'"):
        select(Request.of(uri, labels=["glnd"]))


def test_channels_by_name_or_the_same_in_all_rows(tmp_path: Path) -> None:
    image = np.stack([np.full((32, 32), n, np.float32) for n in (1, 2, 3)])
    three = real_row(1, 0, image=image, channels=("t1", "t2", "flair"))
    two = real_row(2, 0, image=image[:2], channels=("flair", "t1"))
    uri = write_samples(tmp_path, [three, two])
    with pytest.raises(DataError, match="S002#0000: rows must have the same channels; S001#0000 has t1, t2, flair"):
        select(Request.of(uri))
    found = select(Request.of(uri, channels=["flair", "t1"]))
    assert found.channels == ("flair", "t1")
    with pytest.raises(DataError, match="S002#0000: every row must have channel 't2'; found flair, t1"):
        select(Request.of(uri, channels="t2"))
