"""Scores of a pilot by ratio in; whether augmented rows are worth it, and how many, out.

Every look at every ratio is a chance to be fooled, so all intervals of a pilot together hold with 95 %: each is taken
at a level that shares the 5 % out among ratios and looks (Bonferroni), and the pilot may stop at any look.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from augengine.downstream.results import Measured, Row, Scores
from augengine.errors import DataError
from augengine.metrics.intervals import Interval
from augengine.metrics.statistics import BySeed, hierarchical_interval
from augengine.rng import generator

MISTAKES = 0.05
LEARNT = 0.1
"""A baseline's score below which a pilot has trained too shortly to tell anything."""
DRAWS = 10_000
Verdict = Literal["use", "not worth it", "undecided"]


@dataclass(frozen=True)
class Option:
    """What one ratio brings.

    Attributes:
        ratio: augmented rows per real row, or where they take the place of real rows the share of these.
        gain: mean over patients, each over all cells that he is tested in, and its interval over patients and seeds.
        cells: the same of each cell apart.
    """

    ratio: float
    gain: Interval
    cells: Mapping[str, Interval]

    @property
    def costs(self) -> tuple[str, ...]:
        """Cells in which the rows do harm."""
        return tuple(cell for cell, interval in self.cells.items() if interval.high < 0)


@dataclass(frozen=True)
class Advice:
    """A verdict and what it stands on.

    Attributes:
        verdict: `use` the ratio; `not worth it`, since every ratio gains less than is asked for; or `undecided`.
        ratio: of `use`.
        options: in the order of their ratios.
        least: the gain that makes augmentation worth it.
        seeds, patients: that were looked at.
        baseline: mean score without augmented rows; below `LEARNT` nothing is decided.
    """

    verdict: Verdict
    ratio: float | None
    options: tuple[Option, ...]
    least: float
    seeds: int
    patients: int
    baseline: float

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)

    def __str__(self) -> str:
        told = ", ".join(
            f"{o.ratio:g}: {o.gain.estimate:+.3f} [{o.gain.low:+.3f}, {o.gain.high:+.3f}]" for o in self.options
        )
        stands = (
            f"gain by ratio {told}; without them {self.baseline:.3f}; {self.patients} validation patients, "
            f"{self.seeds} seeds"
        )
        if self.verdict == "use":
            cost = "; ".join(f"costs Dice in {cell}" for o in self.options if o.ratio == self.ratio for cell in o.costs)
            return f"use --ratio {self.ratio:g} ({stands})" + (f"; {cost}" if cost else "")
        if self.verdict == "not worth it":
            return f"not worth it on these data: no ratio gains {self.least:g} ({stands})"
        if self.baseline < LEARNT:
            return f"undecided: the segmenters have learnt next to nothing, so more --steps ({stands})"
        return f"undecided: more seeds (--seeds) or validation patients would tell ({stands})"


def advise(
    scores: Scores, measured: Measured, arm: str, baseline: str, least: float, looks: int, seeds: Iterable[int]
) -> Advice:
    """Judge every ratio of an arm by its gain over its baseline.

    Args:
        scores: of a pilot's experiment.
        measured: the metric and class that gains are told in; more is better.
        arm, baseline: with and without augmented rows, else alike.
        least: the gain that makes augmented rows worth it.
        looks: how often the pilot looks at most.
        seeds: those to look at.

    Raises:
        DataError: no scores of the arm.
    """
    chosen = sorted(seeds)
    cells = {row.cell: found for row, found in scores.items() if row.arm == baseline}
    rows: dict[float, dict[str, Row]] = {}
    for row in scores:
        if row.arm == arm and row.cell in cells:
            rows.setdefault(row.ratio, {})[row.cell] = row
    if not rows:
        raise DataError(f"a pilot needs scores of {arm} and {baseline}", found=sorted({row.arm for row in scores}))
    level = 1 - MISTAKES / (looks * len(rows))
    options = []
    for ratio, by_cell in sorted(rows.items()):
        differences = {
            cell: _difference(scores[row][measured], cells[cell][measured], chosen) for cell, row in by_cell.items()
        }
        pooled = _pooled(list(differences.values()))
        random = generator("advice", arm, ratio)
        options.append(
            Option(
                ratio,
                _interval(pooled, random, level),
                {cell: _interval(found, random, level) for cell, found in differences.items()},
            )
        )
    worth = [option for option in options if option.gain.low > 0 and option.gain.estimate >= least]
    harmless = [option for option in worth if not option.costs] or worth
    best = max(harmless, key=lambda option: (option.gain.estimate, -option.ratio), default=None)
    hopeless = all(option.gain.high < least for option in options)
    without = [v for found in cells.values() for seed in chosen for v in found[measured][seed].values()]
    learnt = float(np.mean(without)) >= LEARNT
    verdict: Verdict = "use" if best and learnt else "not worth it" if hopeless and learnt else "undecided"
    return Advice(
        verdict,
        best.ratio if best and learnt else None,
        tuple(options),
        least,
        len(chosen),
        options[0].gain.subjects,
        float(np.mean(without)),
    )


def _difference(arm: BySeed, baseline: BySeed, seeds: Sequence[int]) -> BySeed:
    return {seed: {p: value - baseline[seed][p] for p, value in arm[seed].items()} for seed in seeds}


def _pooled(cells: Sequence[BySeed]) -> BySeed:
    """Of every patient the mean over the cells that he is tested in: however many there are, he is one patient."""
    found: dict[int, dict[str, float]] = {}
    for seed in cells[0]:
        patients = dict.fromkeys(patient for cell in cells for patient in cell[seed])
        found[seed] = {p: float(np.mean([cell[seed][p] for cell in cells if p in cell[seed]])) for p in patients}
    return found


def _interval(differences: BySeed, random: np.random.Generator, level: float) -> Interval:
    nothing = {seed: dict.fromkeys(values, 0.0) for seed, values in differences.items()}
    return hierarchical_interval(differences, nothing, rng=random, resample_seeds=True, draws=DRAWS, level=level)
