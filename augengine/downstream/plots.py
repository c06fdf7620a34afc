"""An experiment's results and scores in; a forest plot of gains, the ratio curve and patients one by one out."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from augengine.downstream.results import Measured, Plan, Row, Scores
from augengine.io.store import Store
from augengine.metrics.statistics import seed_means

matplotlib.use("Agg")
FOREST, CURVE, PATIENTS, FEW = "gains.png", "ratio_curve.png", "patients.png", "few_labels.png"
COLOURS = matplotlib.colormaps["tab10"].colors  # type: ignore[attr-defined]


def write_plots(plan: Plan, scores: Scores, results: Mapping[str, Any], measured: Measured, out: str) -> list[str]:
    """Draw what the results hold into the experiment's folder; paths of the pictures."""
    store, title = Store(out), f"{measured[1]} {measured[0]}"
    told = [g for g in results["comparisons"] if (g["metric"], g["class"]) == measured]
    main = {row: found for row, found in scores.items() if plan.main(row) and measured in found}
    figures = {
        FOREST: forest(told, title) if told else None,
        CURVE: curve(results["curve"], title) if results["curve"] else None,
        FEW: few_labels(results["few_labels"], title) if results.get("few_labels") else None,
        PATIENTS: patients(main, measured, title) if told else None,
    }
    for name, figure in figures.items():
        if figure is not None:
            buffer = io.BytesIO()
            figure.savefig(buffer, format="png", dpi=90)
            store.write(name, buffer.getvalue())
    return [store.path(name) for name, figure in figures.items() if figure is not None]


def forest(gains: Sequence[Mapping[str, Any]], title: str) -> Figure:
    """One line per comparison: difference, its interval over patients (thick), and over seeds, too (thin)."""
    figure = Figure(figsize=(8, 1.2 + 0.32 * len(gains)), layout="constrained")
    axes = figure.subplots()
    arms = list(dict.fromkeys(g["arm"] for g in gains))
    for n, gain in enumerate(gains):
        colour = COLOURS[arms.index(gain["arm"]) % len(COLOURS)]
        for key, width in (("with_seeds", 1.0), ("difference", 3.5)):
            axes.plot([gain[key]["low"], gain[key]["high"]], [n, n], color=colour, linewidth=width)
        axes.plot(gain["difference"]["estimate"], n, "o", color=colour)
    axes.axvline(0, color="0.5", linewidth=1)
    axes.set_yticks(range(len(gains)), [f"{g['cell']}: {g['arm']} − {g['against']}" for g in gains], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel(f"gain in {title}; thick: 95 % over patients, thin: over patients and seeds", fontsize=9)
    return figure


def curve(gains: Sequence[Mapping[str, Any]], title: str) -> Figure:
    """Gain over `real` by added rows per real row, one line per cell."""
    figure = Figure(figsize=(6.5, 4), layout="constrained")
    axes = figure.subplots()
    for n, cell in enumerate(dict.fromkeys(g["cell"] for g in gains)):
        found = [g for g in gains if g["cell"] == cell]
        ratios, values = [g["ratio"] for g in found], [g["difference"] for g in found]
        colour = COLOURS[n % len(COLOURS)]
        axes.plot(ratios, [v["estimate"] for v in values], "o-", color=colour, label=cell)
        axes.fill_between(ratios, [v["low"] for v in values], [v["high"] for v in values], color=colour, alpha=0.15)
    axes.axhline(0, color="0.5", linewidth=1)
    ratios = sorted({g["ratio"] for g in gains})
    axes.set_xscale("log")
    axes.set_xticks(ratios, [f"{ratio:g}" for ratio in ratios])
    axes.minorticks_off()
    axes.set_xlabel("added rows per real row")
    axes.set_ylabel(f"gain in {title}, 95 % over patients")
    figure.legend(loc="outside right upper", fontsize=8)
    return figure


def few_labels(gains: Sequence[Mapping[str, Any]], title: str) -> Figure:
    """Gain by number of training patients, one panel per cell, one line per arm and what it is compared with."""
    cells = list(dict.fromkeys(g["cell"] for g in gains))
    figure = Figure(figsize=(1.5 + 3.4 * len(cells), 4.2), layout="constrained")
    pairs = list(dict.fromkeys((g["arm"], g["against"]) for g in gains))
    panels = np.ravel(figure.subplots(1, len(cells), sharey=True, squeeze=False))
    for axes, cell in zip(panels, cells, strict=True):
        for n, pair in enumerate(pairs):
            found = sorted(
                (g for g in gains if (g["cell"], g["arm"], g["against"]) == (cell, *pair)), key=lambda g: g["patients"]
            )
            numbers, values = [g["patients"] for g in found], [g["with_seeds"] or g["difference"] for g in found]
            colour = COLOURS[n % len(COLOURS)]
            axes.plot(numbers, [v["estimate"] for v in values], "o-", color=colour, label=f"{pair[0]} − {pair[1]}")
            axes.fill_between(numbers, [v["low"] for v in values], [v["high"] for v in values], color=colour, alpha=0.1)
        axes.axhline(0, color="0.5", linewidth=1)
        axes.set_title(cell, fontsize=10)
        axes.set_xlabel("training patients")
    panels[0].set_ylabel(f"gain in {title}, 95 % over patients and trainings")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)
    return figure


def patients(scores: Scores, measured: Measured, title: str) -> Figure:
    """One panel per cell that compares arms: each patient's value under `real` and under every other arm."""
    by_cell: dict[str, list[Row]] = {}
    for row in scores:
        by_cell.setdefault(row.cell, []).append(row)
    panels = {cell: rows for cell, rows in by_cell.items() if len(rows) > 1}
    figure = Figure(figsize=(4.2 * len(panels), 4.4), layout="constrained")
    arms = list(dict.fromkeys(row.arm for row in scores))
    for axes, (cell, rows) in zip(np.ravel(figure.subplots(1, len(panels))), panels.items(), strict=True):
        real = seed_means(next(scores[row][measured] for row in rows if row.arm == "real"))
        ends = [min(real.values()), max(real.values())]
        for row in rows:
            if row.arm == "real":
                continue
            values = seed_means(scores[row][measured])
            ends = [min(*ends, *values.values()), max(*ends, *values.values())]
            colour = COLOURS[arms.index(row.arm) % len(COLOURS)]
            axes.plot([real[p] for p in values], list(values.values()), ".", color=colour, label=row.arm)
        axes.plot(ends, ends, color="0.5", linewidth=1)
        axes.set_title(cell, fontsize=10)
        axes.set_xlabel(f"{title}, real")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)
    return figure
