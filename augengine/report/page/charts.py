"""Numbers in, inline SVG out: histograms with bounds, and scatters of what was and what became of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from augengine.report.page.markup import Markup, element, join

WIDTH, HEIGHT, BINS = 340, 190, 30
LEFT, RIGHT, TOP, BOTTOM = 46, 14, 18, 34
GROUPS = 6
"""Colours of the style sheet; further groups share them."""


class Scale:
    """Values between two ends to pixels between two others."""

    def __init__(self, values: Sequence[float], start: float, end: float) -> None:
        low, high = min(values, default=0.0), max(values, default=1.0)
        pad = (high - low) * 0.04 or abs(low) * 0.1 or 1.0
        self.low, self.high, self._start, self._end = low - pad, high + pad, start, end

    def __call__(self, value: float) -> float:
        """The pixel of a value."""
        return round(self._start + (value - self.low) / (self.high - self.low) * (self._end - self._start), 1)


def histogram(title: str, groups: Mapping[str, Sequence[float]], bounds: Sequence[tuple[str, float]]) -> Markup:
    """Stacked bars of the values by group, and a line at each bound.

    Args:
        title: what is counted.
        groups: name to values that are numbers.
        bounds: text and value.
    """
    values = [v for of in groups.values() for v in of]
    x = Scale([*values, *(value for _, value in bounds)], LEFT, WIDTH - RIGHT)
    edges = np.linspace(x.low, x.high, BINS + 1)
    counts = [np.histogram(list(of), edges)[0] for of in groups.values()]
    top = max(1, int(np.sum(counts, axis=0).max()))
    y = Scale([0, top], HEIGHT - BOTTOM, TOP)
    y.low, y.high = 0, top * 1.05
    bars, below = [], np.zeros(BINS, int)
    for group, of in enumerate(counts):
        for n, count in enumerate(of.tolist()):
            if count:
                base, height = y(float(below[n])), y(float(below[n] + count))
                bars.append(
                    element(
                        "rect",
                        x=x(edges[n]),
                        y=height,
                        width=max(1.0, round(x(edges[n + 1]) - x(edges[n]) - 1, 1)),
                        height=round(base - height, 1),
                        class_=f"bar-{group}",
                    )
                )
        below = below + of
    lines = [
        join(
            element("line", x1=x(v), x2=x(v), y1=TOP - 4, y2=HEIGHT - BOTTOM, class_="bound"),
            element("text", text, x=x(v), y=TOP - 7, text_anchor="middle", class_="bound-text"),
        )
        for text, v in bounds
    ]
    said = f"{title}: {len(values)} values" + "".join(f", {text}" for text, _ in bounds)
    return _svg(said, _axes(x, y, "", "", counts=True), *bars, *lines)


Point = tuple[float, float, int]
"""x, y and the number of a group."""


def scatter(title: str, points: Sequence[Point], x_name: str, y_name: str) -> Markup:
    """A dot for each point."""
    x = Scale([point[0] for point in points], LEFT, WIDTH - RIGHT)
    y = Scale([point[1] for point in points], HEIGHT - BOTTOM, TOP)
    return _svg(f"{title}: {len(points)} rows", _axes(x, y, x_name, y_name), *_dots(points, x, y))


def before_after(title: str, pairs: Sequence[Point], unit: str) -> Markup:
    """A point for each pair (before, after, group), and the line on which nothing changes."""
    ends = [v for before, after, _ in pairs for v in (before, after)]
    x, y = Scale(ends, LEFT, WIDTH - RIGHT), Scale(ends, HEIGHT - BOTTOM, TOP)
    same = element("line", x1=x(x.low), y1=y(y.low), x2=x(x.high), y2=y(y.high), class_="same")
    axes = _axes(x, y, f"source, {unit}", f"edited, {unit}")
    return _svg(f"{title}: {len(pairs)} rows", axes, same, *_dots(pairs, x, y))


def arrows(
    title: str,
    moves: Sequence[tuple[Point | None, Point | None]],
    x_name: str,
    y_name: str,
    marks: Sequence[tuple[Point, Point]] = (),
) -> Markup:
    """A ring where each row came from, a dot where it went, and a line between them; one of both may be missing.

    `marks` are pairs of a dot and a place that is marked by a cross, with a line between them.
    """
    ends = [end for move in (*moves, *marks) for end in move if end is not None]
    x = Scale([end[0] for end in ends], LEFT, WIDTH - RIGHT)
    y = Scale([end[1] for end in ends], HEIGHT - BOTTOM, TOP)
    pairs = [(a, b) for a, b in (*moves, *marks) if a is not None and b is not None]
    lines = [element("line", x1=x(a[0]), y1=y(a[1]), x2=x(b[0]), y2=y(b[1]), class_="move") for a, b in pairs]
    rings = [
        element("circle", cx=x(a[0]), cy=y(a[1]), r=4, class_=f"ring group-{a[2] % GROUPS}")
        for a, _ in moves
        if a is not None
    ]
    crosses = [
        element("path", d=f"M{x(b[0]) - 4} {y(b[1]) - 4}l8 8m0 -8l-8 8", class_=f"ring group-{b[2] % GROUPS}")
        for _, b in marks
    ]
    dots = _dots([b for _, b in moves if b is not None], x, y)
    return _svg(f"{title}: {len(moves)} rows", _axes(x, y, x_name, y_name), *lines, *rings, *dots, *crosses)


def _dots(points: Sequence[Point], x: Scale, y: Scale) -> list[Markup]:
    return [element("circle", cx=x(a), cy=y(b), r=3, class_=f"point group-{n % GROUPS}") for a, b, n in points]


def _axes(x: Scale, y: Scale, x_name: str, y_name: str, counts: bool = False) -> Markup:
    bottom = HEIGHT - BOTTOM
    parts = [element("path", d=f"M{LEFT} {TOP}V{bottom}H{WIDTH - RIGHT}", class_="axis")]
    for value in _ticks(x.low, x.high):
        parts.append(element("text", f"{value:.4g}", x=x(value), y=bottom + 13, text_anchor="middle"))
    for value in (v for v in _ticks(y.low, y.high) if not counts or v.is_integer()):
        parts.append(element("text", f"{value:.4g}", x=LEFT - 5, y=y(value) + 3, text_anchor="end"))
    if x_name:
        parts.append(element("text", x_name, x=(LEFT + WIDTH - RIGHT) / 2, y=HEIGHT - 4, text_anchor="middle"))
    parts.append(element("text", y_name, x=4, y=TOP - 7, text_anchor="start"))
    return join(*parts)


def _ticks(low: float, high: float) -> list[float]:
    """Three to six round values between two ends.

    >>> _ticks(-0.04, 1.04)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * n for n in (1, 2, 2.5, 5, 10) if power * n >= rough * 0.9)
    return [round(n * step, 12) for n in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _svg(said: str, *children: Markup) -> Markup:
    return element("svg", *children, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=said, class_="chart")
