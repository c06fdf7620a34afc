"""The forward process: a signal and a noise level per timestep, noising, and what a network's output means.

Every process here is x_t = a_t x0 + b_t noise; all code reads the pair (a_t, b_t), so that the variance-preserving
schedules (a^2 + b^2 = 1) and the straight path of rectified flow (a + b = 1) share one sampler and one loss.
Timesteps count from 0 to T-1; t = -1 stands for the clean image, a = 1 and b = 0.
Legend: B rows, `*` any further axes.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from augengine.diffusion.spec import DiffusionSpec, Parametrisation

Weighting = Literal["simple", "min_snr"]
Spacing = Literal["even", "log_snr"]

# b / a between which steps are best spent: above, an estimate is near the data's mean whatever x_t says; below, the
# step to the clean image takes little of its spread away, the less the more steps there are.
_HIGHEST, _LOWEST_TIMES_STEPS = 20.0, 0.3

_FIRST_BETA, _LAST_BETA, _LARGEST_BETA = 1e-4, 0.02, 0.999


class Schedule:
    """Levels of one `DiffusionSpec`.

    Attributes:
        a: signal levels (T + 1,) float64; the last entry, which is that of index -1, is the clean image's.
        b: noise levels, in the same form.
        alpha_bar: a^2 / (a^2 + b^2) of the T timesteps, (T,) float64; signal-to-noise ratio a^2 / b^2 in other words.
    """

    def __init__(self, spec: DiffusionSpec) -> None:
        self.spec = spec
        a, b = _rectified(spec) if spec.schedule == "rectified" else _variance_preserving(spec)
        self.a = torch.cat([a, torch.ones(1, dtype=a.dtype)])
        self.b = torch.cat([b, torch.zeros(1, dtype=b.dtype)])
        self.alpha_bar = a**2 / (a**2 + b**2)

    def signal(self, t_B: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """(a, b) at `t_B`, shaped to broadcast over `like` (B, *)."""
        return _over(like, self.a[t_B.cpu()]), _over(like, self.b[t_B.cpu()])

    def transition(self, from_B: Tensor, to_B: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """(gain, sd) of q(x_to | x_from) = N(gain x_from, sd^2), `to` the noisier; shaped to broadcast over `like`."""
        gain = self.a[to_B.cpu()] / self.a[from_B.cpu()]
        variance = self.b[to_B.cpu()] ** 2 - (gain * self.b[from_B.cpu()]) ** 2
        return _over(like, gain), _over(like, variance.clamp(min=0).sqrt())

    def noised(self, x0: Tensor, noise: Tensor, t_B: Tensor) -> Tensor:
        """q(x_t | x0): a x0 + b noise."""
        a, b = self.signal(t_B, x0)
        return a * x0 + b * noise

    def timesteps(self, strength: float, steps: int, spacing: Spacing = "even") -> list[int]:
        """At most `steps` descending timesteps from strength * T - 1; a sampler's last step leads from there to -1.

        `even` spaces them evenly in t. `steps = strength * T` gives every timestep of the chain: the paper's 50 of
        1000 is (0.05, 50). `log_snr` spaces them evenly in log(b / a) instead (Lu et al. 2022, DPM-Solver, section
        3.3), for which the multistep solvers are made: with 10 steps from noise they lose 5 to 50 % of a tissue's
        standard deviation with `even`, and get it right within 1 to 3 % with `log_snr`.
        """
        start = max(1, round(strength * self.spec.timesteps))
        steps = min(steps, start)
        if spacing == "even":
            return [round(v) - 1 for v in np.arange(steps, 0, -1) * (start / steps)]
        ratio = (self.b / self.a)[:start].numpy()
        high = min(ratio[-1], _HIGHEST)
        wanted = np.geomspace(high, max(ratio[0], min(_LOWEST_TIMES_STEPS / steps, high / 10)), steps)
        nearest = np.abs(np.log(ratio) - np.log(wanted)[:, None]).argmin(axis=1)
        return sorted({start - 1, *nearest[1:].tolist()}, reverse=True)


def ending_signal(spec: DiffusionSpec) -> float:
    """Signal relative to noise at the last timestep; 0 where the process ends in pure noise."""
    schedule = Schedule(spec)
    return float(schedule.a[-2] / schedule.b[-2])


def lost_mean(signal: float, pixels: int, spread: float = 0.3) -> float:
    """Share of an image's mean level that sampling from pure noise loses towards the data's mean, from 0 to 1.

    Where the last timestep keeps a `signal` (relative to noise), the mean of an image of many pixels still stands out
    of the noise there; pure noise has none, and the sampler believes it (Lin et al. 2024, section 1). Of levels with
    this standard deviation a deterministic sampler gives back the share 1 / sqrt(1 + pixels (signal spread)^2). On
    intensities from -1 to 1, with the 0.068 of Stable Diffusion's schedule, an image of level -0.65 comes out 0.25 too
    bright at 64 x 64 pixels and 0.53 at 256 x 256.
    """
    return 1 - 1 / math.sqrt(1 + pixels * (signal * spread) ** 2)


def target(parametrisation: Parametrisation, schedule: Schedule, x0: Tensor, noise: Tensor, t_B: Tensor) -> Tensor:
    """What the network is trained to output at x_t.

    `v` is a noise - b x0 (Salimans and Ho 2022); `flow` is d x_t / ds = noise - x0 (Liu et al. 2023; Lipman et al.
    2023).
    """
    if parametrisation == "x0":
        return x0
    if parametrisation == "epsilon":
        return noise
    if parametrisation == "flow":
        return noise - x0
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
    if parametrisation == "flow":
        return x_t - b * output
    return a * x_t - b * output


def noise_estimate(schedule: Schedule, x0: Tensor, x_t: Tensor, t_B: Tensor) -> Tensor:
    """The noise that leads from `x0` to `x_t`."""
    a, b = schedule.signal(t_B, x_t)
    return (x_t - a * x0) / b


def posterior(schedule: Schedule, x0: Tensor, x_t: Tensor, t_B: Tensor, prev_B: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (B, *) and variance (broadcasting over it) of q(x_prev | x_t, x0) for any earlier timestep `prev_B`.

    Ho et al. 2020, eq. 7, for prev = t - 1 of a variance-preserving schedule:
    mean = [sqrt(ab_prev) beta_t x0 + sqrt(alpha_t) (1 - ab_prev) x_t] / (1 - ab_t), where ab is alpha_bar. Line 6 of
    paper 000's algorithm 1 draws beta_t and 1 - ab_prev under the roots, which scales the image at every step.
    Below the same in terms of the levels, which holds for strided steps and for rectified flow, too.
    """
    (a, b), (prev_a, prev_b) = schedule.signal(t_B, x_t), schedule.signal(prev_B, x_t)
    gain, sd = schedule.transition(prev_B, t_B, x_t)
    mean = prev_a * x0 + gain * (prev_b / b) ** 2 * (x_t - a * x0)
    return mean, (prev_b * sd / b) ** 2


def loss_weight(spec: DiffusionSpec, schedule: Schedule, t_B: Tensor, weighting: Weighting, gamma: float) -> Tensor:
    """Weight (B,) float32 of each row's squared error in the network's own output.

    `min_snr` is min(SNR, gamma) on the error of x0 (Hang et al. 2023, eq. 7). An error in x0 appears in epsilon
    SNR-fold and in v and flow 1 / b^2-fold (for v that is SNR + 1), so their weights are divided by as much. Where
    no signal is left the weight is 0.
    """
    if weighting == "simple":
        return torch.ones(len(t_B))
    a, b = schedule.a[t_B.cpu()], schedule.b[t_B.cpu()]
    snr = (a / b) ** 2
    scale = {"x0": torch.ones_like(b), "epsilon": snr, "v": b**-2, "flow": b**-2}[spec.parametrisation]
    return (snr.clamp(max=gamma) / scale).float()


def _variance_preserving(spec: DiffusionSpec) -> tuple[Tensor, Tensor]:
    alpha_bar = torch.cumprod(1 - _betas(spec).double(), 0)
    if spec.shift != 1:
        alpha_bar = torch.sigmoid(torch.logit(alpha_bar) - 2 * math.log(spec.shift))
    a = alpha_bar.sqrt()
    if spec.zero_terminal_snr:  # Lin et al. 2024, algorithm 1: the last level becomes 0, the first stays
        a = (a - a[-1]) * a[0] / (a[0] - a[-1])
    return a, (1 - a**2).sqrt()


def _betas(spec: DiffusionSpec) -> Tensor:
    """(T,) float32: linear (Ho et al. 2020), linear in the roots (Rombach et al. 2022), or Nichol and Dhariwal's cosine
    (2021, eq. 17).
    """
    if spec.schedule == "linear":
        return torch.linspace(_FIRST_BETA, _LAST_BETA, spec.timesteps)
    if spec.schedule == "scaled_linear":
        return torch.linspace(_FIRST_BETA**0.5, _LAST_BETA**0.5, spec.timesteps) ** 2
    levels = [math.cos((t / spec.timesteps + 0.008) / 1.008 * math.pi / 2) ** 2 for t in range(spec.timesteps + 1)]
    return torch.tensor([min(1 - b / a, _LARGEST_BETA) for a, b in pairwise(levels)])


def _rectified(spec: DiffusionSpec) -> tuple[Tensor, Tensor]:
    s = torch.arange(1, spec.timesteps + 1, dtype=torch.float64) / spec.timesteps
    s = spec.shift * s / (1 + (spec.shift - 1) * s)  # Esser et al. 2024, eq. 23
    return 1 - s, s


def _over(like: Tensor, levels_B: Tensor) -> Tensor:
    return levels_B.view(-1, *[1] * (like.ndim - 1)).to(like)
