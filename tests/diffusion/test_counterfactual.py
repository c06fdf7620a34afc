import numpy as np
import pytest
import torch

from augengine.diffusion.checkpoint import Generator, untrained
from augengine.diffusion.conditioning import Conditioning
from augengine.diffusion.counterfactual import acquired, denoiser, inversion, sdedit, structure
from augengine.diffusion.guidance import Guidance
from augengine.diffusion.spec import ModelSpec
from augengine.errors import CheckpointError, ConfigError
from augengine.records import Acquisition

Pair = tuple[Acquisition, Acquisition]


def images(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((rows, 1, 16, 16), np.float32)


def noise_predicting(spec: ModelSpec) -> ModelSpec:
    wide = {"parametrisation": "epsilon", "schedule": "cosine", "x0_range": (-1e6, 1e6)}
    return spec.model_copy(update={"diffusion": spec.diffusion.model_validate(wide)})


class Identity:
    """A network that returns its noisy input: what reaches it is what comes out."""

    def __init__(self, generator: Generator) -> None:
        self.spec, self.schedule, self.device = generator.spec, generator.schedule, generator.device
        self.seen: list[tuple[torch.Tensor, int]] = []

    def denoise(self, x: torch.Tensor, t_B: torch.Tensor, *_: object) -> torch.Tensor:
        self.seen.append((x, int(t_B[0])))
        return x

    def prepared(self, conditioning: Conditioning, rows: int) -> Conditioning:
        return conditioning


def test_unit_guidance_is_the_conditional_estimate(generator: Generator, acquisitions: Pair) -> None:
    x, t_B = torch.randn(1, 1, 16, 16), torch.tensor([400])
    condition = acquired(generator, acquisitions[:1])
    low, high = generator.spec.diffusion.x0_range
    conditional = generator.denoise(x, t_B, condition)
    free = generator.denoise(x, t_B, condition.unconditional())
    torch.testing.assert_close(denoiser(generator, condition)(x, t_B), conditional.clamp(low, high))
    guided = denoiser(generator, condition, Guidance(3.0))(x, t_B)
    torch.testing.assert_close(guided, (-2 * free + 3 * conditional).clamp(low, high), rtol=1e-4, atol=1e-4)


def test_guidance_of_clean_estimates_is_guidance_of_noise(spec: ModelSpec, acquisitions: Pair) -> None:
    generator = untrained(noise_predicting(spec), seed=1)
    x, t_B = torch.randn(1, 1, 16, 16), torch.tensor([300])
    condition = acquired(generator, acquisitions[:1])
    conditional, free = (generator.network(x, t_B, c) for c in (condition, condition.unconditional()))
    a, b = generator.schedule.signal(t_B, x)
    wanted = (x - b * ((1 - 3.0) * free + 3.0 * conditional)) / a  # paper 004, algorithm 1
    torch.testing.assert_close(denoiser(generator, condition, Guidance(3.0))(x, t_B), wanted, rtol=1e-3, atol=1e-3)


def test_sdedit_starts_at_the_noise_of_its_strength(generator: Generator, acquisitions: Pair) -> None:
    echo, x = Identity(generator), np.full((64, 1, 16, 16), 0.5, np.float32)
    sdedit(echo, x, [acquisitions[1]] * 64, list(range(64)), steps=50, strength=0.05)  # type: ignore[arg-type]
    first, t = echo.seen[0]
    assert [seen for _, seen in echo.seen] == list(range(49, -1, -1))
    level = float(generator.schedule.alpha_bar[t])
    assert float(first.mean()) == pytest.approx(0.5 * level**0.5, abs=2e-3)
    assert float(first.std()) == pytest.approx((1 - level) ** 0.5, rel=0.02)


@pytest.mark.parametrize("solver", ["ddpm", "ddim", "dpmpp_2m", "dpmpp_2m_sde"])
def test_a_row_does_not_depend_on_its_neighbours(generator: Generator, acquisitions: Pair, solver: str) -> None:
    ge, siemens = acquisitions
    x, other = images(4), images(4, seed=9)
    other[2] = x[0]
    settings = {"steps": 4, "strength": 0.6, "guidance": Guidance(2.0), "solver": solver}
    first = sdedit(generator, x, [ge] * 4, [11, 12, 13, 14], **settings)
    second = sdedit(generator, other, [siemens, siemens, ge, siemens], [5, 6, 11, 7], **settings)
    np.testing.assert_array_equal(first[0], second[2])
    assert not np.array_equal(first[0], first[1])


def test_structure_depends_on_target_seed_source_and_mask(generator: Generator, acquisitions: Pair) -> None:
    ge, siemens = acquisitions
    x, mask = images(1), np.zeros((1, 16, 16), np.int8)
    mask[:, 4:9] = 1
    base = structure(generator, x, [ge], [1], mask, steps=3)
    assert base.shape == x.shape
    assert base.dtype == np.float32
    np.testing.assert_array_equal(base, structure(generator, x, [ge], [1], mask, steps=3))
    for changed in (
        structure(generator, x, [siemens], [1], mask, steps=3),
        structure(generator, x, [ge], [2], mask, steps=3),
        structure(generator, images(1, seed=4), [ge], [1], mask, steps=3),
        structure(generator, x, [ge], [1], mask * 0 - 1, steps=3),
    ):
        assert np.abs(changed - base).max() > 1e-3


class Shown(Identity):
    """A network that returns the structure image that it is shown."""

    def denoise(self, x: torch.Tensor, t_B: torch.Tensor, conditioning: object, *_: object) -> torch.Tensor:
        assert isinstance(conditioning, Conditioning)
        assert conditioning.planes is not None
        return conditioning.planes[:, : x.shape[1]]


def test_structure_is_the_mean_of_two_opposed_views(generator: Generator, acquisitions: Pair) -> None:
    x, mask = images(2), np.zeros((2, 16, 16), np.int8)
    found = structure(Shown(generator), x, [*acquisitions], [1, 2], mask, steps=3)  # type: ignore[arg-type]
    knots = np.linspace(0, 1.2, 6)
    rising, falling = (np.interp(x, knots, heights) for heights in (np.linspace(0, 1, 6), [0, 1, 0.8, 0.6, 0.4, 0.2]))
    np.testing.assert_allclose(found, (rising + falling) / 2, atol=1e-5)


def test_structure_needs_a_network_that_takes_one(spec: ModelSpec, acquisitions: Pair) -> None:
    plain = spec.model_copy(update={"network": spec.network.model_copy(update={"structure": False})})
    with pytest.raises(CheckpointError, match="structure input"):
        structure(untrained(plain, 0), images(1), [acquisitions[0]], [0], np.zeros((1, 16, 16), np.int8))


def test_inversion_to_the_own_acquisition_keeps_the_image(spec: ModelSpec, acquisitions: Pair) -> None:
    generator = untrained(noise_predicting(spec), seed=3)
    x, ge = images(1), [acquisitions[0]]
    same, lost = inversion(generator, x, ge, ge, steps=40, strength=0.3)
    other, as_much = inversion(generator, x, ge, [acquisitions[1]], steps=40, strength=0.3)
    # Under its own parameters, without guidance, the round trip is the result itself.
    assert lost == pytest.approx(np.sqrt(np.mean((same - x) ** 2)) / x.std(), rel=1e-5)
    assert as_much == lost
    assert np.abs(same - x).mean() < 0.5 * np.abs(other - x).mean()
    with pytest.raises(ConfigError, match="ddim"):
        inversion(generator, x, ge, ge, steps=4, strength=0.3, solver="ddpm")
