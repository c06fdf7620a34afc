"""A Gaussian data distribution has a known best denoiser, so the samplers can be held against theory."""

import pytest
import torch
from torch import Tensor

from augengine.diffusion.samplers import ddim, ddim_inverse, row_generators, row_noise, sample
from augengine.diffusion.schedules import Schedule
from augengine.diffusion.spec import DiffusionSpec

MEAN, SD = 0.7, 0.3
SCHEDULE = Schedule(DiffusionSpec(parametrisation="x0", schedule="cosine"))


def gaussian(x_t: Tensor, t_B: Tensor) -> Tensor:
    """E[x0 | x_t] for x0 ~ N(MEAN, SD**2)."""
    a, b = SCHEDULE.signal(t_B, x_t)
    return MEAN + a * SD**2 / (a**2 * SD**2 + b**2) * (x_t - a * MEAN)


@pytest.mark.parametrize(("solver", "steps"), [("ddpm", 1000), ("ddim", 200), ("dpmpp_2m", 20), ("dpmpp_2m_sde", 100)])
def test_every_solver_reaches_the_distribution(solver: str, steps: int) -> None:
    generators = row_generators(range(4))
    start = row_noise(torch.empty(4, 1, 64, 64), generators)
    end = sample(gaussian, start, SCHEDULE.timesteps(1.0, steps), SCHEDULE, solver, generators)
    assert float(end.mean()) == pytest.approx(MEAN, abs=0.01)
    assert float(end.std()) == pytest.approx(SD, rel=0.04)


def test_inversion_then_sampling_returns_the_input() -> None:
    x0 = MEAN + SD * torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    timesteps = SCHEDULE.timesteps(0.9, 100)
    x_t = ddim_inverse(gaussian, x0, timesteps, SCHEDULE)
    back = ddim(gaussian, x_t, [*timesteps, -1], SCHEDULE)
    assert float((back - x0).abs().max()) < 0.01
    # and the way there leads to where x0 is noised as much as the timestep says
    a, b = SCHEDULE.signal(torch.tensor(timesteps[:1]), x0)
    spread = float((a**2 * SD**2 + b**2).sqrt())
    assert float((x_t - a * MEAN).std()) == pytest.approx(spread * float((x0 - MEAN).std()) / SD, rel=0.03)


def test_a_row_has_its_own_noise() -> None:
    like = torch.empty(3, 1, 4, 4)
    noise = row_noise(like, row_generators([5, 6, 7]))
    alone = row_noise(like[:1], row_generators([6]))
    assert torch.equal(noise[1], alone[0])
    assert not torch.equal(noise[0], noise[1])
