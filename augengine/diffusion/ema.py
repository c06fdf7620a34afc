"""Exponential moving average of a network's weights, which is what a checkpoint holds."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn


class Ema:
    """Averaged copies of every parameter and buffer of `network`.

    The decay warms up as (1 + n) / (10 + n), so that the random start does not stay in a short run's average.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights: dict[str, Tensor] = {k: v.detach().clone() for k, v in network.state_dict().items()}
        self.frozen = {name for name, value in network.named_parameters() if not value.requires_grad}

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Move towards the weights after optimiser step `step` (from 0)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, value in network.state_dict().items():
            if name in self.frozen:
                continue
            if value.is_floating_point():
                self.weights[name].lerp_(value, 1 - decay)
            else:
                self.weights[name].copy_(value)

    @contextlib.contextmanager
    def applied(self, network: nn.Module) -> Iterator[None]:
        """Inside, `network` has the averaged weights and is in evaluation mode; afterwards its own, and as before."""
        own, mode = {k: v.clone() for k, v in network.state_dict().items()}, network.training
        network.load_state_dict(self.weights)
        network.eval()
        try:
            yield
        finally:
            network.load_state_dict(own)
            network.train(mode)
