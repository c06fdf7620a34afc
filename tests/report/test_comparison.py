"""Tables of intervals: the patient is the unit, targets say what they compare, all forms hold the same numbers."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest
from matplotlib.figure import Figure

from augengine.report.comparison import Comparison, Target, best, draw, figure, intervals, target

SUBJECTS = ["a", "a", "a", "b"]
MEASURED = {
    "ours": {"rmse": [1.0, 1.0, 1.0, 3.0], "dice": [np.nan, np.nan, np.nan, 0.5]},
    "other": {"rmse": [4.0, 4.0, 4.0, 4.0], "dice": [np.nan] * 4},
}


def test_means_are_by_subject_and_what_applies_to_no_row_is_left_out() -> None:
    found = intervals(MEASURED, SUBJECTS)
    assert found["ours"]["rmse"].estimate == 2  # not 1.5, the mean over rows
    assert found["ours"]["dice"].subjects == 1
    assert "dice" not in found["other"]
    assert best(MEASURED, ["other", "ours"], "rmse", SUBJECTS) == "ours"


@pytest.mark.parametrize(("bound", "at_most", "met"), [(0.5, True, True), (0.4, True, False), (0.6, False, False)])
def test_a_target_is_a_ratio_of_means_paired_by_subject(bound: float, at_most: bool, met: bool) -> None:
    found = target("t", MEASURED["ours"]["rmse"], MEASURED["other"]["rmse"], SUBJECTS, bound, at_most=at_most)
    assert found.found.estimate == 0.5  # type: ignore[union-attr]
    assert found.met is met
    assert ("met" if met else "missed") in str(found)


def test_a_difference_leaves_out_subjects_without_both_values() -> None:
    found = target("t", MEASURED["ours"]["dice"], MEASURED["ours"]["rmse"], SUBJECTS, 0, ratio=False)
    assert found.found.estimate == pytest.approx(-2.5)  # type: ignore[union-attr]


def test_every_form_of_a_table_holds_its_numbers() -> None:
    pictures = {"ours": [np.ones((8, 6)), np.zeros((8, 6))], "other": [np.ones((8, 6), np.uint8)] * 2}
    table = Comparison(
        "Title",
        {"rmse": "RMSE", "share": "Share"},
        {**intervals(MEASURED, SUBJECTS), "whole": {"share": 0.25}},
        (Target("low", 0.25, 0.2, True),),
        {"n": 4},
        pictures,
    )
    text = table.markdown()
    assert "| ours | 2.000 [1.00, 3.00] | – |" in text
    assert "| whole | – | 0.250 |" in text
    assert "- low: 0.25 ≤ 0.2: missed" in text
    value = json.loads(json.dumps(table.to_dict()))
    assert value["methods"]["ours"]["rmse"]["estimate"] == 2
    assert value["targets"] == [{"name": "low", "found": 0.25, "bound": 0.2, "at_most": True, "met": False}]
    assert value["n"] == 4
    table.show()


def test_pictures_of_many_methods_keep_their_size_and_long_names_apart() -> None:
    def drawn(names: list[str]) -> Figure:
        table = Comparison(
            "T",
            {"rmse": "RMSE"},
            {name: {"rmse": 1.0} for name in names},
            (),
            {},
            {name: [np.ones((8, 8))] for name in names},
        )
        found = figure([table])
        found.draw_without_rendering()
        return found

    few, many = drawn([f"m{n}" for n in range(8)]), drawn([f"a method with a long name, {n}" for n in range(20)])
    sizes = [found.axes[0].get_window_extent().width for found in (few, many)]
    assert sizes[1] > 0.7 * sizes[0]
    titles = [axis.title.get_window_extent() for axis in many.axes[:20]]
    assert all(a.x1 < b.x0 for a, b in pairwise(titles))


def test_every_form_can_be_drawn() -> None:
    pictures = {"ours": [np.ones((8, 6)), np.zeros((8, 6))], "other": [np.ones((8, 6), np.uint8)] * 2}
    table = Comparison("Title", {"rmse": "RMSE"}, intervals(MEASURED, SUBJECTS), (), {}, pictures)
    assert draw([table, Comparison("No pictures", {"rmse": "RMSE"}, intervals(MEASURED, SUBJECTS))])[:4] == b"\x89PNG"
