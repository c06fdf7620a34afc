"""A network with its conditioning as plain tensors, which is all that tracing compilers take."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from augengine.diffusion.conditioning import Conditioning

NAMES = ("planes", "classes", "tokens")


def given(conditioning: Conditioning) -> dict[str, Tensor]:
    """The parts of a prepared conditioning that a network reads, by name; classes only where no tokens hold them."""
    found = {name: getattr(conditioning, name) for name in NAMES}
    if found["tokens"] is not None:
        found["classes"] = None
    return {name: value for name, value in found.items() if value is not None}


class Flat(nn.Module):
    """`forward(x, t, *parts)` of a network that takes the parts `names` of a conditioning, in that order."""

    def __init__(self, network: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.network, self.names = network, names

    def forward(self, x: Tensor, t_B: Tensor, *parts: Tensor) -> Tensor:
        """Raw output in the shape of `x`."""
        asked: dict[str, Any] = dict(zip(self.names, parts, strict=True))
        out: Tensor = self.network(x, t_B, Conditioning(**asked))
        return out
