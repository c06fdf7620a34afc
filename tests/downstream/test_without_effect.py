"""Arms whose scores are their baselines': told, since the segmenter cannot have obeyed what sets them apart."""

from __future__ import annotations

import math

from augengine.downstream.protocols import Cell
from augengine.downstream.results import Row, Scores, without_effect

DICE = ("dice", "tumour")


def scored(classical: float, both: float = 0.6) -> Scores:
    """Two cells in which `real` has .5 and a patient without a score."""
    scores: Scores = {}
    for test in ("GE", "Siemens"):
        for arm, value in {"real": 0.5, "classical": 0.5, "classical+augmented": both}.items():
            value = classical if (test, arm) == ("Siemens", "classical") else value
            scores[Row(Cell(train="GE", test=test), arm, 0.5)] = {DICE: {0: {"a": value, "b": math.nan}}}
    return scores


def test_an_arm_that_changes_nothing_is_named() -> None:
    assert without_effect(scored(0.5)) == [("classical", "real")]


def test_one_digit_in_one_cell_is_an_effect() -> None:
    assert without_effect(scored(0.5 + 1e-12)) == []


def test_baselines_are_those_that_the_tables_compare() -> None:
    assert without_effect(scored(0.5, both=0.5)) == [
        ("classical", "real"),
        ("classical+augmented", "classical"),
        ("classical+augmented", "real"),
    ]
