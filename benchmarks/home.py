"""What additions cost at home in the experiment on phantoms, by field strength, beside real rows of both vendors.

    python benchmarks/home.py [--out runs/evaluate]

Reads the stored scores of what `benchmarks/experiment.py` left in the folder; trains and predicts nothing. A segmenter
that is trained on two vendors' real rows for as many steps shows what serving both costs, generated rows or not.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from typing import Any

import numpy as np
from _record import record

from augengine.downstream.results import MEAN, Plan, Scores, measure
from augengine.io.dataset import dataset_files
from augengine.io.store import Store
from augengine.metrics.statistics import BySeed, hierarchical_interval
from augengine.pipeline.units import INLINE
from augengine.report.console import console, table

DICE = ("dice", MEAN)
REFERENCE, ARM, VENDORS = "Both", "counterfactual", ("GE", "Siemens")
FEWEST = 10


def main() -> None:
    """Compare on each vendor's own patients, print and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="runs/evaluate", help="of the experiment")
    given = parser.parse_args()
    plan, scores = Plan.read(given.out), measure(given.out, actors=INLINE)
    fields = _field_strengths(Store(f"{given.out}/phantom/cohort"))
    figures, lines = [], []
    for vendor in VENDORS:
        own = _scores(scores, vendor, "real", plan.ratio)
        rows, both = _scores(scores, vendor, ARM, plan.ratio), _scores(scores, REFERENCE, "real", plan.ratio)
        pairs = {
            f"{ARM} − real": (rows, own),
            "real of both − real": (both, own),
            f"{ARM} − real of both": (rows, both),
        }
        for field, patients in _strata(own, fields).items():
            for name, pair in pairs.items():
                a, b = ({seed: {p: v[seed][p] for p in patients} for seed in own} for v in pair)
                found = hierarchical_interval(a, b, rng=np.random.default_rng(0), resample_seeds=True)
                figures.append(
                    {
                        "vendor": vendor,
                        "field_strength_t": field,
                        "patients": len(patients),
                        "pair": name,
                        "difference": {k: getattr(found, k) for k in ("estimate", "low", "high")},
                    }
                )
                lines.append(
                    [
                        vendor,
                        field or "all",
                        len(patients),
                        name,
                        f"{found.estimate:+.4f}",
                        f"{found.low:.4f} … {found.high:.4f}",
                    ]
                )
    columns = ["vendor", "field, T", "patients", "pair", "difference", "95 % patients and seeds"]
    table("Mean Dice at home", columns, lines)
    console.print(record("home", {"protocol": plan.protocol.name, "ratio": plan.ratio, "rows": figures}))


def _scores(scores: Scores, train: str, arm: str, ratio: float) -> BySeed:
    """Of what was trained on a domain, on that domain's own patients."""
    return next(
        v[DICE] for row, v in scores.items() if (row.cell, row.arm, row.ratio) == (f"{train} → {train}", arm, ratio)
    )


def _field_strengths(cohort: Store) -> dict[str, float]:
    found: dict[str, Any] = {}
    for name in dataset_files(cohort):
        for row in cohort.parquet(name).read(columns=["subject_id", "acquisition"]).to_pylist():
            found[row["subject_id"]] = row["acquisition"]["field_strength_t"]
    return found


def _strata(own: BySeed, fields: dict[str, float]) -> dict[float | None, list[str]]:
    """All patients, and those of each field strength that enough of them have."""
    patients = sorted(next(iter(own.values())))
    by_field: dict[float | None, list[str]] = defaultdict(list)
    for patient in patients:
        by_field[round(fields[patient], 1)].append(patient)
    return {None: patients} | {f: chosen for f, chosen in sorted(by_field.items()) if len(chosen) >= FEWEST}


if __name__ == "__main__":
    main()
