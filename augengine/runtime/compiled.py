"""A network in; the same compiled by `torch.compile` for each shape that it meets out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from augengine.diffusion.conditioning import Conditioning
from augengine.diffusion.denoisers import GenerativeNetwork
from augengine.runtime.flat import Flat, given


class Compiled:
    """`(x_t, t_B, conditioning) -> raw output`; the first call of every shape compiles, which takes a minute or two.

    On a GPU the calls of a shape are recorded as one CUDA graph, whose output is copied before the next call.
    """

    def __init__(self, network: GenerativeNetwork) -> None:
        self.network = network
        self.made: dict[tuple[str, ...], nn.Module] = {}

    def __call__(self, x: Tensor, t_B: Tensor, conditioning: Conditioning) -> Tensor:
        """As the network."""
        parts = given(self.network.prepared(conditioning, len(x)))
        names = tuple(parts)
        if names not in self.made:
            mode = "reduce-overhead" if x.device.type == "cuda" else None
            self.made[names] = torch.compile(Flat(self.network, names), dynamic=False, mode=mode)  # type: ignore[assignment]
        out: Tensor = self.made[names](x, t_B, *parts.values())
        return out.clone() if x.device.type == "cuda" else out
