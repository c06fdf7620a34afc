"""Quality by the number of samples in; a table in Markdown, JSON and a picture, with the plateau, out."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import matplotlib
from matplotlib.figure import Figure

from augengine.downstream.ensembles import BySize, plateau
from augengine.downstream.protocols import Protocol
from augengine.downstream.results import Measured
from augengine.downstream.tables import columns_of, heading, line, main_metric
from augengine.io.store import Store

matplotlib.use("Agg")
TABLE, FIGURES, PLOT = "ensembles.md", "ensembles.json", "ensembles.png"


def write_by_size(figures: Sequence[BySize], protocol: Protocol, tolerance: float, out: str) -> dict[str, int]:
    """Write table, JSON and plot into the evaluation's folder; the plateau of every cell."""
    store, main = Store(out), main_metric(protocol)
    told = {cell: _of(figures, cell, main) for cell in dict.fromkeys(figure.cell for figure in figures)}
    found = {cell: plateau(of, tolerance) for cell, of in told.items() if of}
    store.write(TABLE, ("\n".join(_table(figures, protocol, found, tolerance)) + "\n").encode())
    values = {"metric": main[0], "of": main[1], "tolerance": tolerance, "plateau": found}
    store.write_json(FIGURES, {**values, "figures": [asdict(figure) for figure in figures]})
    store.write(PLOT, _plot(told, found, f"{main[1]} {main[0]}"))
    return found


def _of(figures: Sequence[BySize], cell: str, measured: Measured) -> list[BySize]:
    return [figure for figure in figures if (figure.cell, (figure.metric, figure.of)) == (cell, measured)]


def _table(figures: Sequence[BySize], protocol: Protocol, found: Mapping[str, int], tolerance: float) -> list[str]:
    main, columns = main_metric(protocol), columns_of(protocol)
    text = ["# Quality by the number of samples", ""]
    for cell, samples in found.items():
        text += [f"## {cell}", "", line(["Samples", *map(heading, columns), f"{heading(main)}: largest less this"])]
        text.append(line(["---"] * (len(columns) + 2)))
        for n in sorted({figure.samples for figure in figures if figure.cell == cell}):
            of = {(f.metric, f.of): f for f in figures if (f.cell, f.samples) == (cell, n)}
            values = [str(of[column].value) if column in of else "–" for column in columns]
            text.append(line([str(n), *values, str(of[main].to_largest)]))
        text += [
            "",
            f"From an ensemble of {samples} on, the largest is better by less than {tolerance:g}, at 95 % "
            "over patients.",
            "",
        ]
    return text


def _plot(told: Mapping[str, Sequence[BySize]], found: Mapping[str, int], title: str) -> bytes:
    figure = Figure(figsize=(6.5, 4), layout="constrained")
    axes = figure.subplots()
    for n, (cell, of) in enumerate(told.items()):
        sizes, colour = [f.samples for f in of], f"C{n}"
        axes.plot(sizes, [f.value.estimate for f in of], "o-", color=colour, label=cell)
        axes.fill_between(sizes, [f.value.low for f in of], [f.value.high for f in of], color=colour, alpha=0.15)
        if cell in found:
            axes.axvline(found[cell], color=colour, linestyle=":")
    axes.set_xlabel("samples of the ensemble; dotted: the plateau")
    axes.set_ylabel(f"{title}, 95 % over patients")
    axes.legend(fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90)
    return buffer.getvalue()
