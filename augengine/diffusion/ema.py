"""Exponential moving average of a network's weights, which is what a checkpoint holds."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Ema:
    """Averaged copies of every parameter and buffer of `network`.

    The decay warms up as (1 + n) / (10 + n), so that the random start does not stay in a short run's average.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights: dict[str, Tensor] = {k: v.detach().clone() for k, v in network.state_dict().items()}

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Move towards the weights after optimiser step `step` (from 0)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, value in network.state_dict().items():
            self.weights[name].lerp_(value, 1 - decay)
