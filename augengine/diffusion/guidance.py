"""Classifier-free guidance: a conditional and an unconditional estimate of x0 in, the guided one out.

Legend: B rows, `*` any further axes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from augengine.diffusion.samplers import Denoiser
from augengine.diffusion.schedules import Schedule
from augengine.errors import ConfigError


@dataclass(frozen=True)
class Guidance:
    """How strongly, where in the chain, and how tamed.

    Attributes:
        scale: w of (1 - w) unconditional + w conditional (Ho and Salimans 2022); 1 is the conditional estimate.
        interval: part of the chain, t / T from 0 (clean) to 1 (noise), in which guidance is on; the conditional
            estimate alone is used outside (Kynkäänniemi et al. 2024), which also saves half the work there.
        rescale: share, 0 to 1, in which the guided estimate's standard deviation is pulled back to that of the
            conditional one (Lin et al. 2024, section 3.4), since guidance inflates contrast.
    """

    scale: float = 1.0
    interval: tuple[float, float] = (0.0, 1.0)
    rescale: float = 0.0

    def __post_init__(self) -> None:
        low, high = self.interval
        if not 0 <= low < high <= 1:
            raise ConfigError("guidance interval must be two rising fractions of the chain", found=self.interval)
        if not 0 <= self.rescale <= 1:
            raise ConfigError("guidance rescale must lie between 0 and 1", found=self.rescale)

    def active(self, t_B: Tensor, timesteps: int) -> Tensor:
        """(B,) bool: rows at whose timestep, of `timesteps`, the unconditional estimate is needed."""
        low, high = self.interval
        share_B = t_B / timesteps
        return (share_B >= low) & (share_B <= high) & (self.scale != 1)

    def combine(self, free: Tensor, conditional: Tensor) -> Tensor:
        """The guided estimate (B, *) of x0.

        The same combination of noise estimates is meant: at a given x_t, x0 is affine in them and the weights sum
        to 1.
        """
        guided = (1 - self.scale) * free + self.scale * conditional
        if self.rescale == 0:
            return guided
        axes = tuple(range(1, guided.ndim))
        ratio = conditional.std(axes, keepdim=True) / guided.std(axes, keepdim=True).clamp(min=1e-8)
        return guided * (1 - self.rescale + self.rescale * ratio)


def guided(estimate: Callable[[Tensor, Tensor, bool], Tensor], guidance: Guidance, schedule: Schedule) -> Denoiser:
    """A denoiser under guidance from `estimate(x_t, t_B, both) -> x0`.

    Where guidance is off, `estimate` gets the rows with `both` False and must condition each. Where it is on, it
    gets every row twice in one batch with `both` True, and must leave the first half unconditional:

        both = wanted.unconditional().cat(wanted)
        denoise = guided(lambda x, t, b: generator.denoise(x, t, both if b else wanted), Guidance(3.0), schedule)
    """

    def denoise(x_t: Tensor, t_B: Tensor) -> Tensor:
        on_B = guidance.active(t_B, schedule.spec.timesteps)
        if not on_B.any():
            return estimate(x_t, t_B, False)
        free, conditional = estimate(torch.cat([x_t] * 2), torch.cat([t_B] * 2), True).chunk(2)
        on = on_B.view(-1, *[1] * (x_t.ndim - 1)).to(x_t.device)
        return torch.where(on, guidance.combine(free, conditional), conditional)

    return denoise
