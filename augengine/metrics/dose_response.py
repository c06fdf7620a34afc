"""Responses to one swept parameter, predicted and true, in; whether sign and course agree out."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.stats import spearmanr

from augengine.errors import DataError

LEAST_EFFECT = 0.01


@dataclass(frozen=True)
class DoseResponse:
    """How one tissue answers to one parameter.

    Attributes:
        true_change, change: last response minus first, of the truth and as predicted.
        right_sign: 1 if both go the same way, 0 if not; NaN where the truth hardly changes.
        spearman: rank correlation of the predicted with the true course, −1…1; 0 for a prediction that does not
            answer, NaN where the truth hardly changes.
        monotone, true_monotone: |rank correlation| of the predicted and of the true response with the dose. The truth
            itself need not be monotone: with TE, fat and water come in and out of phase.
    """

    true_change: float
    change: float
    right_sign: float
    spearman: float
    monotone: float
    true_monotone: float


def dose_response(
    dose: np.ndarray, predicted: np.ndarray, true: np.ndarray, least_effect: float = LEAST_EFFECT
) -> DoseResponse:
    """Compare two courses (N,) over rising doses (N,).

    Args:
        least_effect: range of the true course, in units of the response, below which its direction says nothing.

    Raises:
        DataError: fewer than 3 doses, or doses that do not rise.
    """
    if len(dose) < 3 or not (np.diff(dose) > 0).all() or not len(dose) == len(predicted) == len(true):
        raise DataError("a dose-response takes ≥ 3 rising doses and one response each", found=np.shape(dose))
    change, true_change = float(predicted[-1] - predicted[0]), float(true[-1] - true[0])
    tells = np.ptp(true) >= least_effect
    return DoseResponse(
        true_change=true_change,
        change=change,
        right_sign=float(np.sign(change) == np.sign(true_change)) if tells else math.nan,
        spearman=_ranked(predicted, true) if tells else math.nan,
        monotone=abs(_ranked(dose, predicted)),
        true_monotone=abs(_ranked(dose, true)),
    )


def _ranked(a: np.ndarray, b: np.ndarray) -> float:
    return float(spearmanr(a, b).statistic) if np.ptp(a) and np.ptp(b) else 0.0
