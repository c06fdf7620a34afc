"""A precision's name and a device in; autocast, a scaled backward pass and a clipped optimiser step out."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from augengine.errors import RunError

PrecisionName = Literal["auto", "float32", "bfloat16", "float16"]
MIN_SCALE = 2.0**-16  # thirty-two halvings below the scaler's start: no gradient needs so small a factor


class Precision:
    """Mixed precision of one run; weights, gradients and moments stay float32.

    Args:
        name: arithmetic of convolutions and products; `auto` is bfloat16 where the hardware multiplies it, float32
            elsewhere. float16 scales the loss and skips the steps that overflow (Micikevicius et al. 2018).
        device: where the network is.

    Attributes:
        dtype: torch.float32, torch.bfloat16 or torch.float16.
        skipped: optimiser steps that overflowed and were left out, over all restarts.
    """

    def __init__(self, name: PrecisionName, device: torch.device) -> None:
        if name == "auto":
            name = "bfloat16" if multiplies_bfloat16(device) else "float32"
        self.dtype: torch.dtype = getattr(torch, name)
        self.device = device
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.dtype == torch.float16)
        self.skipped = 0

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Context for the forward pass and the loss."""
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        context: contextlib.AbstractContextManager[Any] = torch.autocast(self.device.type, self.dtype)
        return context

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a scalar float32 `loss`, so that its scale fits; call once per micro-batch."""
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def step(self, optimiser: torch.optim.Optimizer, parameters: Iterable[Tensor], clip_norm: float) -> float:
        """Clip the gradients to `clip_norm`, take the step and forget the gradients.

        With gradients sharded over workers this is a collective: every worker must call it.

        Returns:
            The gradients' norm before clipping; not finite where float16 overflowed and the step was skipped.

        Raises:
            RunError: gradients that are not finite, in float16 at any loss scale.
        """
        self.scaler.unscale_(optimiser)
        norm = nn.utils.clip_grad_norm_(parameters, clip_norm)
        total = float(norm.full_tensor() if isinstance(norm, DTensor) else norm)
        before = self.scaler.get_scale()
        if not self.scaler.is_enabled() and not math.isfinite(total):
            raise _not_finite(total)
        self.scaler.step(optimiser)
        self.scaler.update()
        optimiser.zero_grad(set_to_none=True)
        if self.scaler.get_scale() < before:
            self.skipped += 1
            if self.scaler.get_scale() < MIN_SCALE:
                raise _not_finite(total)
        return total

    def state_dict(self) -> dict[str, float]:
        """What a resumed run needs, as plain numbers."""
        numbers = self.scaler.state_dict()
        kept = {"scale": numbers["scale"], "growth_tracker": numbers["_growth_tracker"]} if numbers else {}
        return {"skipped": self.skipped, **kept}

    def load_state_dict(self, numbers: Mapping[str, float]) -> None:
        """Inverse of `state_dict`; another precision's scale is ignored."""
        self.skipped = int(numbers["skipped"])
        if self.scaler.is_enabled() and "scale" in numbers:
            own = {"scale": float(numbers["scale"]), "_growth_tracker": int(numbers["growth_tracker"])}
            self.scaler.load_state_dict({**self.scaler.state_dict(), **own})


def multiplies_bfloat16(device: torch.device) -> bool:
    """True where bfloat16 products run on the hardware and not in emulation."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.backends.cpu.get_cpu_capability() if device.type == "cpu" else ""
    return "AVX512" in capabilities and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _not_finite(norm: float) -> RunError:
    return RunError(
        "gradients must be finite",
        found=f"norm {norm}",
        next_step="lower optimiser.learning_rate, lengthen the warm-up or set precision: float32",
    )
