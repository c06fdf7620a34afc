"""Sign and course of a response to one swept parameter."""

from __future__ import annotations

import math

import numpy as np
import pytest

from augengine.errors import DataError
from augengine.metrics.dose_response import dose_response

DOSE = np.array([1.0, 2, 3, 4])


def test_a_response_of_half_the_size_has_the_right_sign_and_course() -> None:
    found = dose_response(DOSE, 0.5 - 0.1 * DOSE, 0.9 - 0.2 * DOSE)
    assert (found.true_change, found.change) == pytest.approx((-0.6, -0.3))
    assert (found.right_sign, found.spearman, found.monotone) == pytest.approx((1, 1, 1))


def test_the_wrong_way_is_seen() -> None:
    found = dose_response(DOSE, DOSE, -DOSE)
    assert (found.right_sign, found.spearman, found.monotone) == pytest.approx((0, -1, 1))


def test_no_answer_scores_nothing() -> None:
    found = dose_response(DOSE, np.full(4, 0.3), DOSE)
    assert (found.right_sign, found.spearman, found.monotone) == (0, 0, 0)


def test_a_true_course_that_rises_and_falls_is_followed_not_called_monotone() -> None:
    bent = np.array([0.0, 1, 0.5, 0.2])
    found = dose_response(DOSE, bent * 2, bent)
    assert found.spearman == pytest.approx(1)
    assert (found.monotone, found.true_monotone) == pytest.approx((0.2, 0.2))
    assert dose_response(DOSE, DOSE, bent).true_monotone == pytest.approx(0.2)


def test_where_the_truth_hardly_changes_nothing_is_said_of_direction() -> None:
    found = dose_response(DOSE, DOSE, DOSE * 1e-3)
    assert math.isnan(found.right_sign)
    assert math.isnan(found.spearman)
    assert found.monotone == pytest.approx(1)


@pytest.mark.parametrize("dose", [np.array([1.0, 2]), np.array([1.0, 3, 2]), np.arange(5.0)])
def test_doses_rise_and_have_one_response_each(dose: np.ndarray) -> None:
    with pytest.raises(DataError, match="rising doses"):
        dose_response(dose, DOSE[:3], DOSE[:3])
