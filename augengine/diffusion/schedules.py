"""The forward process: signal levels of a variance schedule, noising, and what a network's output means.

Timesteps count from 0 to T-1; timestep t holds `alpha_bar[t]`, and t = -1 stands for the clean image.
Legend: B rows, `*` any further axes.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from diffusers import DDPMScheduler
from torch import Tensor

from augengine.diffusion.spec import DiffusionSpec, Parametrisation

# diffusers' names of the schedules; its cosine caps beta at 0.999 (Nichol and Dhariwal 2021, eq. 17).
_NAMES = {"linear": "linear", "scaled_linear": "scaled_linear", "cosine": "squaredcos_cap_v2"}


class Schedule:
    """Signal levels `alpha_bar` (T,) float64 of one `DiffusionSpec`."""

    def __init__(self, spec: DiffusionSpec) -> None:
        self.spec = spec
        scheduler = DDPMScheduler(num_train_timesteps=spec.timesteps, beta_schedule=_NAMES[spec.schedule])
        plain = torch.cumprod(1 - scheduler.betas.double(), 0)
        self.alpha_bar = torch.sigmoid(torch.logit(plain) - 2 * math.log(spec.shift)) if spec.shift != 1 else plain
        before = torch.cat([torch.ones(1, dtype=torch.float64), self.alpha_bar[:-1]])
        self.betas = 1 - self.alpha_bar / before

    def signal(self, t_B: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """(sqrt(alpha_bar), sqrt(1 - alpha_bar)) at `t_B`, shaped to broadcast over `like` (B, *)."""
        level = torch.where(t_B < 0, torch.ones((), dtype=torch.float64), self.alpha_bar[t_B.cpu().clamp(min=0)])
        level = level.view(-1, *[1] * (like.ndim - 1))
        return level.sqrt().to(like), (1 - level).sqrt().to(like)

    def noised(self, x0: Tensor, noise: Tensor, t_B: Tensor) -> Tensor:
        """q(x_t | x0): sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) noise."""
        a, b = self.signal(t_B, x0)
        return a * x0 + b * noise

    def timesteps(self, strength: float, steps: int) -> list[int]:
        """At most `steps` descending timesteps from strength * T - 1, evenly spaced so that the last step ends at -1.

        `steps = strength * T` gives every timestep of the chain: the paper's 50 of 1000 is (0.05, 50).
        """
        start = max(1, round(strength * self.spec.timesteps))
        steps = min(steps, start)
        return [round(v) - 1 for v in np.arange(steps, 0, -1) * (start / steps)]


def target(parametrisation: Parametrisation, schedule: Schedule, x0: Tensor, noise: Tensor, t_B: Tensor) -> Tensor:
    """What the network is trained to output at x_t; v is alpha * noise - sigma * x0 (Salimans and Ho 2022)."""
    if parametrisation == "x0":
        return x0
    if parametrisation == "epsilon":
        return noise
    a, b = schedule.signal(t_B, x0)
    return a * noise - b * x0


def clean_estimate(
    parametrisation: Parametrisation, schedule: Schedule, output: Tensor, x_t: Tensor, t_B: Tensor
) -> Tensor:
    """The x0 that an output at x_t stands for: the inverse of `target`."""
    if parametrisation == "x0":
        return output
    a, b = schedule.signal(t_B, x_t)
    if parametrisation == "epsilon":
        return (x_t - b * output) / a
    return a * x_t - b * output


def noise_estimate(schedule: Schedule, x0: Tensor, x_t: Tensor, t_B: Tensor) -> Tensor:
    """The noise that leads from `x0` to `x_t`."""
    a, b = schedule.signal(t_B, x_t)
    return (x_t - a * x0) / b
