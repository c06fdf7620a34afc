"""From a noisy image to a clean one: DDPM, DDIM and DPM-Solver++ over one denoiser, and DDIM run backwards.

A denoiser is any `denoise(x_t, t_B) -> x0`; guidance and conditions are already inside it.
Noise comes from one generator per row, so a row does not depend on its neighbours.
Legend: B rows, `*` any further axes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

import torch
from diffusers import DDPMScheduler, DPMSolverMultistepScheduler
from torch import Tensor

from augengine.diffusion.schedules import Schedule, noise_estimate

Denoiser = Callable[[Tensor, Tensor], Tensor]
Solver = Literal["ddpm", "ddim", "dpmpp_2m", "dpmpp_2m_sde"]


def row_generators(seeds: Sequence[int]) -> list[torch.Generator]:
    """One CPU generator per row; a CPU stream is the same whatever device the network runs on."""
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def row_noise(like: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """Standard normal noise (B, *) in the shape of `like`, row b from `generators[b]`."""
    return torch.stack([torch.randn(like.shape[1:], generator=g) for g in generators]).to(like)


def sample(
    denoise: Denoiser,
    x_t: Tensor,
    timesteps: Sequence[int],
    schedule: Schedule,
    solver: Solver,
    generators: Sequence[torch.Generator],
) -> Tensor:
    """The clean image (B, *) reached from `x_t`, noisy at `timesteps[0]`, by descending `timesteps`."""
    if solver == "ddim":
        return ddim(denoise, x_t, [*timesteps, -1], schedule)
    stepper = _stepper(solver, schedule)
    stepper.set_timesteps(timesteps=list(timesteps))
    for t in timesteps:
        x0 = denoise(x_t, torch.full((len(x_t),), t, dtype=torch.long))
        x_t = stepper.step(x0, t, x_t, generator=list(generators)).prev_sample
    return x_t


def ddim(denoise: Denoiser, x_t: Tensor, timesteps: Sequence[int], schedule: Schedule) -> Tensor:
    """Deterministic DDIM (Song et al. 2021, eq. 12 with sigma = 0) along `timesteps`; -1 is the clean image."""
    for now, then in pairwise(timesteps):
        t_B, next_B = (torch.full((len(x_t),), v, dtype=torch.long) for v in (now, then))
        x0 = denoise(x_t, t_B)
        x_t = schedule.noised(x0, noise_estimate(schedule, x0, x_t, t_B), next_B)
    return x_t


def ddim_inverse(denoise: Denoiser, x0: Tensor, timesteps: Sequence[int], schedule: Schedule) -> Tensor:
    """The x_t at `timesteps[0]` from which `ddim` returns to `x0`; `timesteps` descend, as for sampling.

    The step up to t needs the denoiser at t, where x_t is not known yet; the noise is first estimated at the lower
    level's image and then once more at the x_t that this gives (one fixed-point iteration of the implicit step).
    """
    x_t, level = x0, -1
    for t in reversed(timesteps):
        from_B, to_B = (torch.full((len(x0),), v, dtype=torch.long) for v in (level, t))
        a, b = schedule.signal(from_B, x0)
        up_a, up_b = schedule.signal(to_B, x0)
        guess = x_t
        for _ in range(2):
            noise = noise_estimate(schedule, denoise(guess, to_B), guess, to_B)
            guess = up_a * (x_t - b * noise) / a + up_b * noise
        x_t, level = guess, t
    return x_t


def _stepper(solver: Solver, schedule: Schedule) -> DDPMScheduler | DPMSolverMultistepScheduler:
    common = {
        "num_train_timesteps": schedule.spec.timesteps,
        "trained_betas": schedule.betas.numpy(),
        "prediction_type": "sample",
    }
    if solver == "ddpm":
        return DDPMScheduler(**common, clip_sample=False)
    kind = "sde-dpmsolver++" if solver == "dpmpp_2m_sde" else "dpmsolver++"
    return DPMSolverMultistepScheduler(**common, algorithm_type=kind, solver_order=2, lower_order_final=True)
