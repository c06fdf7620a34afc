"""Measures of several methods by subject in; tables of intervals and targets out, as text, Markdown, JSON and PNG."""

from __future__ import annotations

import dataclasses
import io
import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from augengine import rng
from augengine.metrics.intervals import Interval, bootstrap_interval, paired_interval, per_subject
from augengine.report.console import console, table

Value = Interval | float  # a bare number is one of a whole set, which has no value by subject
Measured = Mapping[str, Mapping[str, Sequence[float]]]
WINDOW = (-0.1, 1.3)  # of normalised images
ON_CONSOLE = 6
LOG_ABOVE = 100.0
CHART_WIDTH, TITLE_WIDTH = 4.0, 16  # inches, characters


@dataclass(frozen=True)
class Target:
    """A figure that was to be reached, and whether its estimate does (the interval says how surely)."""

    name: str
    found: Value
    bound: float
    at_most: bool

    @property
    def met(self) -> bool:
        """Whether the estimate is on the right side."""
        found = estimate(self.found)
        return found <= self.bound if self.at_most else found >= self.bound

    def __str__(self) -> str:
        sign = "≤" if self.at_most else "≥"
        found = self.found if isinstance(self.found, Interval) else f"{self.found:.4g}"
        return f"{self.name}: {found} {sign} {self.bound:g}: {'met' if self.met else 'missed'}"


@dataclass(frozen=True)
class Comparison:
    """One table.

    Attributes:
        title: what, on how many rows of how many subjects.
        measures: key to heading, the first one is drawn.
        methods: method to measure to interval over subjects; a measure that does not apply is left out.
        targets: see `Target`.
        figures: further plain JSON values.
        pictures: method to its images (I, J) of the same rows.
    """

    title: str
    measures: Mapping[str, str]
    methods: Mapping[str, Mapping[str, Value]]
    targets: tuple[Target, ...] = ()
    figures: Mapping[str, Any] = field(default_factory=dict)
    pictures: Mapping[str, Sequence[np.ndarray]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "title": self.title,
            "methods": {n: {m: _plain(v) for m, v in found.items()} for n, found in self.methods.items()},
            "targets": [{**_plain(t), "met": t.met} for t in self.targets],
            **self.figures,
        }

    def markdown(self) -> str:
        """A table of estimates with their intervals, then the targets."""
        lines = ["| method | " + " | ".join(self.measures.values()) + " |", "|---" * (len(self.measures) + 1) + "|"]
        for name, found in self.methods.items():
            lines.append(f"| {name} | " + " | ".join(_text(found.get(m)) for m in self.measures) + " |")
        return "\n".join([f"### {self.title}", "", *lines, "", *(f"- {t}" for t in self.targets), ""])

    def show(self) -> None:
        """Print the first measures' estimates, as many as fit a console, and the targets."""
        some = list(self.measures)[:ON_CONSOLE]
        rows = [
            [name, *(_text(estimate(found[m])) if m in found else "–" for m in some)]
            for name, found in self.methods.items()
        ]
        table(self.title, ["method", *(self.measures[m] for m in some)], rows)
        for target in self.targets:
            console.print(f"  {target}", style=None if target.met else "yellow")


def estimate(value: Value) -> float:
    """The number alone."""
    return value.estimate if isinstance(value, Interval) else value


def intervals(measured: Measured, subjects: Sequence[str]) -> dict[str, dict[str, Interval]]:
    """Method to measure to one value per row (NaN: does not apply), by patient: bootstrap intervals of the means."""
    out: dict[str, dict[str, Interval]] = {}
    for method, measures in measured.items():
        out[method] = {}
        for measure, values in measures.items():
            if means := per_subject(values, subjects):
                out[method][measure] = bootstrap_interval(means, rng=rng.generator("comparison", method, measure))
    return out


def target(
    name: str,
    ours: Sequence[float],
    other: Sequence[float],
    subjects: Sequence[str],
    bound: float,
    *,
    ratio: bool = True,
    at_most: bool = True,
) -> Target:
    """Ours relative to another method's (or minus it), paired by subject."""
    a, b = (per_subject(v, subjects) for v in (ours, other))
    both = [s for s in a if s in b]
    found = paired_interval(
        {s: a[s] for s in both},
        {s: b[s] for s in both},
        "ratio" if ratio else "difference",
        rng=rng.generator("target", name),
    )
    return Target(name, found, bound, at_most)


def best(measured: Measured, names: Sequence[str], measure: str, subjects: Sequence[str]) -> str:
    """The method with the lowest mean of a measure over subjects."""
    return min(names, key=lambda n: float(np.mean(list(per_subject(measured[n][measure], subjects).values()))))


def draw(comparisons: Sequence[Comparison]) -> bytes:
    """`figure` as PNG."""
    buffer = io.BytesIO()
    figure(comparisons).savefig(buffer, format="png", dpi=80)
    return buffer.getvalue()


def figure(comparisons: Sequence[Comparison]) -> Figure:
    """Per table its pictures, one row of the data per line and one method per column, beside its first measure."""
    heights = [1.2 + 1.1 * max((len(p) for p in c.pictures.values()), default=1) for c in comparisons]
    width = max(11.0, 1.1 * max(len(c.pictures) for c in comparisons))
    whole = Figure(figsize=(width + CHART_WIDTH, sum(heights)), layout="constrained")
    parts: Any = whole.subfigures(len(comparisons), 1, height_ratios=heights, squeeze=False)
    for part, comparison in zip(parts[:, 0], comparisons, strict=True):
        part.suptitle(comparison.title, fontsize=9)
        chart = part
        if comparison.pictures:
            left, chart = part.subfigures(1, 2, width_ratios=(width, CHART_WIDTH))
            _gallery(left, comparison.pictures)
        _forest(chart, comparison)
    return whole


def _gallery(part: Any, pictures: Mapping[str, Sequence[np.ndarray]]) -> None:
    rows = max(len(images) for images in pictures.values())
    axes = part.subplots(rows, len(pictures), squeeze=False)
    for column, (name, images) in zip(axes.T, pictures.items(), strict=True):
        for axis in column:
            axis.set_axis_off()
        column[0].set_title(textwrap.fill(name, TITLE_WIDTH), fontsize=6)
        for axis, image in zip(column, images, strict=False):
            low, high = (0, image.max() or 1) if image.dtype.kind in "bui" else WINDOW
            axis.imshow(image.T, cmap="gray", vmin=low, vmax=high, origin="lower")


def _forest(part: Any, comparison: Comparison) -> None:
    """The first measure of every method with its interval."""
    axis, measure = part.subplots(), next(iter(comparison.measures))
    shown = {name: found[measure] for name, found in comparison.methods.items() if measure in found}
    for place, found in enumerate(shown.values()):
        if isinstance(found, Interval):
            axis.plot([found.low, found.high], [place, place], color="tab:blue")
        axis.plot(estimate(found), place, "o", color="tab:blue", markersize=3)
    axis.set_yticks(range(len(shown)), list(shown), fontsize=6)
    axis.tick_params(axis="x", labelsize=6)
    numbers = [estimate(found) for found in shown.values()]
    if min(numbers, default=0) > 0 and max(numbers) > LOG_ABOVE * min(numbers):
        axis.set_xscale("log")
    axis.invert_yaxis()
    axis.set_xlabel(comparison.measures[measure], fontsize=7)


def _plain(value: Any) -> Any:
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value  # type: ignore[arg-type]


def _text(found: Value | None) -> str:
    if found is None or math.isnan(estimate(found)):
        return "–"
    if not isinstance(found, Interval):
        return f"{found:.3f}"
    return f"{found.estimate:.3f} [{found.low:.2f}, {found.high:.2f}]"
