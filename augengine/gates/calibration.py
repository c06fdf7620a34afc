"""Gates and real rows in; each gate's false rejects, its recall of planted defects and a proposed bound out.

Bounds are proposed on the rows of one half of the subjects and every rate is measured on the other half; of a single
subject, on halves of its rows, which are so alike that the rates are too good. A gate that
cannot be measured on a pair of real rows (a lesion gate on a healthy slice) is left out of that row's counts, and
`measured` says how many were left.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from augengine.gates.base import LESION, Case, Gate
from augengine.gates.defects import DEFECTS
from augengine.gates.real_rows import RealRow
from augengine.gates.verdict import Gates, judge, keeps
from augengine.policy.spec import GateSpec
from augengine.rng import derive, generator

FALSE_REJECTS = 0.05
GUARD = 0.25
"""A bound from few rows is moved on by this share of its distance from the median."""


@dataclass
class Values:
    """One gate on one half of the rows: by row number, the value on the real pair and on each planted defect."""

    real: dict[int, float] = field(default_factory=dict)
    planted: dict[str, dict[int, float]] = field(default_factory=lambda: {name: {} for name in DEFECTS})


@dataclass(frozen=True)
class GateCalibration:
    """What calibration says of one gate, under its bounds in the policy (`given`) and under the `proposed` ones.

    Rates are shares of the measured rows, NaN without any; `recall` is by defect.
    """

    given: GateSpec
    proposed: GateSpec
    comparison: str
    measured: int
    median: float
    false_rejects: float
    proposed_false_rejects: float
    recall: Mapping[str, float]
    proposed_recall: Mapping[str, float]


@dataclass(frozen=True)
class Calibration:
    """Every gate, and all of them together: a row is rejected if any gate rejects it.

    `halves` says what was halved.
    """

    gates: tuple[GateCalibration, ...]
    halves: Literal["subjects", "rows"]
    rows: int
    planted: Mapping[str, int]
    false_rejects: float
    proposed_false_rejects: float
    recall: Mapping[str, float]
    proposed_recall: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON; rates without rows become None."""
        keys = ("false_rejects", "proposed_false_rejects", "recall", "proposed_recall")
        return {
            "halves": self.halves,
            "rows": self.rows,
            "planted": dict(self.planted),
            **{key: _plain(getattr(self, key)) for key in keys},
            "gates": {
                g.given.name: {
                    "comparison": g.comparison,
                    "measured": g.measured,
                    "median": _plain(g.median),
                    "given": _bounds(g.given),
                    "proposed": _bounds(g.proposed),
                    **{key: _plain(getattr(g, key)) for key in keys},
                }
                for g in self.gates
            },
        }


def calibrate(
    gates: Gates, rows: Sequence[RealRow], *, per_defect: int | None = None, rate: float = FALSE_REJECTS
) -> Calibration:
    """Measure all gates on real rows and on planted defects.

    Args:
        gates: opened gates.
        rows: real rows, see `read_real_rows`.
        per_defect: rows that each defect is planted in; None: all of the measuring half.
        rate: share of real rows that the proposed bounds may reject, all gates together.
    """
    fit, test = _halves([row.row.subject_id for row in rows])
    halved: Literal["subjects", "rows"] = "subjects"
    if not (fit and test):
        (fit, test), halved = _halves([row.row.sample_id for row in rows]), "rows"
    eligible = {name: _eligible(name, rows, test)[:per_defect] for name in DEFECTS}
    sides = sum((spec.min is not None) + (spec.max is not None) for spec, _ in gates.gates)
    found: list[GateCalibration] = []
    measures: list[Values] = []
    for spec, gate in gates.gates:
        fitted = [v for n in fit if math.isfinite(v := _value(gates, spec, gate, _case(gate, rows[n])))]
        proposed = propose(spec, fitted, rate / sides)
        measured = _measure(gates, spec, gate, rows, test, eligible)
        measures.append(measured)
        found.append(
            GateCalibration(
                spec,
                proposed,
                gate.comparison,
                len(measured.real),
                float(np.median(list(measured.real.values()))) if measured.real else math.nan,
                _rejected(spec, measured.real),
                _rejected(proposed, measured.real),
                {d: _rejected(spec, v) for d, v in measured.planted.items()},
                {d: _rejected(proposed, v) for d, v in measured.planted.items()},
            )
        )
    real = [m.real for m in measures]
    given, then = [g.given for g in found], [g.proposed for g in found]
    return Calibration(
        tuple(found),
        halved,
        len(test),
        {d: len(e) for d, e in eligible.items()},
        _any(given, real),
        _any(then, real),
        {d: _any(given, [m.planted[d] for m in measures]) for d in DEFECTS},
        {d: _any(then, [m.planted[d] for m in measures]) for d in DEFECTS},
    )


def _halves(names: Sequence[str]) -> tuple[list[int], list[int]]:
    """Places of the rows, parted by a name of each."""
    parts: tuple[list[int], list[int]] = ([], [])
    for n, name in enumerate(names):
        parts[derive("calibration", name) % 2].append(n)
    return parts


def propose(spec: GateSpec, values: Sequence[float], rate: float) -> GateSpec:
    """The gate with bounds, on the sides that it has, that reject about `rate` of the values on each side.

    Without values, or where all are equal and say nothing of what is still good, the bounds stay as they are.
    """
    if not len(values) or min(values) == max(values):
        return spec
    ordered, middle = np.sort(values), float(np.median(values))
    ends = {
        "min": float(np.quantile(ordered, rate, method="lower")),
        "max": float(np.quantile(ordered, 1 - rate, method="higher")),
    }
    # Positive measures are moved by a factor: a bound on a ratio or a size must not fall to 0 and below.
    moved = {k: v * (v / middle) ** GUARD if ordered[0] > 0 else v + GUARD * (v - middle) for k, v in ends.items()}
    return spec.model_copy(update={k: float(f"{v:.4g}") for k, v in moved.items() if getattr(spec, k) is not None})


def _measure(
    gates: Gates,
    spec: GateSpec,
    gate: Gate,
    rows: Sequence[RealRow],
    test: Sequence[int],
    eligible: Mapping[str, Sequence[int]],
) -> Values:
    values = Values()
    for n in test:
        case = _case(gate, rows[n])
        real = _value(gates, spec, gate, case)
        if case is None or not math.isfinite(real):
            continue
        values.real[n] = real
        for name, planted in eligible.items():
            damaged = DEFECTS[name](case, _rng(name, rows[n])) if n in planted else None
            if damaged is not None:
                values.planted[name][n] = _value(gates, spec, gate, damaged)
    return values


def _case(gate: Gate, row: RealRow) -> Case | None:
    return row.case(gate.comparison, getattr(gate, "lesion", LESION))


def _value(gates: Gates, spec: GateSpec, gate: Gate, case: Case | None) -> float:
    return math.nan if case is None else judge(spec, gate, case, gates.tools).value


def _rng(defect: str, row: RealRow) -> np.random.Generator:
    return generator("defect", defect, row.row.sample_id)


def _eligible(name: str, rows: Sequence[RealRow], test: Sequence[int]) -> list[int]:
    """Rows that can show a defect, evenly mixed."""
    able = [
        n
        for n in test
        if (case := rows[n].case("recoloured")) is not None and DEFECTS[name](case, _rng(name, rows[n])) is not None
    ]
    return [able[i] for i in generator("planted", name).permutation(len(able))]


def _rejected(spec: GateSpec, values: Mapping[int, float]) -> float:
    return float(np.mean([not keeps(spec, v) for v in values.values()])) if values else math.nan


def _any(specs: Sequence[GateSpec], values: Sequence[Mapping[int, float]]) -> float:
    """Share of the rows measured by any gate that any gate rejects."""
    rows = {n for found in values for n in found}
    rejected = {n for spec, found in zip(specs, values, strict=True) for n, v in found.items() if not keeps(spec, v)}
    return len(rejected) / len(rows) if rows else math.nan


def _bounds(spec: GateSpec) -> dict[str, float]:
    return spec.model_dump(include={"min", "max"}, exclude_none=True)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    return None if math.isnan(value) else round(value, 4)
