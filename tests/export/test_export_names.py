"""Names of cases: safe for every tool and disk, and never one for two rows."""

from __future__ import annotations

import re

import pytest

from augengine.errors import DataError
from augengine.export.names import case_names, labels_of


def test_names_are_safe_and_synthetic_ones_are_marked() -> None:
    ids = [("S001#0012", False), ("Müller/2", False), ("a" * 300, False), ("-", False), ("0af3", True)]
    names = case_names(ids)
    assert names["S001#0012"] == "S001-0012"
    assert names["0af3"] == "syn-0af3"
    for name in names.values():
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name), name
        assert len(name) < 130


def test_ids_that_would_become_one_name_on_any_disk_are_told_apart() -> None:
    names = case_names([("A.1", False), ("A-1", False), ("a-1", False), ("B", False)])
    assert len({name.casefold() for name in names.values()}) == 4
    assert names["B"] == "B"
    assert names == case_names([("B", False), ("a-1", False), ("A-1", False), ("A.1", False)])  # of no order


def test_an_id_that_stands_twice_is_refused() -> None:
    with pytest.raises(DataError, match="one row"):
        case_names([("x", False), ("x", True)])


def test_labels_are_letters_and_digits() -> None:
    found = labels_of(["S-1", "S_1", "Ünder", "%"])
    assert all(re.fullmatch("[A-Za-z0-9]+", label) for label in found.values())
    assert len(set(found.values())) == 4
