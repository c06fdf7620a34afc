from itertools import pairwise

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from pydantic import ValidationError

from augengine.diffusion.samplers import ddim
from augengine.diffusion.schedules import (
    Schedule,
    clean_estimate,
    ending_signal,
    loss_weight,
    lost_mean,
    noise_estimate,
    target,
)
from augengine.diffusion.spec import DiffusionSpec


def spec(parametrisation: str, **settings: object) -> DiffusionSpec:
    name = "rectified" if parametrisation == "flow" else "cosine"
    return DiffusionSpec.model_validate({"parametrisation": parametrisation, "schedule": name, **settings})


def schedule(name: str, timesteps: int = 1000, **settings: object) -> Schedule:
    kind = "flow" if name == "rectified" else "x0"
    return Schedule(spec(kind, schedule=name, timesteps=timesteps, **settings))


def test_schedules_follow_their_closed_forms() -> None:
    t = np.arange(1000)
    linear = np.cumprod(1 - np.linspace(1e-4, 2e-2, 1000))
    scaled = np.cumprod(1 - np.linspace(1e-4**0.5, 2e-2**0.5, 1000) ** 2)

    def f(u: np.ndarray) -> np.ndarray:
        return np.cos((u / 1000 + 0.008) / 1.008 * np.pi / 2) ** 2

    cosine = np.cumprod(1 - np.minimum(1 - f(t + 1) / f(t), 0.999))
    for name, wanted in (("linear", linear), ("scaled_linear", scaled), ("cosine", cosine)):
        np.testing.assert_allclose(schedule(name).alpha_bar, wanted, rtol=2e-3, atol=1e-7)
        np.testing.assert_allclose(schedule(name).a[:-1] ** 2, wanted, rtol=2e-3, atol=1e-7)
    flow = schedule("rectified")
    np.testing.assert_allclose(flow.b[:-1], (t + 1) / 1000)
    np.testing.assert_allclose(flow.a + flow.b, 1)


@pytest.mark.parametrize("name", ["linear", "cosine", "rectified"])
def test_before_the_first_timestep_lies_the_clean_image(name: str) -> None:
    s = schedule(name)
    a, b = s.signal(torch.tensor([-1, 0]), torch.empty(2, 1, 3))
    assert (float(a[0]), float(b[0])) == (1.0, 0.0)
    assert float(b[1]) > 0


@pytest.mark.parametrize("name", ["cosine", "rectified"])
def test_shift_multiplies_the_ratio_of_noise_to_signal(name: str) -> None:
    plain, shifted = schedule(name), schedule(name, shift=3.0)
    ratio = (shifted.b / shifted.a)[:999] / (plain.b / plain.a)[:999]
    np.testing.assert_allclose(ratio, 3, rtol=1e-6)
    s = plain.b[:-1]
    if name == "rectified":
        np.testing.assert_allclose(shifted.b[:-1], 3 * s / (1 + 2 * s))


@pytest.mark.parametrize("name", ["linear", "scaled_linear", "cosine"])
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_zero_terminal_snr_keeps_the_first_level_and_loses_the_last(name: str, shift: float) -> None:
    plain, rescaled = schedule(name, shift=shift), schedule(name, shift=shift, zero_terminal_snr=True)
    assert float(rescaled.a[999]) == 0
    assert float(rescaled.a[0]) == pytest.approx(float(plain.a[0]))
    steps = plain.a[:-2] - plain.a[1:-1], rescaled.a[:-2] - rescaled.a[1:-1]
    np.testing.assert_allclose(steps[1] / steps[0], float(rescaled.a[0] / (plain.a[0] - plain.a[999])), rtol=1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"parametrisation": "epsilon", "schedule": "linear", "zero_terminal_snr": True}, "needs x0 or v"),
        ({"parametrisation": "flow", "schedule": "cosine"}, "belong together"),
        ({"parametrisation": "x0", "schedule": "rectified"}, "belong together"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DiffusionSpec.model_validate(settings)


@pytest.mark.parametrize("parametrisation", ["x0", "epsilon", "v", "flow"])
def test_the_exact_output_stands_for_the_clean_image(parametrisation: str) -> None:
    torch.manual_seed(0)
    s = Schedule(spec(parametrisation))
    x0, noise = torch.randn(2, 5, 1, 4, 4).double()
    t_B = torch.tensor([0, 10, 400, 700, 950])
    x_t = s.noised(x0, noise, t_B)
    output = target(parametrisation, s, x0, noise, t_B)
    torch.testing.assert_close(clean_estimate(parametrisation, s, output, x_t, t_B), x0, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(noise_estimate(s, x0, x_t, t_B), noise, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("parametrisation", ["x0", "v", "flow"])
def test_an_image_follows_from_the_output_where_no_signal_is_left(parametrisation: str) -> None:
    s = Schedule(spec(parametrisation, zero_terminal_snr=True))
    x0, noise, t_B = torch.randn(2, 1, 4), torch.randn(2, 1, 4), torch.tensor([999, 999])
    x_t = s.noised(x0, noise, t_B)
    assert torch.equal(x_t, noise)
    output = target(parametrisation, s, x0, noise, t_B)
    torch.testing.assert_close(clean_estimate(parametrisation, s, output, x_t, t_B), x0)


def test_v_is_the_velocity_of_the_angle_and_flow_that_of_the_straight_path() -> None:
    s = schedule("cosine")
    x0, noise, t_B = torch.tensor([[2.0]]), torch.tensor([[3.0]]), torch.tensor([300])
    a, b = s.alpha_bar[300].sqrt(), (1 - s.alpha_bar[300]).sqrt()
    assert float(target("v", s, x0, noise, t_B)) == pytest.approx(float(a * 3 - b * 2))
    straight = schedule("rectified").noised(x0.double(), noise.double(), torch.tensor([[300], [301]]).flatten())
    slope = float(straight[1] - straight[0]) * 1000
    assert float(target("flow", s, x0, noise, t_B)) == pytest.approx(slope) == pytest.approx(1)


@pytest.mark.parametrize("parametrisation", ["x0", "epsilon", "v", "flow"])
def test_min_snr_weighs_the_same_error_of_the_image_alike(parametrisation: str) -> None:
    settings = spec(parametrisation)
    s, t_B = Schedule(settings), torch.tensor([0, 50, 300, 700, 950])
    x0, wrong, noise = torch.randn(3, 5, 1, 64, dtype=torch.float64)
    x_t = s.noised(x0, noise, t_B)
    outputs = [target(parametrisation, s, x, noise_estimate(s, x, x_t, t_B), t_B) for x in (x0, wrong)]
    loss_B = (outputs[1] - outputs[0]).square().mean((1, 2)) * loss_weight(settings, s, t_B, "min_snr", 5.0)
    snr = (s.a / s.b)[t_B] ** 2
    wanted = snr.clamp(max=5.0) * (wrong - x0).square().mean((1, 2))
    torch.testing.assert_close(loss_B, wanted, rtol=1e-4, atol=1e-6)


def test_simple_weights_are_one_and_no_signal_has_no_weight() -> None:
    settings, t_B = spec("v", zero_terminal_snr=True), torch.tensor([0, 999])
    s = Schedule(settings)
    assert loss_weight(settings, s, t_B, "simple", 5.0).tolist() == [1, 1]
    assert loss_weight(settings, s, t_B, "min_snr", 5.0)[1] == 0


def test_the_paper_setting_takes_every_one_of_the_first_fifty_timesteps() -> None:
    assert schedule("cosine").timesteps(strength=0.05, steps=50) == list(range(49, -1, -1))


def test_fewer_steps_start_at_the_strength_and_are_even() -> None:
    assert schedule("cosine").timesteps(strength=1.0, steps=4) == [999, 749, 499, 249]
    assert schedule("cosine").timesteps(strength=0.5, steps=5) == [499, 399, 299, 199, 99]
    assert schedule("cosine", 10).timesteps(strength=0.2, steps=50) == [1, 0]


@pytest.mark.parametrize("name", ["linear", "cosine", "rectified"])
@pytest.mark.parametrize(("strength", "steps"), [(1.0, 12), (0.6, 8), (0.01, 5), (0.001, 3), (1.0, 1000)])
def test_log_snr_spacing_starts_at_the_strength_and_descends(name: str, strength: float, steps: int) -> None:
    s = schedule(name)
    timesteps = s.timesteps(strength, steps, "log_snr")
    assert timesteps[0] == round(1000 * strength) - 1
    assert 1 <= len(timesteps) <= steps
    assert all(a > b >= 0 for a, b in pairwise(timesteps))


def test_log_snr_spacing_is_even_in_the_logarithm() -> None:
    s = schedule("cosine")
    ratio = (s.b / s.a)[s.timesteps(1.0, 12, "log_snr")[1:]].log()
    np.testing.assert_allclose(ratio[:-1] - ratio[1:], float(ratio[0] - ratio[-1]) / 10, rtol=0.1)
    assert float(ratio[-1].exp()) == pytest.approx(0.3 / 12, rel=0.1)


@pytest.mark.parametrize("timesteps", [50, 1000])
@pytest.mark.parametrize(
    ("name", "theirs"), [("linear", "linear"), ("scaled_linear", "scaled_linear"), ("cosine", "squaredcos_cap_v2")]
)
def test_levels_are_those_of_diffusers(name: str, theirs: str, timesteps: int) -> None:
    ours = Schedule(DiffusionSpec(parametrisation="x0", schedule=name, timesteps=timesteps))
    expected = DDPMScheduler(num_train_timesteps=timesteps, beta_schedule=theirs).betas.double()
    assert torch.equal(ours.a[:-1], torch.cumprod(1 - expected, 0).sqrt())


@pytest.mark.parametrize("name", ["linear", "scaled_linear", "cosine"])
@pytest.mark.parametrize("side", [64, 256])
def test_what_sampling_from_noise_loses_of_an_images_level(name: str, side: int) -> None:
    """Mean levels of spread 0.3, by their own best denoiser, DDIM and every timestep: their spread shrinks.

    Of `side` squared pixels the mean's noise is `side` times smaller; here the mean is scaled up instead.
    """
    own, deviation = schedule(name), 0.3 * side

    def denoise(x_t: torch.Tensor, t_B: torch.Tensor) -> torch.Tensor:
        a, b = own.signal(t_B, x_t)
        return a * deviation**2 * x_t / (a**2 * deviation**2 + b**2)

    noise = torch.randn(2000, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = ddim(denoise, noise, [*range(999, -1, -1), -1], own)
    lost = lost_mean(ending_signal(own.spec), side * side)
    assert float((found.std() / deviation) / noise.std()) == pytest.approx(
        1 - lost, abs=0.06
    )  # steps of DDIM cost, too
    assert lost < 0.001 if name == "cosine" else lost > 0.005


def test_the_levels_of_latent_diffusion() -> None:
    usual = float(np.sqrt(np.prod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)))
    signal = usual / np.sqrt(1 - usual**2)
    assert 0.65 * lost_mean(signal, 64**2) == pytest.approx(0.25, abs=0.01)
    assert 0.65 * lost_mean(signal, 256**2) == pytest.approx(0.53, abs=0.01)
    for good in (spec("v"), spec("flow"), spec("v", schedule="scaled_linear", zero_terminal_snr=True)):
        assert lost_mean(ending_signal(good), 256**2) < 1e-3
