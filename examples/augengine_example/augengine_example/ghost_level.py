"""A row and its edit in; the signal that the air has gained, relative to the body's, out."""

from __future__ import annotations

import math

from augengine.gates import Case, Gate, Tools, body_mask


class GhostLevel(Gate):
    """Rise of the mean signal in the air, relative to the mean of the body, in the channel where it is largest.

    Attributes:
        least_air: share of the frame that must be air for a measurement; with less there is no value, so the row fails.
    """

    least_air: float = 0.02

    def value(self, case: Case, tools: Tools) -> float:
        """See the class."""
        body = body_mask(case.before.image)
        if not body.any() or (~body).mean() < self.least_air:
            return math.nan
        rise = case.after.image[:, ~body].mean(axis=1) - case.before.image[:, ~body].mean(axis=1)
        return float((rise / case.before.image[:, body].mean(axis=1)).max())
