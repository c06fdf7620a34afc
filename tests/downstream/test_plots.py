"""Plots of an experiment: what readers compare stands where the numbers say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from augengine.downstream.plots import curve, forest


def gain(arm: str, cell: str, estimate: float, ratio: float = 0.25) -> dict[str, Any]:
    interval = {"estimate": estimate, "low": estimate - 0.02, "high": estimate + 0.01}
    wider = {**interval, "low": estimate - 0.04, "high": estimate + 0.03}
    return {"arm": arm, "against": "real", "cell": cell, "ratio": ratio, "difference": interval, "with_seeds": wider}


def test_the_ratio_curve_has_a_line_per_cell_and_a_tick_per_ratio() -> None:
    cells, ratios = ("GE → GE", "GE → Siemens"), (0.25, 0.5, 1.0)
    gains = [gain("counterfactual", cell, 0.1 * n + ratio, ratio) for n, cell in enumerate(cells) for ratio in ratios]
    figure = curve(gains, "mean Dice")
    (axes,) = figure.axes
    figure.draw_without_rendering()
    assert [t.get_text() for t in axes.get_xticklabels()] == ["0.25", "0.5", "1"]
    assert not axes.get_xticklabels(minor=True)
    lines = {line.get_label(): line.get_xydata() for line in axes.lines if line.get_label() in cells}
    assert lines.keys() == set(cells)
    np.testing.assert_allclose(lines["GE → Siemens"], [[0.25, 0.35], [0.5, 0.6], [1.0, 1.1]])
    (legend,) = figure.legends
    assert [t.get_text() for t in legend.get_texts()] == list(cells)
    assert legend.get_window_extent().x0 >= axes.get_window_extent().x1, "the legend hides no line"


def test_the_forest_plot_has_both_intervals_of_every_comparison_in_order() -> None:
    gains = [gain("classical", "GE → GE", 0.05), gain("counterfactual", "GE → Siemens", 0.4)]
    (axes,) = forest(gains, "mean Dice").axes
    assert [t.get_text() for t in axes.get_yticklabels()] == [
        "GE → GE: classical − real",
        "GE → Siemens: counterfactual − real",
    ]
    bars = [
        (line.get_linewidth(), line.get_xdata(), line.get_ydata()) for line in axes.lines if len(line.get_xdata()) == 2
    ]
    drawn = {(round(float(y[0])), width): tuple(x) for width, x, y in bars if y[0] == y[1]}
    for n, g in enumerate(gains):
        assert drawn[n, 3.5] == pytest.approx((g["difference"]["low"], g["difference"]["high"]))
        assert drawn[n, 1.0] == pytest.approx((g["with_seeds"]["low"], g["with_seeds"]["high"]))
    assert axes.yaxis_inverted(), "the first comparison stands on top"
