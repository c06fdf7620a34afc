import pytest
import torch
from torch import Tensor, nn

from augengine.diffusion.autoencoding_loss import AutoencodingLoss, AutoencodingLossSpec
from augengine.errors import ConfigError

GAN = AutoencodingLossSpec(
    kl_weight=0.0, adversarial_weight=0.5, adversarial_start=10, discriminator_channels=4, discriminator_layers=2
)


def images(*size: int) -> Tensor:
    return torch.randn(2, 2, *size, generator=torch.Generator().manual_seed(1))


class Edges(nn.Module):
    """An extractor with batch state, to see that it is frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(2)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [self.norm(x), x[:, :, 1:] - x[:, :, :-1]]


def loss(spec: AutoencodingLossSpec, **changes: object) -> AutoencodingLoss:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoencodingLoss(spec, **{"channels": 2, "spatial_dims": 2, **changes})


def zeros(rows: int = 2) -> tuple[Tensor, Tensor]:
    return torch.zeros(rows, 3, 4, 4), torch.zeros(rows, 3, 4, 4)


def test_terms_against_closed_forms() -> None:
    module = loss(AutoencodingLossSpec(kl_weight=0.25))
    x = images(16, 16)
    terms = module(x, x + 0.5, torch.full((2, 3, 4, 4), 2.0), torch.full((2, 3, 4, 4), 1.0), step=0)
    kl = 0.5 * (4 + torch.e - 1 - 1) * 48
    assert float(terms["reconstruction"]) == pytest.approx(0.5, rel=1e-5)
    assert float(terms["kl"]) == pytest.approx(kl, rel=1e-5)
    assert float(terms["total"]) == pytest.approx(0.5 + 0.25 * kl, rel=1e-5)
    assert set(terms) == {"reconstruction", "kl", "total"}


def test_one_backward_pass_gives_each_side_its_own_gradient() -> None:
    module, x = loss(GAN), images(24, 24)
    reconstruction = (images(24, 24) * 0.5).requires_grad_()
    weights = list(module.discriminator.parameters())
    terms = module(x, reconstruction, *zeros(), step=10)

    def of(term: Tensor, inputs: list[Tensor]) -> list[Tensor | None]:
        return list(torch.autograd.grad(term, inputs, retain_graph=True, allow_unused=True))

    assert of(terms["adversarial"], weights) == [None] * len(weights)
    assert of(terms["discriminator"], [reconstruction]) == [None]
    generator_side = of(terms["reconstruction"] + 0.5 * terms["adversarial"], [reconstruction])[0]
    discriminator_side = of(terms["discriminator"], weights)
    assert of(terms["adversarial"], [reconstruction])[0].any()
    terms["total"].backward()
    torch.testing.assert_close(reconstruction.grad, generator_side)
    for weight, expected in zip(weights, discriminator_side, strict=True):
        assert weight.grad.any()
        torch.testing.assert_close(weight.grad, expected)


def test_the_discriminator_learns_to_tell_and_the_autoencoder_to_fool() -> None:
    module, x = loss(GAN), images(24, 24)
    reconstruction = torch.zeros_like(x)
    optimiser = torch.optim.Adam(module.parameters(), 1e-2)
    told = []
    for _ in range(20):
        terms = module(x, reconstruction, *zeros(), step=10)
        told.append(terms)
        optimiser.zero_grad()
        terms["total"].backward()
        optimiser.step()
    assert told[-1]["discriminator"] < 0.5 * told[0]["discriminator"]
    caught = module(x, reconstruction, *zeros(), step=10)["adversarial"]
    passed = module(x, x, *zeros(), step=10)["adversarial"]
    assert passed < 0.5 * caught


def test_before_its_start_the_discriminator_is_silent_but_in_the_graph() -> None:
    module, x = loss(GAN), images(24, 24)
    terms = module(x, x + 1, *zeros(), step=9)
    assert torch.equal(terms["total"], terms["reconstruction"])
    terms["total"].backward()
    assert all(p.grad is not None and not p.grad.any() for p in module.discriminator.parameters())


def test_a_rows_verdict_does_not_depend_on_its_batch() -> None:
    module, x = loss(GAN).train(), images(24, 24)
    torch.testing.assert_close(module.discriminator(x)[-1][:1], module.discriminator(x[:1])[-1])
    assert not list(module.discriminator.buffers())


def test_discriminator_in_3d_and_too_small_images() -> None:
    volume = images(12, 12, 12)
    terms = loss(GAN, spatial_dims=3)(volume, volume * 0.5, *zeros(), step=10)
    assert torch.isfinite(terms["total"])
    with pytest.raises(ConfigError, match="at least 12"):
        loss(GAN)(images(8, 24), images(8, 24), *zeros(), step=0)


def test_perceptual_extractor_is_frozen_and_heard() -> None:
    spec = AutoencodingLossSpec(kl_weight=0.0, perceptual_weight=2.0)
    module, x = loss(spec, features=Edges()).train(), images(16, 16)
    reconstruction = (x * 0.5 + 0.1).requires_grad_()
    terms = module(x, reconstruction, *zeros(), step=0)
    torch.testing.assert_close(terms["total"], terms["reconstruction"] + 2 * terms["perceptual"])
    assert float(module(x, x, *zeros(), step=0)["perceptual"]) == 0
    terms["perceptual"].backward()
    assert reconstruction.grad.any()
    assert not any(p.requires_grad for p in module.parameters())
    assert not module.features.norm.running_mean.any()


def test_a_perceptual_weight_needs_an_extractor() -> None:
    with pytest.raises(ConfigError, match="feature extractor"):
        loss(AutoencodingLossSpec(perceptual_weight=0.1))
