"""A segmenter's logits in, probabilities of its regions out."""

from __future__ import annotations

from torch import Tensor

from augengine.diffusion.spec import ModelSpec


def probabilities(spec: ModelSpec, logits: Tensor) -> Tensor:
    """(B, R, *): softmax with the background, where regions exclude each other, else one sigmoid per region."""
    return logits.softmax(1)[:, 1:] if spec.exclusive else logits.sigmoid()
