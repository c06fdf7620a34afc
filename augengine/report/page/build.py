"""Augmented runs in; one HTML file that shows them, with no script, style or picture from anywhere else, out."""

from __future__ import annotations

import base64
import hashlib
import shlex
from collections.abc import Sequence
from importlib.resources import files
from string import Template
from typing import Any

from augengine.io.store import Place
from augengine.report.page.copies import audit_copies
from augengine.report.page.figures import beside, figures, read_tables
from augengine.report.page.markup import Markup, element, join, script_json, table
from augengine.report.page.pictures import MOST_CHARACTERS, MOST_VOXELS, choose, pictures
from augengine.report.page.reached import reached
from augengine.report.page.rows import RunRows, read_run
from augengine.report.page.sections import section


def build_report(
    runs: Sequence[str],
    data: Place | None = None,
    rows: int = 12,
    *,
    figures_of: Sequence[str] = (),
    audit_rows: int = 0,
    predictor: str | None = None,
) -> bytes:
    """The page, as UTF-8.

    Args:
        runs: folders that `augment` wrote, as they are to be shown.
        data: folder of the source rows, if they no longer stand where the runs read them.
        rows: rows of every run whose images are embedded; fewer, if they would make the page too large.
        figures_of: folders of `measure` and `evaluate`, beside what stands in or above the runs' own folders.
        audit_rows: accepted rows of every run, and as many held-out rows, that are compared with the training rows.
        predictor: folder of a model that reads acquisitions off the embedded rows.

    Raises:
        AugengineError: no augmented run, or no data set where its source should be; folders without figures; training
            rows of several shapes; a model that is no predictor, or knows the rows' subjects.
    """
    tables = [read_tables(folder) for folder in figures_of]
    read = [read_run(run, data) for run in runs]
    names = _names(runs)
    chosen = [choose(of, rows) for of in read]
    for of in read:
        given = {found.uri for found in tables}
        tables += [found for found in beside(of.run.store, of.asked) if found.uri not in given]
    seen = [reached(of, wanted, predictor) if predictor else {} for of, wanted in zip(read, chosen, strict=True)]
    audits = [audit_copies(of, audit_rows) if audit_rows else None for of in read]
    asked = sum(map(len, chosen))
    shown: list[dict[str, Any]] = []
    for of, name, wanted in zip(read, names, chosen, strict=True):
        room = MOST_CHARACTERS - sum(len(c[key]) for row in shown for c in row["channels"] for key in _PICTURES)
        for row in pictures(of, name, wanted, MOST_VOXELS // max(1, asked), room):
            run, row_id = shlex.quote(of.asked), shlex.quote(row["id"])
            shown.append({**row, "commands": [f"augengine {verb} {row_id} --out {run}" for verb in _VERBS]})
    remark = f"{len(shown)} rows: rejected ones, too, and of as many subjects as there are."
    if len(shown) < asked:
        remark += (
            f" {asked - len(shown)} more were left out: the page holds at most {MOST_CHARACTERS >> 20} MiB of them."
        )
    style, script = _part("style.css"), _part("viewer.js")
    return (
        Template(_part("template.html"))
        .substitute(
            title=join("augengine report: ", ", ".join(names)),
            security=join(_security(style, script)),
            links=join(*(element("a", f"Run {name}", href=f"#run-{n}") for n, name in enumerate(names))),
            overview=_overview(read, names),
            shown=join(remark),
            figures=figures(tables),
            sections=join(
                *(
                    section(of, name, n, told, audit)
                    for n, (of, name, told, audit) in enumerate(zip(read, names, seen, audits, strict=True))
                )
            ),
            data=script_json({"rows": shown}),
            style=style,
            script=script,
        )
        .encode()
    )


_PICTURES = ("source", "edited")
_VERBS = ("explain", "replay")


def _overview(read: Sequence[RunRows], names: Sequence[str]) -> Markup:
    columns = ["run", "policy", *(read[0].counts if read else ())]
    lines: list[list[object]] = [
        [name, of.run.mixture.name, *of.counts.values()] for of, name in zip(read, names, strict=True)
    ]
    return table(columns, lines)


def _names(runs: Sequence[str]) -> list[str]:
    """The ends of the folders' paths, and a number where two are the same."""
    ends = ["/".join([part for part in run.split("/") if part][-2:]) or run for run in runs]
    return [end if ends.count(end) == 1 else f"{end} ({n})" for n, end in enumerate(ends, 1)]


def _security(style: str, script: str) -> str:
    """A policy that lets the page's own style and script through, and pictures that stand in it; nothing else."""
    style_hash, script_hash = (base64.b64encode(hashlib.sha256(t.encode()).digest()).decode() for t in (style, script))
    return (
        f"default-src 'none'; script-src 'sha256-{script_hash}'; style-src 'sha256-{style_hash}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _part(name: str) -> str:
    return (files("augengine.report.page") / name).read_text(encoding="utf-8")
