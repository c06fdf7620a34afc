"""An experiment's scores and its test patients' lesion contrasts in; scores and gains by thirds of contrast out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from augengine.downstream.arms import baselines
from augengine.downstream.contrast import CONTRAST, RATIOS, contrast_id, thirds
from augengine.downstream.results import Measured, Plan, Row, Scores
from augengine.errors import RunError
from augengine.io.commits import read_records
from augengine.io.store import Store
from augengine.metrics.intervals import Interval
from augengine.metrics.statistics import BySeed, hierarchical_interval, seed_means
from augengine.rng import generator


@dataclass(frozen=True)
class OfThird:
    """One arm on the patients of one third.

    Attributes:
        low, high: smallest and largest lesion-to-ring ratio of the third.
        mean: of the metric, over patients.
        against: the arm's nearest baseline, None of `real`.
        difference: to that, interval over patients and trainings.
    """

    cell: str
    arm: str
    subjects: int
    third: str
    low: float
    high: float
    patients: int
    mean: float
    against: str | None
    difference: Interval | None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)


def ratios_of(plan: Plan, out: str) -> dict[str, float]:
    """Lesion-to-ring ratio of every test patient; empty where the protocol names no channel.

    Raises:
        RunError: ratios that the plan needs were not measured.
    """
    if plan.protocol.contrast_channel is None:
        return {}
    folder = Store(out).folder(CONTRAST)
    found: dict[str, float] = {}
    records = read_records(folder)
    for chunk in plan.chunks:
        unit = contrast_id(chunk["chunk_id"], plan.protocol)
        if unit not in records:
            raise RunError(
                "the lesion contrast of every test patient is measured",
                found=f"none of {unit}",
                where=folder.uri,
                next_step="run the experiment again, without --tables-only",
            )
        for part in records[unit].files.get(RATIOS, ()):
            for row in folder.parquet(part.name).read().to_pylist():
                found[row["subject_id"]] = row["ratio"]
    return found


def by_thirds(plan: Plan, scores: Scores, ratios: Mapping[str, float], measured: Measured) -> list[OfThird]:
    """Every arm of every cell on the faint, the middle and the bright third of the cell's test patients."""
    found = []
    for row, of_row in scores.items():
        if measured not in of_row or row.ratio != plan.ratio:
            continue
        values = of_row[measured]
        means = seed_means(values)
        against = None if row.arm == "real" else baselines(row.arm)[-1]
        other = scores.get(Row(row.cell, against, row.ratio, row.subjects), {}).get(measured) if against else None
        for third in thirds({p: ratios[p] for p in means if p in ratios}):
            difference = None
            if other is not None:
                random = generator("thirds", plan.protocol.name, *measured)
                pair = (_only(values, third.patients), _only(other, third.patients))
                difference = hierarchical_interval(*pair, rng=random, resample_seeds=True)
            found.append(
                OfThird(
                    row.cell,
                    row.arm,
                    row.subjects,
                    third.name,
                    third.low,
                    third.high,
                    len(third.patients),
                    float(np.mean([means[p] for p in third.patients])),
                    None if other is None else against,
                    difference,
                )
            )
    return found


def thirds_table(found: Sequence[OfThird], plan: Plan, title: str) -> Iterable[str]:
    """The same in Markdown."""
    if not found:
        return
    yield f"## {title} by thirds of lesion contrast"
    yield ""
    yield (
        f"Median of {plan.protocol.contrast_channel} inside the lesion over the median in a ring around it: 1 cannot "
        f"be seen. Gains are over the arm's nearest baseline, 95 % over patients and {plan.draws}."
    )
    yield ""
    heads = ["Cell", "Arm", "patients trained on", "third", "ratio", "patients", title, "against", "gain", "95 %"]
    yield _line(heads)
    yield _line(["---"] * len(heads))
    for one in found:
        gain = ["–"] * 3
        if one.difference is not None:
            interval = f"{one.difference.low:.4f} … {one.difference.high:.4f}"
            gain = [str(one.against), f"{one.difference.estimate:+.4f}", interval]
        yield _line(
            [
                one.cell,
                one.arm,
                str(one.subjects or "all"),
                one.third,
                f"{one.low:.2f}–{one.high:.2f}",
                str(one.patients),
                f"{one.mean:.3f}",
                *gain,
            ]
        )
    yield ""


def _only(values: BySeed, patients: Sequence[str]) -> dict[int, dict[str, float]]:
    return {seed: {p: of_seed[p] for p in patients} for seed, of_seed in values.items()}


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
