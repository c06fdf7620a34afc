import pytest
import torch
from torch import Tensor

from augengine.diffusion.samplers import ddim, ddpm, reverse_step, row_generators, row_noise, sample
from augengine.diffusion.schedules import Schedule, posterior
from augengine.diffusion.spec import DiffusionSpec

SCHEDULE = Schedule(DiffusionSpec(parametrisation="x0", schedule="cosine"))
SOLVERS = ("ddpm", "ddim", "dpmpp_2m", "dpmpp_2m_sde", "unipc")


def bounded(x_t: Tensor, t_B: Tensor) -> Tensor:
    """Some nonlinear denoiser."""
    return torch.tanh(2 * x_t) * (1 - t_B.view(-1, *[1] * (x_t.ndim - 1)) / 2000)


def test_a_row_has_its_own_noise() -> None:
    like = torch.empty(3, 1, 4, 4)
    noise = row_noise(like, row_generators([5, 6, 7]))
    alone = row_noise(like[:1], row_generators([6]))
    assert torch.equal(noise[1], alone[0])
    assert not torch.equal(noise[0], noise[1])


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("shape", [(1, 6, 6), (2, 3, 4, 5)])
def test_a_row_does_not_depend_on_its_neighbours(solver: str, shape: tuple[int, ...]) -> None:
    x = torch.randn(3, *shape, generator=torch.Generator().manual_seed(1))
    timesteps = SCHEDULE.timesteps(0.8, 6)
    first = sample(bounded, x, timesteps, SCHEDULE, solver, row_generators([1, 2, 3]))
    turned = sample(bounded, x[[2, 0, 1]], timesteps, SCHEDULE, solver, row_generators([3, 9, 2]))
    assert torch.equal(first[2], turned[0])
    assert torch.equal(first[0], turned[1]) == (solver in ("ddim", "dpmpp_2m", "unipc"))


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_last_step_ends_at_the_estimate_and_sees_the_lowest_timestep(solver: str) -> None:
    seen: list[int] = []

    def constant(x_t: Tensor, t_B: Tensor) -> Tensor:
        seen.append(int(t_B[0]))
        return torch.full_like(x_t, 0.25)

    timesteps = [700, 300, 40, 3]
    end = sample(constant, torch.randn(2, 1, 3, 3), timesteps, SCHEDULE, solver, row_generators([0, 1]))
    assert seen == timesteps
    torch.testing.assert_close(end, torch.full_like(end, 0.25))


def test_a_stochastic_step_is_a_draw_from_the_posterior() -> None:
    x0, x_t, noise = torch.randn(3, 2, 1, 4, 4)
    mean, variance = posterior(SCHEDULE, x0, x_t, torch.tensor([500, 500]), torch.tensor([420, 420]))
    torch.testing.assert_close(reverse_step(SCHEDULE, x0, x_t, 500, 420, noise), mean + variance**0.5 * noise)
    assert torch.equal(reverse_step(SCHEDULE, x0, x_t, 500, -1, noise), x0)


def test_ddpm_and_ddim_part_only_by_noise() -> None:
    x = torch.randn(2, 1, 4, 4)
    for timesteps, equal in (([400, -1], True), ([400, 200, -1], False)):
        noisy = ddpm(bounded, x, timesteps, SCHEDULE, row_generators([0, 1]))
        assert torch.equal(noisy, ddim(bounded, x, timesteps, SCHEDULE)) == equal
