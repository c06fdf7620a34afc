"""Folders that `augengine measure` or `evaluate` wrote in; tables of their figures with intervals for a page out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from augengine.errors import DataError
from augengine.io.store import Store
from augengine.metrics.intervals import Interval
from augengine.report.measured import Figure
from augengine.report.measured_files import JSON as MEASURED
from augengine.report.measured_files import rows_of
from augengine.report.page.markup import Markup, element, join, table

EVALUATED = "results.json"
"""What `evaluate` calls its figures."""


@dataclass(frozen=True)
class Tables:
    """What a folder holds: `measured` by `measure`, `evaluated` by `evaluate`; either may be None."""

    uri: str
    measured: Mapping[str, Any] | None
    evaluated: Mapping[str, Any] | None


def read_tables(folder: str) -> Tables:
    """The figures of a folder.

    Raises:
        DataError: a folder that neither command wrote.
    """
    store = Store(folder)
    measured, evaluated = (store.read_mapping(n) if store.exists(n) else None for n in (MEASURED, EVALUATED))
    if measured is None and evaluated is None:
        raise DataError(
            f"figures are in a folder that holds {MEASURED} (augengine measure) or {EVALUATED} (augengine evaluate)",
            found="neither",
            where=store.uri,
            next_step="give the --out of one of these commands",
        )
    return Tables(store.uri, measured, evaluated)


def beside(run: Store, asked: str) -> list[Tables]:
    """What `measure` said of a run, from the run's folder, the two above, and the folders `measure` in them."""
    places, folder = [], run
    for _ in range(3):
        places += [folder, folder.folder("measure")]
        above = folder.parent()
        if above is None:
            break
        folder = above
    found = [Tables(p.uri, p.read_mapping(MEASURED, about=dict), None) for p in places if p.exists(MEASURED)]
    return [of for of in found if any(_same(uri, asked) for uri in _runs(of))]


def _runs(of: Tables) -> list[str]:
    """The runs that `measure` looked at."""
    runs = of.measured["about"].get("runs") if of.measured else {}
    if not isinstance(runs, dict) or not all(isinstance(uri, str) for uri in runs.values()):
        raise DataError(
            f"{MEASURED} says in 'about' which runs were measured",
            found=repr(runs)[:80],
            where=of.uri,
            next_step="run augengine measure again",
        )
    return list(runs.values())


def _same(one: str, other: str) -> bool:
    """Whether two paths to a folder have one end; folders travel."""
    return [part for part in one.split("/") if part][-2:] == [part for part in other.split("/") if part][-2:]


def figures(tables: Sequence[Tables]) -> Markup:
    """The part of the page; what to run where there is nothing to show."""
    title = element("h2", "Figures")
    if not tables:
        hint = "Nothing was measured: run augengine measure, and give its folder by --figures."
        return element("section", title, element("p", hint, class_="note"), id="figures")
    parts = []
    for of in tables:
        parts += [_measured(of.measured)] if of.measured else []
        parts += [_evaluated(of.evaluated)] if of.evaluated else []
    return element("section", title, *parts, id="figures")


def _measured(found: Mapping[str, Any]) -> Markup:
    told = [
        Figure(**{**of, **{key: Interval(**of[key]) if of[key] else None for key in ("interval", "real_real")}})
        for of in found["figures"]
    ]
    runs, split = list(found["about"]["runs"]), found["about"]["split"]
    remark = (
        f"Rows of runs beside real rows of split {split}: estimate [95 % interval over patients]. "
        "↑ more is better, ↓ less is better; real–real is what as many real rows score against others."
    )
    lines: list[list[object]] = [[*cells] for cells in rows_of(told, runs)]
    notes = [element("li", note) for note in found["notes"]]
    return join(
        element("h3", "Measures"),
        element("p", remark, class_="note"),
        table(["measure", "rests on", *runs], lines),
        element("ul", *notes, class_="note") if notes else "",
    )


def _evaluated(found: Mapping[str, Any]) -> Markup:
    gains: list[list[object]] = [
        [
            g["cell"],
            g["arm"],
            g["against"],
            f"{g['metric']}, {g['class']}",
            str(Interval(**g["difference"])),
            f"{g['p_holm']:.3g}",
        ]
        for g in found["comparisons"]
    ]
    scores: list[list[object]] = [
        [r["cell"], r["arm"], f"{r['metric']}, {r['class']}", _spread(r), r["patients"], r["seeds"]]
        for r in found["rows"]
    ]
    about = f"Protocol {found['protocol']}, segmenter {found['segmenter']}, {found['steps']} steps per training."
    remark = f"{about} Gains: mean over the same test patients [95 % interval]."
    return join(
        element("h3", "Segmentation"),
        element("p", remark, class_="note"),
        table(["domains", "arm", "against", "metric, class", "gain", "p (Holm)"], gains),
        element("details", element("summary", "Scores"), table(_SCORES, scores)),
    )


_SCORES = ["domains", "arm", "metric, class", "mean ± SD over patients", "patients", "seeds"]


def _spread(row: Mapping[str, Any]) -> str:
    return f"{row['mean']:.4g} ± {row['sd_patients']:.2g}"
