"""The diffusion mathematics against closed forms.

A Gaussian data distribution has a known best denoiser, under which x_t stays Gaussian: a solver without noise then
multiplies deviations from the mean by one number, so that its error in the standard deviation is exact to compute.
"""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from augengine.diffusion.samplers import Denoiser, ddim, ddim_inverse, row_generators, row_noise, sample, spacing_of
from augengine.diffusion.schedules import Schedule, clean_estimate, noise_estimate, posterior, target
from augengine.diffusion.spec import DiffusionSpec

# About those of tissue, where the 10th percentile is 0 and the 99th is 1.
MEAN, SD = 0.4, 0.3

SPECS = {
    "linear": DiffusionSpec(parametrisation="epsilon", schedule="linear"),
    "scaled_linear": DiffusionSpec(parametrisation="epsilon", schedule="scaled_linear"),
    "cosine": DiffusionSpec(parametrisation="x0", schedule="cosine"),
    "shifted": DiffusionSpec(parametrisation="v", schedule="cosine", shift=3),
    "zero_snr": DiffusionSpec(parametrisation="v", schedule="linear", zero_terminal_snr=True),
    "zero_snr_x0": DiffusionSpec(parametrisation="x0", schedule="cosine", zero_terminal_snr=True),
    "flow": DiffusionSpec(parametrisation="flow", schedule="rectified"),
    "shifted_flow": DiffusionSpec(parametrisation="flow", schedule="rectified", shift=3),
}
SCHEDULES = {name: Schedule(spec) for name, spec in SPECS.items()}


def gaussian(schedule: Schedule, mean: float = MEAN, sd: float = SD) -> Denoiser:
    """E[x0 | x_t] for x0 ~ N(mean, sd**2), by way of what the best network of the parametrisation puts out."""
    kind = schedule.spec.parametrisation

    def denoise(x_t: Tensor, t_B: Tensor) -> Tensor:
        a, b = schedule.signal(t_B, x_t)
        x0 = mean + a * sd**2 / (a**2 * sd**2 + b**2) * (x_t - a * mean)
        output = target(kind, schedule, x0, noise_estimate(schedule, x0, x_t, t_B), t_B)
        return clean_estimate(kind, schedule, output, x_t, t_B)

    return denoise


def sd_error(schedule: Schedule, solver: str, timesteps: list[int], sd: float = SD) -> float:
    """Relative error of a noiseless solver's standard deviation, from what it makes of one that starts at 1."""
    x_t = torch.full((1, 1, 1), float(schedule.b[timesteps[0]]), dtype=torch.float64)
    return float(sample(gaussian(schedule, 0.0, sd), x_t, timesteps, schedule, solver, [])) / sd - 1


def ddpm_sd_error(schedule: Schedule, sd: float) -> float:
    """That of DDPM over every timestep: variance is multiplied by the step's gain squared, then added to."""
    one, denoise, variance = torch.ones(1, 1, dtype=torch.float64), gaussian(schedule, 0.0, sd), 1.0
    for t in reversed(range(schedule.spec.timesteps)):
        t_B = torch.tensor([t])
        gain, added = posterior(schedule, denoise(one, t_B), one, t_B, t_B - 1)
        variance = float(gain) ** 2 * variance + float(added)
    return variance**0.5 / sd - 1


def two_tissues(schedule: Schedule) -> Denoiser:
    """E[x0 | x_t] for x0 ~ half N(0.2, 0.1**2), half N(0.9, 0.1**2): not linear in x_t."""

    def denoise(x_t: Tensor, t_B: Tensor) -> Tensor:
        a, b = schedule.signal(t_B, x_t)
        variance = a**2 * 0.1**2 + b**2
        residual = torch.stack([x_t - a * mean for mean in (0.2, 0.9)])
        share = torch.softmax(-(residual**2) / (2 * variance), 0)
        means = torch.tensor([0.2, 0.9]).to(x_t).view(-1, *[1] * x_t.ndim)
        return (share * (means + a * 0.1**2 / variance * residual)).sum(0)

    return denoise


@pytest.mark.parametrize("t", [1, 10, 500, 999])
def test_posterior_is_the_textbook_one(t: int) -> None:
    s = SCHEDULES["linear"]
    x0, x_t = torch.randn(2, 3, 1, 4, 4, dtype=torch.float64)
    mean, variance = posterior(s, x0, x_t, torch.full((3,), t), torch.full((3,), t - 1))
    level, before = float(s.alpha_bar[t]), float(s.alpha_bar[t - 1])
    alpha, beta = level / before, 1 - level / before
    wanted = (before**0.5 * beta * x0 + alpha**0.5 * (1 - before) * x_t) / (1 - level)  # Ho et al. 2020, eq. 7
    torch.testing.assert_close(mean, wanted)
    assert float(variance[0]) == pytest.approx((1 - before) / (1 - level) * beta)


def test_the_printed_posterior_of_paper_000_scales_the_image() -> None:
    s, one, t = SCHEDULES["linear"], torch.ones(1, 1, dtype=torch.float64), torch.tensor([10])
    level, before = float(s.alpha_bar[10]), float(s.alpha_bar[9])
    beta = 1 - level / before
    printed = ((before * beta) ** 0.5 + (level * (1 - before)) ** 0.5) / (1 - level)  # algorithm 1, line 6
    assert printed == pytest.approx(27.7, abs=0.05)
    assert float(posterior(s, one, one, t, t - 1)[0]) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("name", ["linear", "shifted", "flow", "zero_snr"])
@pytest.mark.parametrize(("t", "prev"), [(500, 499), (800, 350), (999, 600)])
def test_posterior_is_what_the_forward_process_leaves(name: str, t: int, prev: int) -> None:
    s, rows = SCHEDULES[name], 200_000
    t_B, prev_B = torch.full((rows,), t), torch.full((rows,), prev)
    x0, (z1, z2) = torch.full((rows, 1), 0.8), torch.randn(2, rows, 1, generator=torch.Generator().manual_seed(t))
    x_prev = s.noised(x0, z1, prev_B)
    gain, sd = s.transition(prev_B, t_B, x_prev)
    x_t = gain * x_prev + sd * z2
    a, b = s.signal(t_B[:1], x_t)
    assert float((x_t - a * x0).std()) == pytest.approx(float(b), rel=0.01)
    mean, variance = posterior(s, x0, x_t, t_B, prev_B)
    error = x_prev - mean
    assert float(error.mean()) == pytest.approx(0, abs=0.01)
    assert float(error.var()) == pytest.approx(float(variance[0]), rel=0.02)
    assert float((error * (x_t - x_t.mean())).mean()) == pytest.approx(0, abs=0.01)


def test_posterior_of_the_clean_image_is_the_clean_image() -> None:
    x0, x_t = torch.randn(2, 2, 1, 4)
    mean, variance = posterior(SCHEDULES["flow"], x0, x_t, torch.tensor([3, 999]), torch.tensor([-1, -1]))
    assert torch.equal(mean, x0)
    assert not variance.any()


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize(
    ("solver", "steps", "spacing"),
    [
        ("ddpm", 1000, "even"),
        ("ddim", 1000, "even"),
        ("ddim", 200, "log_snr"),
        ("dpmpp_2m", 20, "log_snr"),
        ("dpmpp_2m_sde", 200, "log_snr"),
        ("unipc", 20, "log_snr"),
    ],
)
def test_every_solver_reaches_the_distribution(name: str, solver: str, steps: int, spacing: str) -> None:
    s, generators = SCHEDULES[name], row_generators(range(8))
    timesteps = s.timesteps(1.0, steps, spacing)
    start = row_noise(torch.empty(8, 1, 32, 64), generators) * float(s.b[timesteps[0]])
    end = sample(gaussian(s), start, timesteps, s, solver, generators)
    # 16384 draws: standard errors 0.0023 of the mean and 0.55 % of the standard deviation.
    assert float(end.mean()) == pytest.approx(MEAN, abs=0.009)
    assert float(end.std()) == pytest.approx(SD, rel=0.04)


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize(("solver", "order"), [("ddim", 1), ("dpmpp_2m", 2), ("unipc", 2)])
def test_errors_fall_with_the_order_of_the_solver(name: str, solver: str, order: int) -> None:
    s = SCHEDULES[name]
    errors = [abs(sd_error(s, solver, s.timesteps(1.0, steps, "log_snr"), 0.5)) for steps in (10, 20, 40)]
    assert errors[-1] < {1: 0.06, 2: 0.003}[order]
    for coarse, fine in pairwise(errors):
        assert fine < coarse / (1.5 if order == 1 else 1.8)


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("solver", ["dpmpp_2m", "unipc"])
def test_multistep_solvers_need_timesteps_even_in_log_snr(name: str, solver: str) -> None:
    s = SCHEDULES[name]
    even, log_snr = (sd_error(s, solver, s.timesteps(1.0, 10, spacing)) for spacing in ("even", "log_snr"))
    assert -0.55 < even < -0.04
    assert abs(log_snr) < 0.03


@pytest.mark.parametrize("name", ["cosine", "flow"])
@pytest.mark.parametrize("solver", ["ddpm", "ddim", "dpmpp_2m", "dpmpp_2m_sde", "unipc"])
def test_a_chain_may_start_half_way(name: str, solver: str) -> None:
    s, generators = SCHEDULES[name], row_generators(range(8))
    timesteps = s.timesteps(0.5, 400, "log_snr")
    x0 = MEAN + SD * row_noise(torch.empty(8, 1, 32, 64), generators)
    start = s.noised(x0, row_noise(x0, generators), torch.full((8,), timesteps[0]))
    end = sample(gaussian(s), start, timesteps, s, solver, generators)
    assert float(end.mean()) == pytest.approx(MEAN, abs=0.009)
    assert float(end.std()) == pytest.approx(SD, rel=0.03)


@pytest.mark.parametrize("sd", [0.2, 0.3])
def test_ten_steps_of_dpmpp_are_within_the_error_of_a_thousand_of_ddpm(sd: float) -> None:
    s = SCHEDULES["linear"]
    assert abs(sd_error(s, "dpmpp_2m", s.timesteps(1.0, 10, "log_snr"), sd)) < abs(ddpm_sd_error(s, sd)) < 0.02
    assert abs(sd_error(s, "ddim", s.timesteps(1.0, 10), sd)) > 0.1


@pytest.mark.parametrize("name", SPECS)
def test_inversion_then_sampling_returns_the_input(name: str) -> None:
    s = SCHEDULES[name]
    denoise, timesteps = gaussian(s), s.timesteps(0.9, 200, "log_snr")
    x0 = MEAN + SD * torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    x_t = ddim_inverse(denoise, x0, timesteps, s)
    assert float((ddim(denoise, x_t, [*timesteps, -1], s) - x0).abs().max()) < 0.01
    # and the way there leads to where x0 is noised as much as the timestep says
    a, b = s.signal(torch.tensor(timesteps[:1]), x0)
    spread = float((a**2 * SD**2 + b**2).sqrt())
    assert float((x_t - a * MEAN).std()) == pytest.approx(spread * float((x0 - MEAN).std()) / SD, rel=0.03)


@pytest.mark.parametrize("name", SPECS)
def test_few_steps_of_inversion_keep_the_contrast(name: str) -> None:
    s = SCHEDULES[name]
    timesteps = s.timesteps(0.9, 15)
    x0 = MEAN + SD * torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    back = ddim(gaussian(s), ddim_inverse(gaussian(s), x0, timesteps, s), [*timesteps, -1], s)
    assert float((back - back.mean()).std() / (x0 - x0.mean()).std()) == pytest.approx(1, abs=0.01)


def test_rounds_of_the_inversion_do_not_depend_on_neighbours() -> None:
    s = SCHEDULES["cosine"]
    timesteps, denoise = s.timesteps(0.8, 8), two_tissues(s)
    x0 = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(1)) * torch.tensor([1.0, 0.1, 2.0]).view(
        3, 1, 1, 1
    )
    together = ddim_inverse(denoise, x0, timesteps, s)
    for n in range(3):
        assert torch.equal(together[n : n + 1], ddim_inverse(denoise, x0[n : n + 1], timesteps, s))


@pytest.mark.parametrize("name", ["linear", "cosine", "flow"])
def test_inversion_returns_to_the_input_of_a_denoiser_that_is_not_linear(name: str) -> None:
    s = SCHEDULES[name]
    denoise, x0 = two_tissues(s), torch.cat([torch.linspace(0, 0.4, 32), torch.linspace(0.7, 1.1, 32)]).view(1, 1, 64)
    for steps in (25, 100):
        timesteps = s.timesteps(0.75, steps, "log_snr")
        back = ddim(denoise, ddim_inverse(denoise, x0, timesteps, s), [*timesteps, -1], s)
        assert float((back - x0).abs().max()) < 0.003


def test_an_inversion_that_swings_about_its_solution_arrives() -> None:
    """A long step with an estimate this steep: undamped, every round goes 1.4 times as far astray."""
    s = SCHEDULES["linear"]
    timesteps = [s.spec.timesteps * 6 // 10, s.spec.timesteps // 10]
    (a, b), (up_a, up_b) = (s.signal(torch.tensor([t]), torch.zeros(1)) for t in reversed(timesteps))
    slope = float((1 + 1.4 / (1 - up_a * b / (a * up_b))) / up_a)

    def denoise(x_t: Tensor, t_B: Tensor) -> Tensor:
        return x_t * (slope if int(t_B[0]) == timesteps[0] else 0.9)

    x0 = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    back = ddim(denoise, ddim_inverse(denoise, x0, timesteps, s), [*timesteps, -1], s)
    assert float((back - x0).abs().max()) < 0.02


@pytest.mark.parametrize(("solver", "steps"), [("ddpm", 1000), ("dpmpp_2m", 20), ("dpmpp_2m_sde", 100), ("unipc", 20)])
def test_two_tissues_are_both_drawn(solver: str, steps: int) -> None:
    s, generators = SCHEDULES["cosine"], row_generators(range(4))
    timesteps = s.timesteps(1.0, steps, "even" if steps == 1000 else "log_snr")
    start = row_noise(torch.empty(4, 1, 32, 64), generators)
    end = sample(two_tissues(s), start, timesteps, s, solver, generators)
    fat = end > 0.55
    assert float(fat.float().mean()) == pytest.approx(0.5, abs=0.025)
    assert float(end[fat].mean()) == pytest.approx(0.9, abs=0.01)
    assert float(end[~fat].std()) == pytest.approx(0.1, rel=0.05)


@pytest.mark.parametrize("strength", [0.05, 0.5])
@pytest.mark.parametrize(("solver", "steps", "most"), [("dpmpp_2m", 10, 0.03), ("unipc", 10, 0.03), ("ddim", 10, None)])
def test_ten_steps_of_a_second_order_solver_make_the_edit_of_fifty(
    solver: str, steps: int, most: float | None, strength: float
) -> None:
    """Differences are relative to the edit; ddim's of ten steps exceed the bound, or it would test nothing."""
    s = SCHEDULES["cosine"]
    noise = torch.Generator().manual_seed(0)
    source = 0.25 + 0.5 * (torch.rand(1, 4096, generator=noise, dtype=torch.float64) > 0.5)
    drawn = torch.randn(1, 4096, generator=noise, dtype=torch.float64)

    def made(name: str, n: int) -> Tensor:
        timesteps = s.timesteps(strength, n, spacing_of(name))
        x_t = s.noised(source, drawn, torch.tensor([timesteps[0]]))
        return sample(two_tissues(s), x_t, timesteps, s, name, [])

    wanted = made("dpmpp_2m", 50)
    difference = float((made(solver, steps) - wanted).square().mean().sqrt() / (wanted - source).square().mean().sqrt())
    assert difference <= most if most else difference > 0.03
