"""Validation losses of a run in; which averaged weights its checkpoint gets, and when it ends early, out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from augengine.train.sections import BestCheckpointRecipe

Weights = Mapping[str, Tensor]


class Best:
    """The averaged weights of the least validation loss, and early stopping (Prechelt 1998) by its patience.

    Losses decide alone, so that workers that offer the same ones decide alike.

    Args:
        asked: the section of the recipe.

    Attributes:
        step: after which the least loss was measured, the first of equal ones; None before any finite loss.
        loss: that loss.
        since: validations after it; before any finite loss, all of them.
        seen: the step of the last validation.
        weights: averaged weights of `step`, whole and on the CPU; empty before any finite loss.
    """

    def __init__(self, asked: BestCheckpointRecipe) -> None:
        self.patience = asked.patience
        self.step: int | None = None
        self.loss = float("inf")
        self.since = 0
        self.seen = 0
        self.weights: Weights = {}

    def offer(self, step: int, loss: float, weights: Callable[[], Weights]) -> None:
        """Take note of a validation after `step`; `weights` is called only where it is the best yet.

        A second validation after the same step, as a resumed or ending run makes it, changes nothing.
        """
        if step == self.seen:
            return
        self.seen = step
        if loss < self.loss:  # never true of NaN
            self.step, self.loss, self.since, self.weights = step, loss, 0, weights()
        else:
            self.since += 1

    @property
    def exhausted(self) -> bool:
        """True where training is to end: as many validations as the patience in a row were not better."""
        return self.patience is not None and self.since >= self.patience

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs besides the weights, as plain JSON."""
        loss = None if self.step is None else self.loss
        return {"step": self.step, "loss": loss, "since": self.since, "seen": self.seen}

    def load_state_dict(self, values: Mapping[str, Any], weights: Weights) -> None:
        """Inverse of `state_dict`."""
        self.step, self.since, self.seen, self.weights = values["step"], values["since"], values["seen"], weights
        self.loss = float("inf") if values["loss"] is None else values["loss"]
