"""The flags of `augengine calibrate`: a policy and shards in; what its gates reject on real rows and on defects out."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from augengine.errors import DataError
from augengine.gates import Gates, Tools
from augengine.gates.calibration import FALSE_REJECTS, Calibration, calibrate
from augengine.gates.defects import DEFECTS
from augengine.gates.real_rows import read_real_rows
from augengine.io.store import Store
from augengine.load import load_mixture
from augengine.pipeline.choices import count_acquisitions, why_nothing
from augengine.pipeline.cluster import user_errors
from augengine.policy.spec import GateSpec
from augengine.report.console import console, table
from augengine.told import tell

LEAST_ROWS = 8
_OTHERS = {"subjects": "held-out subjects", "rows": "the same subject (of more subjects, rates would be worse)"}


def calibrate_command(
    policy: Annotated[str, typer.Argument(help="Policy or mix file; its gates are measured, nothing is edited.")],
    data: Annotated[str, typer.Argument(help="Ingested data set or folder of shards (path or URI).")],
    rows: Annotated[
        int, typer.Option(min=LEAST_ROWS, help="Real rows, evenly spread over those that the policy selects.")
    ] = 200,
    per_defect: Annotated[int, typer.Option(min=1, help="Rows that each defect is planted in.")] = 20,
    rate: Annotated[
        float, typer.Option(min=0, max=0.5, help="Real rows that proposed bounds may reject.")
    ] = FALSE_REJECTS,
    out: Annotated[Path | None, typer.Option(help="Also write the figures as JSON.")] = None,
) -> None:
    """Report false rejects, recall of planted defects and proposed bounds of a policy's gates."""
    with user_errors():
        mixture, tools, figures = load_mixture(policy), Tools(), {}
        for member in mixture.members:
            real = read_real_rows(data, member.policy.select, rows)
            if len(real) < LEAST_ROWS:
                reason = why_nothing(member.policy.select, count_acquisitions(Store(data)))
                raise DataError(
                    f"calibration needs at least {LEAST_ROWS} real rows",
                    where=data,
                    found=f"{len(real)} rows" + (f", {reason}" if reason else ""),
                    next_step="loosen the policy's select, or give more data",
                )
            for step, specs in member.gates.items():
                name = mixture.named(member, step).removesuffix(".")
                found = calibrate(Gates(specs, tools=tools), real, per_defect=per_defect, rate=rate)
                show(found, name)
                figures[name] = found.to_dict()
        tell(policy=mixture.name, gates=figures)
        if out is not None:
            # A policy of one edit has one set of gates, and needs no name for it.
            out.write_text(json.dumps(figures.get("", {}) if list(figures) == [""] else figures, indent=1) + "\n")


def show(found: Calibration, name: str = "") -> None:
    """Two tables, one of each gate and one of all together, and the proposed gates as YAML; `name` says whose."""
    whose = f"{name}: " if name else ""
    table(
        f"{whose}gates on {found.rows} real rows of {_OTHERS[found.halves]}",
        ["gate", "pair", "rows", "median", "bounds", "false rejects", "proposed", "false rejects"],
        [
            [
                g.given.name,
                g.comparison,
                g.measured,
                _number(g.median),
                _bounds(g.given),
                _share(g.false_rejects),
                _bounds(g.proposed),
                _share(g.proposed_false_rejects),
            ]
            for g in found.gates
        ],
    )
    table(
        f"{whose}share rejected by any gate",
        ["", "rows", "policy's bounds", "proposed bounds"],
        [
            ["real rows", found.rows, _share(found.false_rejects), _share(found.proposed_false_rejects)],
            *([d, found.planted[d], _share(found.recall[d]), _share(found.proposed_recall[d])] for d in DEFECTS),
        ],
    )
    for gate in found.gates:
        if not gate.measured:
            console.print(
                f"{whose}{gate.given.name}: no row could be measured, so that its bound is the policy's own and "
                f"nothing says that it is right; it compares {gate.comparison} rows, see docs/how-to/calibrate-gates.md"
            )
    console.print(f"{whose}proposed:\ngates:")
    for gate in found.gates:
        console.print(f"  - {json.dumps(_plain(gate.proposed))}", soft_wrap=True)


def _plain(spec: GateSpec) -> Mapping[str, Any]:
    return {k: v for k, v in spec.model_dump(exclude_none=True).items() if v != {}}


def _bounds(spec: GateSpec) -> str:
    return " ".join(f"{s} {b:g}" for s, b in (("≥", spec.min), ("≤", spec.max)) if b is not None)


def _number(value: float) -> str:
    return "—" if math.isnan(value) else f"{value:.3g}"


def _share(value: float) -> str:
    return "—" if math.isnan(value) else f"{value:.1%}"
