"""Two sets of feature vectors in, the Fréchet distance of their Gaussian fits out, beside the same-n real–real one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from augengine.errors import DataError
from augengine.metrics.extractor import Extractor
from augengine.metrics.intervals import Interval, percentile_interval
from augengine.metrics.label_features import label_features

SHAPE = Extractor("label-shape-1", label_features)


@dataclass(frozen=True)
class SetDistance:
    """Distance of a synthetic from a real set, n against n, beside that of real from real rows.

    Attributes:
        extractor: its id.
        n: rows on either side of every distance.
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


@dataclass(frozen=True)
class Gaussian:
    """A Gaussian fit to rows of features that merges with others, however many rows there are.

    Attributes:
        rows: how many.
        mean: float64 (d,).
        factor: float64 (≤ 2d, d), whose Gram matrix is the scatter: the sum of (x − mean)(x − mean)ᵀ. Sums of xxᵀ
            would lose the scatter of features far from 0.
    """

    rows: int
    mean: np.ndarray
    factor: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray) -> Gaussian:
        """Fit to (n, d), n ≥ 1.

        Raises:
            DataError: no rows, or features that are not finite.
        """
        if features.ndim != 2 or not len(features):
            raise DataError("a fit needs rows of features", found=str(features.shape))
        if not np.isfinite(features).all():
            raise DataError("features are finite numbers", next_step="look for NaN in the images")
        wide = features.astype(np.float64)
        mean = wide.mean(axis=0)
        return cls(len(wide), mean, _short(wide - mean))

    def merge(self, other: Gaussian) -> Gaussian:
        """The fit to the rows of both (Chan et al. 1983)."""
        rows = self.rows + other.rows
        apart = other.mean - self.mean
        between = np.sqrt(self.rows * other.rows / rows) * apart
        mean = self.mean + apart * (other.rows / rows)
        return Gaussian(rows, mean, _short(np.vstack([self.factor, other.factor, between[None]])))

    @property
    def deviations(self) -> np.ndarray:
        """A factor of the covariance, whose denominator is n − 1."""
        return np.asarray(self.factor / np.sqrt(self.rows - 1))


def _short(factor: np.ndarray) -> np.ndarray:
    """A factor of the same Gram matrix with at most 2d rows; shortened that seldom, it costs little."""
    return factor if len(factor) <= 2 * factor.shape[1] else np.asarray(np.linalg.qr(factor, mode="r"))


def frechet_distance(a: np.ndarray | Gaussian, b: np.ndarray | Gaussian) -> float:
    """|μa − μb|² + tr(Ca + Cb − 2 (Ca Cb)^½) of Gaussian fits to (n, d) and (m, d) (Dowson and Landau 1982).

    With centred factors Ca = AᵀA and Cb = BᵀB the last trace is the sum of the singular values of A Bᵀ, which
    holds for singular covariances (n < d) as well, where the matrix square root fails.

    Raises:
        DataError: fewer than 2 rows, other columns, or features that are not finite.
    """
    one, other = (x if isinstance(x, Gaussian) else Gaussian.of(x) for x in (a, b))
    if one.mean.shape != other.mean.shape or min(one.rows, other.rows) < 2:
        raise DataError(
            "a Fréchet distance needs two sets of ≥ 2 rows of the same features",
            found=f"{one.rows} × {one.mean.size} and {other.rows} × {other.mean.size}",
        )
    factor_a, factor_b = one.deviations, other.deviations
    spread = (factor_a**2).sum() + (factor_b**2).sum()
    shared = np.linalg.svd(factor_a @ factor_b.T, compute_uv=False).sum()
    # Rounding can leave a tiny negative value between equal sets.
    return max(0.0, float(((one.mean - other.mean) ** 2).sum() + spread - 2 * shared))


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


def set_distance(
    synthetic: np.ndarray,
    real: np.ndarray,
    subjects: Sequence[str],
    n: int,
    *,
    extractor: str,
    rng: np.random.Generator,
    draws: int = 200,
) -> SetDistance:
    """Compare two small sets, n against n, by features standardised on the real rows.

    Args:
        synthetic: features (N, d), N ≥ n.
        real: features (M, d) of rows that the generator has not seen.
        subjects: (M,) whose row each real one is.
        n: rows on either side; see `real_real_interval`.
        extractor: id of what made the features.
        rng, draws: draw the subsets.

    Raises:
        DataError: too few rows for n.
    """
    if len(synthetic) < n:
        raise DataError("n synthetic rows are compared with n real ones", found=f"{len(synthetic)} < {n}")
    made, held_out = standardise(synthetic, real), standardise(real, real)
    distances = [
        frechet_distance(made[rng.permutation(len(made))[:n]], held_out[_halves(subjects, n, rng)[0]])
        for _ in range(draws)
    ]
    interval = real_real_interval(held_out, subjects, n, rng=rng, draws=draws)
    return SetDistance(extractor, n, float(np.mean(distances)), interval)


def label_distance(
    synthetic: np.ndarray,
    real: np.ndarray,
    subjects: Sequence[str],
    n: int,
    *,
    rng: np.random.Generator,
    draws: int = 200,
    extractor: Extractor = SHAPE,
) -> SetDistance:
    """`set_distance` of label maps, bool (N, R, *spatial) and (M, R, *spatial)."""
    return set_distance(
        extractor.features(synthetic),
        extractor.features(real),
        subjects,
        n,
        extractor=extractor.id,
        rng=rng,
        draws=draws,
    )


def _halves(subjects: Sequence[str], n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rows of two random sets of n without a common subject."""
    names, codes, counts = np.unique(np.asarray(subjects), return_inverse=True, return_counts=True)
    most = (len(codes) - int(counts.max(initial=0)) + 1) // 2
    if not 2 <= n <= most:
        raise DataError(
            "two halves without a common subject hold n ≥ 2 maps each",
            found=f"n = {n}",
            next_step=f"use n up to {most}, or more subjects",
        )
    side, filled = np.zeros(len(names), int), [0, 0]
    for subject in rng.permutation(len(names)):  # to the emptier side, so that both fill whatever the counts
        side[subject] = int(filled[1] < filled[0])
        filled[side[subject]] += counts[subject]
    one, other = (rng.permutation(np.flatnonzero(side[codes] == s))[:n] for s in (0, 1))
    return one, other
