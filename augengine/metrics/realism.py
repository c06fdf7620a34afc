"""Feature summaries of a synthetic and a real set in; Fréchet, kernel and mean distances with intervals out.

Where the features are Inception's these are FID and KID. Summaries come from any number of rows (`FeatureSet`). The
95% interval is a delete-a-group jackknife over ten groups of subjects (Kott 2001): a group is left out of both sets at
once, which covers rows that were made from the very subjects that they are compared with, and the bias of a Fréchet
distance, which changes little with a tenth of the rows, cancels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats
from torchmetrics.image.kid import poly_kernel

from augengine.errors import DataError
from augengine.metrics.extractor import same_extractor
from augengine.metrics.features import FeatureSet, group_of
from augengine.metrics.frechet import SetDistance, frechet_distance, set_distance
from augengine.metrics.intervals import Interval

LEVEL = 0.95


@dataclass(frozen=True)
class Score:
    """One number about a synthetic set.

    Attributes:
        metric: `frechet`, `kid` or `mmd`.
        extractor: id of what made the features.
        value: the distance.
        interval: around it; None where the subjects fall into fewer than two groups.
        synthetic_rows, real_rows: how many rows it rests on. Fréchet distances of different numbers do not compare.
    """

    metric: str
    extractor: str
    value: float
    interval: Interval | None
    synthetic_rows: int
    real_rows: int


def fid(synthetic: FeatureSet, real: FeatureSet) -> Score:
    """Fréchet distance over all rows (Heusel et al. 2017)."""
    return _score(
        "frechet",
        synthetic,
        real,
        (synthetic.rows, real.rows),
        lambda without: frechet_distance(synthetic.gaussian(without), real.gaussian(without)),
    )


def mmd(synthetic: FeatureSet, real: FeatureSet) -> Score:
    """Unbiased squared maximum mean discrepancy with the linear kernel over all rows (Gretton et al. 2012, eq. 3).

    MONAI's MMD of the features: how far their means lie apart, less what chance alone does. It may be negative.
    """

    def value(without: int | None) -> float:
        a, b = synthetic.gaussian(without), real.gaussian(without)
        chance = (a.deviations**2).sum() / a.rows + (b.deviations**2).sum() / b.rows
        return float(((a.mean - b.mean) ** 2).sum() - chance)

    return _score("mmd", synthetic, real, (synthetic.rows, real.rows), value)


def kid(synthetic: FeatureSet, real: FeatureSet) -> Score:
    """Unbiased squared MMD with the kernel (xᵀy / d + 1)³ over the kept rows (Bińkowski et al. 2018).

    All pairs of kept rows count at once, which is what the mean over ever more random subsets tends to. It may be
    negative.
    """
    a, b = (torch.from_numpy(s.kept.astype(np.float64)) for s in (synthetic, real))
    aa, ab, bb = (poly_kernel(x, y).numpy() for x, y in ((a, a), (a, b), (b, b)))
    of_a, of_b = (np.array([group_of(s) for s in x.kept_subjects]) for x in (synthetic, real))

    def value(without: int | None) -> float:
        here, there = of_a != without, of_b != without
        between = ab[np.ix_(here, there)].mean()
        return float(_off_diagonal(aa[np.ix_(here, here)]) + _off_diagonal(bb[np.ix_(there, there)]) - 2 * between)

    return _score("kid", synthetic, real, (len(a), len(b)), value)


def small_set_distance(
    synthetic: FeatureSet, real: FeatureSet, n: int, *, rng: np.random.Generator, draws: int = 200
) -> SetDistance:
    """Fréchet distance of standardised features between n kept rows of either set, beside the same-n real–real one."""
    extractor = same_extractor(synthetic.extractor, real.extractor)
    made, held_out = (s.kept.astype(np.float64) for s in (synthetic, real))
    return set_distance(made, held_out, real.kept_subjects, n, extractor=extractor, rng=rng, draws=draws)


def _score(
    metric: str, synthetic: FeatureSet, real: FeatureSet, rows: tuple[int, int], value: Callable[[int | None], float]
) -> Score:
    extractor = same_extractor(synthetic.extractor, real.extractor)
    if min(rows) < 2:
        raise DataError("a distance needs two sets of ≥ 2 rows", found=f"{rows[0]} and {rows[1]}")
    estimate = value(None)
    return Score(metric, extractor, estimate, _jackknife(estimate, synthetic, real, value), *rows)


def _jackknife(
    estimate: float, synthetic: FeatureSet, real: FeatureSet, value: Callable[[int | None], float]
) -> Interval | None:
    groups = sorted(synthetic.groups.keys() | real.groups.keys())
    left = [min(_rows_without(s, g) for s in (synthetic, real)) for g in groups]
    if len(groups) < 2 or min(left) < 2:
        return None
    deleted = np.array([value(g) for g in groups])
    count = len(groups)
    error = np.sqrt((count - 1) / count * ((deleted - deleted.mean()) ** 2).sum())
    half = float(stats.t.ppf((1 + LEVEL) / 2, count - 1) * error)
    return Interval(estimate, estimate - half, estimate + half, LEVEL, len(synthetic.subjects | real.subjects), count)


def _rows_without(features: FeatureSet, group: int) -> int:
    """Rows left, of those that are kept, too: every distance has at least so many."""
    return sum(group_of(subject) != group for subject in features.kept_subjects)


def _off_diagonal(kernel: np.ndarray) -> float:
    n = len(kernel)
    return float((kernel.sum() - np.trace(kernel)) / (n * (n - 1)))
