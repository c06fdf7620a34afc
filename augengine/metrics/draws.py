"""Two arms' values by draw and patient in; how many draws a narrow interval of their difference would need, out.

A draw is a training on patients of its own (or, where all patients train, a training with a seed of its own). Between
draws the difference of two arms varies more than most gains are worth, so a table says how many would decide.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

from augengine.metrics.statistics import BySeed

HALF_WIDTH = 0.02


def draw_differences(a: BySeed, b: BySeed) -> list[float]:
    """Mean over patients of a − b, draw by draw, of the draws and patients that both have."""
    return [
        float(np.mean([a[draw][patient] - b[draw][patient] for patient in sorted(a[draw].keys() & b[draw].keys())]))
        for draw in sorted(a.keys() & b.keys())
    ]


def draws_needed(a: BySeed, b: BySeed, half_width: float = HALF_WIDTH, level: float = 0.95) -> int | None:
    """Draws whose mean difference has an interval of ± `half_width`, on these test patients.

    From the standard deviation s of the paired differences between draws: (z s / half-width)², rounded up. More test
    patients are another matter: of few, no number of draws tells how it is for others.

    Returns:
        At least 1; None where fewer than two draws say nothing of their deviation.

    >>> a = {0: {"p": 0.5}, 1: {"p": 0.6}}
    >>> draws_needed(a, {0: {"p": 0.5}, 1: {"p": 0.5}})
    49
    """
    differences = draw_differences(a, b)
    if len(differences) < 2:
        return None
    z = NormalDist().inv_cdf((1 + level) / 2)
    return max(1, math.ceil((z * float(np.std(differences, ddof=1)) / half_width) ** 2))
