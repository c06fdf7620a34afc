"""Spatial sizes that a network can take: padding at the far end by the edge value, and the exact crop back."""

from __future__ import annotations

from collections.abc import Sequence
from types import EllipsisType

from torch import Tensor
from torch.nn import functional


def pad(x: Tensor, multiple: int) -> Tensor:
    """(B, C, *) with every spatial size raised to the next multiple of `multiple`."""
    return pad_to(x, [-(-n // multiple) * multiple for n in x.shape[2:]])


def pad_to(x: Tensor, size: Sequence[int]) -> Tensor:
    """(B, C, *size); `size` is at least that of `x` along every axis."""
    missing = [wanted - n for wanted, n in zip(size, x.shape[2:], strict=True)]
    if not any(missing):
        return x
    return functional.pad(x, [v for n in reversed(missing) for v in (0, n)], mode="replicate")


def crop(x: Tensor, size: Sequence[int]) -> Tensor:
    """The first `size` cells of (B, C, *): undoes `pad` and `pad_to`."""
    kept: tuple[slice | EllipsisType, ...] = (..., *(slice(n) for n in size))
    return x[kept]
