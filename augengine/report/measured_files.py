"""What `measure_runs` found in; a table as Markdown, all figures as JSON, and a plot out."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure as Canvas

from augengine.io.store import Store
from augengine.report.measured import Figure

JSON, TABLE, PLOT = "measures.json", "measures.md", "measures.png"
COLUMNS = 4
_LOWER = ("frechet", "kid", "mmd", "label_frechet", "tumor_residual", "void_fraction", ".error", ".squared_error")
_HIGHER = ("ssim", "gen_dice", "diffmap_iou", ".gain", ".top1")


def direction(measure: str) -> str:
    """↓ where less is better, ↑ where more is, nothing where neither is said."""
    if measure.endswith(("_before", "_floor", "_real")):
        return ""
    if any(measure.startswith(name) or measure.endswith(name) for name in _LOWER):
        return "↓"
    return "↑" if any(name in measure for name in _HIGHER) else ""


def rows_of(figures: Sequence[Figure], runs: Sequence[str]) -> list[list[str]]:
    """Measure, judge, and one cell per run; figures of different judges never share a row."""
    found: dict[tuple[str, str], dict[str, Figure]] = {}
    for figure in figures:
        found.setdefault((figure.measure, figure.judge), {})[figure.run] = figure
    return [
        [f"{measure} {direction(measure)}".strip(), judge, *(str(of[run]) if run in of else "" for run in runs)]
        for (measure, judge), of in found.items()
    ]


def write_measured(
    figures: Sequence[Figure], notes: Sequence[str], about: Mapping[str, Any], runs: Sequence[str], store: Store
) -> list[str]:
    """Write the three files; returns their paths. `about` says what was measured, in JSON."""
    store.write_json(JSON, {"about": about, "notes": list(notes), "figures": [f.to_dict() for f in figures]})
    head = ["measure", "rests on", *runs]
    lines = [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows_of(figures, runs))]
    ends = [
        "",
        "Estimate [95 % interval over patients]; ↑ more is better, ↓ less is better. Distances of features have "
        "jackknife intervals over groups of patients, all else bootstrap intervals.",
        *(f"- {note}" for note in notes),
    ]
    store.write(TABLE, "\n".join([*lines, *ends, ""]).encode())
    store.write(PLOT, _plot(figures, runs))
    return [store.path(name) for name in (TABLE, JSON, PLOT)]


def _plot(figures: Sequence[Figure], runs: Sequence[str]) -> bytes:
    """One panel per measure and judge: a dot and an interval per run, real–real distances as a band."""
    panels: dict[tuple[str, str], list[Figure]] = {}
    for figure in figures:
        panels.setdefault((figure.measure, figure.judge), []).append(figure)
    rows = max(1, math.ceil(len(panels) / COLUMNS))
    canvas = Canvas(figsize=(3.2 * COLUMNS, (0.9 + 0.35 * len(runs)) * rows), layout="constrained")
    axes = canvas.subplots(rows, COLUMNS, squeeze=False)
    for panel in axes.flat:
        panel.set_axis_off()
    for panel, ((measure, judge), of) in zip(axes.flat, panels.items(), strict=False):
        panel.set_axis_on()
        for figure in of:
            place = list(runs).index(figure.run)
            panel.plot(figure.estimate, place, "o", color="tab:blue", markersize=4)
            if figure.interval:
                panel.plot([figure.interval.low, figure.interval.high], [place, place], color="tab:blue")
            if figure.real_real:
                band = (figure.real_real.low, figure.real_real.high)
                panel.fill_betweenx([place - 0.3, place + 0.3], *band, color="tab:gray", alpha=0.4, linewidth=0)
        panel.set_yticks(range(len(runs)), runs, fontsize=7)
        panel.set_ylim(len(runs) - 0.5, -0.5)
        panel.tick_params(axis="x", labelsize=7)
        panel.set_title(f"{measure} {direction(measure)}\n{judge}", fontsize=7)
    buffer = io.BytesIO()
    canvas.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
