import numpy as np
import pytest
import torch

from augengine.diffusion.schedules import Schedule, clean_estimate, noise_estimate, target
from augengine.diffusion.spec import DiffusionSpec


def schedule(name: str, timesteps: int = 1000) -> Schedule:
    return Schedule(DiffusionSpec(parametrisation="x0", schedule=name, timesteps=timesteps))


def test_schedules_follow_their_closed_forms() -> None:
    t = np.arange(1000)
    linear = np.cumprod(1 - np.linspace(1e-4, 2e-2, 1000))
    scaled = np.cumprod(1 - np.linspace(1e-4**0.5, 2e-2**0.5, 1000) ** 2)

    def f(u: np.ndarray) -> np.ndarray:
        return np.cos((u / 1000 + 0.008) / 1.008 * np.pi / 2) ** 2

    cosine = np.cumprod(1 - np.minimum(1 - f(t + 1) / f(t), 0.999))
    for name, wanted in (("linear", linear), ("scaled_linear", scaled), ("cosine", cosine)):
        np.testing.assert_allclose(schedule(name).alpha_bar, wanted, rtol=2e-3, atol=1e-7)


@pytest.mark.parametrize("parametrisation", ["x0", "epsilon", "v"])
def test_the_exact_output_stands_for_the_clean_image(parametrisation: str) -> None:
    torch.manual_seed(0)
    s = schedule("cosine")
    x0, noise = torch.randn(2, 5, 1, 4, 4).double()
    t_B = torch.tensor([0, 10, 400, 700, 950])
    x_t = s.noised(x0, noise, t_B)
    output = target(parametrisation, s, x0, noise, t_B)
    torch.testing.assert_close(clean_estimate(parametrisation, s, output, x_t, t_B), x0, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(noise_estimate(s, x0, x_t, t_B), noise, rtol=1e-6, atol=1e-6)


def test_v_is_the_velocity_of_the_angle() -> None:
    s = schedule("cosine")
    x0, noise, t_B = torch.tensor([[2.0]]), torch.tensor([[3.0]]), torch.tensor([300])
    a, b = s.alpha_bar[300].sqrt(), (1 - s.alpha_bar[300]).sqrt()
    assert float(target("v", s, x0, noise, t_B)) == pytest.approx(float(a * 3 - b * 2))


def test_the_paper_setting_takes_every_one_of_the_first_fifty_timesteps() -> None:
    assert schedule("cosine").timesteps(strength=0.05, steps=50) == list(range(49, -1, -1))


def test_fewer_steps_start_at_the_strength_and_are_even() -> None:
    assert schedule("cosine").timesteps(strength=1.0, steps=4) == [999, 749, 499, 249]
    assert schedule("cosine").timesteps(strength=0.5, steps=5) == [499, 399, 299, 199, 99]
    assert schedule("cosine", 10).timesteps(strength=0.2, steps=50) == [1, 0]
