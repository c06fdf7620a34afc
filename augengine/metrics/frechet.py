"""Two sets of feature vectors in, the Fréchet distance of their Gaussian fits out, beside the same-n real–real one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from augengine.errors import DataError
from augengine.metrics.intervals import Interval, percentile_interval
from augengine.metrics.label_features import label_features


@dataclass(frozen=True)
class Extractor:
    """Turns bool (B, R, *spatial) into (B, F); distances by extractors of different names do not compare."""

    name: str
    features: Callable[[np.ndarray], np.ndarray]


SHAPE = Extractor("label-shape-1", label_features)


@dataclass(frozen=True)
class LabelDistance:
    """Distance of synthetic from real label maps, n against n, beside that of real from real ones.

    Attributes:
        extractor: its name.
        n: maps on either side of every distance.
        distance: synthetic–real, mean over the draws.
        real_real: real–real over the same draws.
    """

    extractor: str
    n: int
    distance: float
    real_real: Interval

    @property
    def ratio(self) -> float:
        """Distance relative to the upper end of the real–real interval: up to 1, synthetic passes for real."""
        return self.distance / self.real_real.high


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """|μa − μb|² + tr(Ca + Cb − 2 (Ca Cb)^½) of Gaussian fits to (n, d) and (m, d) (Dowson and Landau 1982).

    With centred factors Ca = AᵀA and Cb = BᵀB the last trace is the sum of the singular values of A Bᵀ, which
    holds for singular covariances (n < d) as well, where the matrix square root fails.

    Raises:
        DataError: fewer than 2 rows, other columns, or features that are not finite.
    """
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise DataError("a Fréchet distance needs two sets of ≥ 2 rows of the same features",
                        found=f"{a.shape} and {b.shape}")  # fmt: skip
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise DataError("features are finite numbers", next_step="look for NaN in the images")
    mean_a, factor_a = _gaussian(a)
    mean_b, factor_b = _gaussian(b)
    spread = (factor_a**2).sum() + (factor_b**2).sum()
    shared = np.linalg.svd(factor_a @ factor_b.T, compute_uv=False).sum()
    # Rounding can leave a tiny negative value between equal sets.
    return max(0.0, float(((mean_a - mean_b) ** 2).sum() + spread - 2 * shared))


def _gaussian(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean (d,) and a factor (min(n, d), d) whose Gram matrix is the covariance (n − 1 in the denominator)."""
    wide = features.astype(np.float64)
    mean = wide.mean(axis=0)
    factor = (wide - mean) / np.sqrt(len(wide) - 1)
    return mean, factor if len(factor) <= factor.shape[1] else np.asarray(np.linalg.qr(factor, mode="r"))


def standardise(features: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Features in units of the reference's mean and SD; one that is constant there keeps its own unit."""
    sd = reference.std(axis=0)
    return np.asarray((features - reference.mean(axis=0)) / np.where(sd > 1e-6, sd, 1.0))


def real_real_interval(
    features: np.ndarray,
    subjects: Sequence[str],
    n: int,
    *,
    rng: np.random.Generator,
    draws: int = 200,
    level: float = 0.95,
) -> Interval:
    """Distances between disjoint halves of the real set: what equal distributions score with n maps each.

    The bias of a Fréchet distance falls with n, so only distances at the same n compare. With several maps per
    subject the halves differ more than independent maps would; one map per subject is the strict choice.

    Args:
        features: (N, d) of real maps.
        subjects: whose map each row is; no subject is in both halves.
        n: rows on either side.
        rng, draws, level: the draws and the coverage of their percentile interval; the estimate is their mean.

    Raises:
        DataError: too few maps for two halves of n.
    """
    drawn = []
    for _ in range(draws):
        one, other = _halves(subjects, n, rng)
        drawn.append(frechet_distance(features[one], features[other]))
    return percentile_interval(float(np.mean(drawn)), np.array(drawn), subjects=len(set(subjects)), level=level)


def label_distance(
    synthetic: np.ndarray,
    real: np.ndarray,
    subjects: Sequence[str],
    n: int,
    *,
    rng: np.random.Generator,
    draws: int = 200,
    extractor: Extractor = SHAPE,
) -> LabelDistance:
    """Compare synthetic with real label maps, n against n, by features standardised on the real maps.

    Args:
        synthetic: bool (N, R, *spatial), N ≥ n.
        real: bool (M, R, *spatial) that the generator has not seen.
        subjects: (M,) whose map each real one is.
        n: maps on either side; see `real_real_interval`.
        rng, draws: draw the subsets.
        extractor: turns maps into features.
    """
    if len(synthetic) < n:
        raise DataError("n synthetic maps are compared with n real ones", found=f"{len(synthetic)} < {n}")
    real_features = extractor.features(real)
    synthetic_features = standardise(extractor.features(synthetic), real_features)
    real_features = standardise(real_features, real_features)
    distances = [
        frechet_distance(
            synthetic_features[rng.permutation(len(synthetic))[:n]], real_features[_halves(subjects, n, rng)[0]]
        )
        for _ in range(draws)
    ]
    interval = real_real_interval(real_features, subjects, n, rng=rng, draws=draws)
    return LabelDistance(extractor.name, n, float(np.mean(distances)), interval)


def _halves(subjects: Sequence[str], n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rows of two random sets of n without a common subject."""
    names, codes, counts = np.unique(np.asarray(subjects), return_inverse=True, return_counts=True)
    most = (len(codes) - int(counts.max(initial=0)) + 1) // 2
    if not 2 <= n <= most:
        raise DataError("two halves without a common subject hold n ≥ 2 maps each", found=f"n = {n}",
                        next_step=f"use n up to {most}, or more subjects")  # fmt: skip
    side, filled = np.zeros(len(names), int), [0, 0]
    for subject in rng.permutation(len(names)):  # to the emptier side, so that both fill whatever the counts
        side[subject] = int(filled[1] < filled[0])
        filled[side[subject]] += counts[subject]
    one, other = (rng.permutation(np.flatnonzero(side[codes] == s))[:n] for s in (0, 1))
    return one, other
