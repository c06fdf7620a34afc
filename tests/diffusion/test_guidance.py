import pytest
import torch
from torch import Tensor

from augengine.diffusion.guidance import Guidance, guided
from augengine.diffusion.samplers import ddim
from augengine.diffusion.schedules import Schedule
from augengine.diffusion.spec import DiffusionSpec
from augengine.errors import ConfigError

SCHEDULE = Schedule(DiffusionSpec(parametrisation="x0", schedule="cosine"))


class Model:
    """Two Gaussians of one spread: the condition moves the mean from 0 to 1."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, int]] = []

    def __call__(self, x_t: Tensor, t_B: Tensor, both: bool) -> Tensor:
        self.calls.append((int(t_B[0]), len(x_t)))
        mean = torch.ones(len(x_t), 1, 1, 1)
        if both:
            mean[: len(x_t) // 2] = 0
        a, b = SCHEDULE.signal(t_B, x_t)
        return mean + a * 0.25 / (a**2 * 0.25 + b**2) * (x_t - a * mean)


def noisy(rows: int = 3) -> tuple[Tensor, Tensor]:
    return torch.randn(rows, 2, 4, 4, generator=torch.Generator().manual_seed(2)), torch.full((rows,), 500)


def test_scale_one_is_the_conditional_estimate_in_one_evaluation() -> None:
    model, (x, t_B) = Model(), noisy()
    assert torch.equal(guided(model, Guidance(), SCHEDULE)(x, t_B), model(x, t_B, False))
    assert model.calls[0] == (500, 3)


def test_both_estimates_come_from_one_batch() -> None:
    model, (x, t_B) = Model(), noisy()
    found = guided(model, Guidance(3.0), SCHEDULE)(x, t_B)
    assert model.calls == [(500, 6)]
    free, conditional = model(torch.cat([x, x]), torch.cat([t_B, t_B]), True).chunk(2)
    torch.testing.assert_close(found, free + 3 * (conditional - free))
    assert torch.equal(guided(model, Guidance(0.0), SCHEDULE)(x, t_B), free)


def test_guidance_is_off_outside_its_interval() -> None:
    model, (x, _) = Model(), noisy()
    timesteps = SCHEDULE.timesteps(1.0, 10)
    inside = Guidance(3.0, interval=(0.25, 0.75))
    ddim(guided(model, inside, SCHEDULE), x, [*timesteps, -1], SCHEDULE)
    assert [t for t, rows in model.calls if rows == 6] == [699, 599, 499, 399, 299]
    assert [t for t, rows in model.calls if rows == 3] == [999, 899, 799, 199, 99]


def test_each_row_goes_by_its_own_timestep() -> None:
    model, (x, _) = Model(), noisy(2)
    denoise = guided(model, Guidance(3.0, interval=(0.0, 0.4)), SCHEDULE)
    mixed = denoise(x, torch.tensor([100, 900]))
    assert torch.equal(mixed[:1], denoise(x[:1], torch.tensor([100])))
    assert torch.equal(mixed[1:], model(x[1:], torch.tensor([900]), False))


def test_more_guidance_goes_further_from_the_unconditional_mean() -> None:
    x, _ = noisy(64)
    timesteps = [*SCHEDULE.timesteps(1.0, 50), -1]
    means = [float(ddim(guided(Model(), Guidance(w), SCHEDULE), x, timesteps, SCHEDULE).mean()) for w in (0, 1, 3)]
    assert means[0] == pytest.approx(0, abs=0.1)
    assert means[1] == pytest.approx(1, abs=0.1)
    assert means[2] > 2


@pytest.mark.parametrize("rescale", [0.0, 0.7, 1.0])
def test_rescale_pulls_each_rows_spread_back(rescale: float) -> None:
    free, conditional = torch.randn(2, 3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    conditional = conditional * torch.tensor([0.5, 1.0, 2.0]).view(3, 1, 1, 1)
    plain = Guidance(4.0).combine(free, conditional)
    found = Guidance(4.0, rescale=rescale).combine(free, conditional)
    spreads = [x.flatten(1).std(1) for x in (plain, conditional, found)]
    torch.testing.assert_close(spreads[2], (1 - rescale) * spreads[0] + rescale * spreads[1])
    assert (spreads[0] > 1.5 * spreads[1]).all()


@pytest.mark.parametrize(
    "settings", [{"interval": (0.6, 0.4)}, {"interval": (-0.1, 1.0)}, {"rescale": 1.5}, {"interval": (0.0, 2.0)}]
)
def test_impossible_settings_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="guidance"):
        Guidance(2.0, **settings)  # type: ignore[arg-type]
