"""Every generator behind one call: latents, frozen parts, and inputs that reach the output."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from training_cases import ACQUISITIONS, CASES, CASES_3D, drawn, spec_of

from augengine.diffusion.build import build
from augengine.diffusion.conditioning import Conditioning
from augengine.diffusion.denoisers import GenerativeNetwork
from augengine.diffusion.spec import ModelSpec

GENERATORS = [(case, dims) for dims, cases in ((2, CASES), (3, CASES_3D)) for case in cases if spec_of(case).diffusion]


def inputs(network: GenerativeNetwork, spec: ModelSpec) -> tuple[Tensor, Tensor, Conditioning]:
    random = torch.Generator().manual_seed(0)
    x = torch.randn(2, spec.content_channels, *spec.image_size, generator=random)
    planes = torch.rand(2, spec.condition_planes, *spec.image_size, generator=random) if spec.condition_planes else None
    acquisition = spec.vocabulary.encode(ACQUISITIONS) if spec.vocabulary else None
    return network.encode(x), torch.tensor([100, 900]), Conditioning(planes, torch.tensor([1, 2]), acquisition)


@pytest.mark.parametrize(("case", "dims"), GENERATORS)
@torch.no_grad()
def test_the_output_has_the_shape_of_the_noisy_content_and_heeds_every_input(case: str, dims: int) -> None:
    spec = spec_of(case, dims)
    network = drawn(spec, 1).eval()
    assert isinstance(network, GenerativeNetwork)
    x, t_B, given = inputs(network, spec)
    plain = network(x, t_B, given)
    assert plain.shape == x.shape
    others = [network(x, t_B.flip(0), given), network(x + 0.1, t_B, given)]
    if given.planes is not None:
        others.append(network(x, t_B, replace(given, planes=1 - given.planes)))
    if spec.classes:
        others.append(network(x, t_B, replace(given, classes=3 - given.classes)))
    if spec.classes or spec.vocabulary:
        others.append(network(x, t_B, given.unconditional()))
    if spec.vocabulary:
        others.append(network(x, t_B, replace(given, acquisition=spec.vocabulary.encode(ACQUISITIONS[::-1]))))
    assert not any(torch.allclose(plain, other) for other in others)
    both = network(torch.cat([x, x.flip(0)]), torch.cat([t_B] * 2), given.unconditional().cat(given))
    torch.testing.assert_close(network(x.flip(0), t_B, given), both[2:], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_a_network_that_is_shown_no_planes_sees_zeros() -> None:
    network = drawn(spec_of("m2"), 1).eval()
    x, t_B, given = inputs(network, spec_of("m2"))
    zeros = replace(given, planes=torch.zeros_like(given.planes))
    assert torch.equal(network(x, t_B, replace(given, planes=None)), network(x, t_B, zeros))


@pytest.mark.parametrize("case", ["counterfactual_dit", "label_ldm", "label_segmenter"])
def test_latents_go_through_the_frozen_autoencoder_and_come_back_in_size(case: str) -> None:
    network = drawn(spec_of(case), 2)
    assert network.autoencoder is not None
    network.autoencoder.scale.fill_(2.0)
    x = torch.rand(2, spec_of(case).content_channels, 15, 13, requires_grad=True)
    latents = network.encode(x)
    assert latents.shape == (2, 2, 8, 7)
    assert not latents.requires_grad
    torch.testing.assert_close(latents, 2 * network.autoencoder.encode(x)[0].detach())
    decoded = network.decode(latents, (15, 13))
    torch.testing.assert_close(decoded, network.autoencoder(x)[0].detach())


def test_pixels_are_their_own_latents() -> None:
    network, x = drawn(spec_of("m1"), 2), torch.rand(2, 1, 5, 6)
    assert network.autoencoder is None
    assert network.encode(x) is x
    assert network.decode(x, (5, 6)) is x


@pytest.mark.parametrize("case", ["counterfactual_dit", "label_segmenter", "error_corrector"])
def test_parts_stay_frozen_and_in_evaluation_mode(case: str) -> None:
    network = build(spec_of(case)).train()
    assert network.body.training
    assert len(network.parts) > 0
    assert not any(module.training for part in network.parts.values() for module in part.modules())
    assert not any(p.requires_grad for p in network.parts.parameters())
    assert any(p.requires_grad for p in network.body.parameters())


def test_given_parts_are_kept_and_random_weights_follow_from_the_seed() -> None:
    spec = spec_of("counterfactual_dit")
    part = build(spec.parts["autoencoder"], seed=11)
    network = build(spec, 0, {"autoencoder": part})
    assert network.autoencoder is part
    weights, same, other = (build(spec, seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(weights[name], same[name]) for name in weights)
    assert any(not torch.equal(weights[name], other[name]) for name in weights)


def test_a_controlled_prior_starts_as_the_prior_itself() -> None:
    spec = spec_of("label_segmenter")
    prior = drawn(spec.parts["prior"], 5).eval()
    x, t_B, given = inputs(prior, spec.parts["prior"])
    alone = prior(x, t_B, given)
    steered = build(spec, 0, {"prior": prior}).eval()
    image = Conditioning(torch.rand(2, 1, 16, 16))
    torch.testing.assert_close(steered(x, t_B, image), alone)
    assert steered.autoencoder is prior.autoencoder
