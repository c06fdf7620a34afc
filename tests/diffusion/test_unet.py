from dataclasses import replace

import pytest
import torch
from monai.networks.nets.diffusion_model_unet import SpatialTransformer, get_timestep_embedding
from pydantic import ValidationError

from augengine.diffusion.checkpoint import Generator, untrained
from augengine.diffusion.conditioning import Conditioning
from augengine.diffusion.conditions import Vocabulary
from augengine.diffusion.spec import ModelSpec
from augengine.diffusion.unet import DenoisingUNet, UNetSpec, depth_to_space, space_to_depth, timestep_embedding
from augengine.records import Acquisition
from augengine.train.config import read_recipe


def noisy(generator: Generator, rows: int = 2, size: int = 16) -> tuple[torch.Tensor, torch.Tensor, Conditioning]:
    x = torch.randn(rows, 1, size, size, generator=torch.Generator().manual_seed(1))
    vocabulary = generator.spec.vocabulary
    model = vocabulary.categories["model"][0]
    acquisition = vocabulary.encode([Acquisition(model=model, echo_time_ms=2.4)] * rows)
    return x, torch.full((rows,), 500), Conditioning(acquisition=acquisition)


def test_space_to_depth_is_lossless_in_2d_and_3d() -> None:
    for shape in ((2, 3, 8, 12), (2, 3, 4, 8, 12)):
        x = torch.randn(shape)
        deep = space_to_depth(x, 2)
        assert deep.shape == (2, 3 * 2 ** (len(shape) - 2), *(n // 2 for n in shape[2:]))
        assert torch.equal(depth_to_space(deep, 2), x)


def test_paper_network_has_the_papers_layout_and_size() -> None:
    spec = read_recipe("cddgm").network
    network = DenoisingUNet(
        spec, 1, vocabulary=Vocabulary.fit([Acquisition("GE", "Signa", 1.5, "FS", 10, 2, 2.4, 5.3)])
    )
    assert spec.channels == (64, 64, 128, 128, 256, 256)
    unet = network.unet
    for level, block in enumerate(unet.down_blocks, start=1):
        assert len(block.resnets) == 2
        assert (len(getattr(block, "attentions", [])) > 0) == (level in (3, 5))
    assert isinstance(unet.middle_block.attention, SpatialTransformer)
    assert unet.conv_in.conv.in_channels == 1
    parameters = sum(p.numel() for p in network.parameters())
    assert abs(parameters / 36.5e6 - 1) < 0.02


def test_every_parameter_changes_the_output(generator: Generator) -> None:
    x, t, condition = noisy(generator)
    base = generator.denoise(x, t, condition)
    assert not torch.allclose(base, generator.denoise(x, t, condition.unconditional()), atol=1e-4)
    structure = torch.rand(2, 4, 16, 16)
    assert not torch.allclose(base, generator.denoise(x, t, replace(condition, planes=structure)), atol=1e-4)
    assert not torch.allclose(base, generator.denoise(x, t - 300, condition), atol=1e-4)


def test_both_ways_of_conditioning_are_live(generator: Generator) -> None:
    x, t, condition = noisy(generator)
    network = generator.network.body
    tokens = network.tokens(condition.acquisition)
    other = tokens + torch.randn(tokens.shape, generator=torch.Generator().manual_seed(0))
    inputs = space_to_depth(torch.cat([x, torch.zeros(2, 4, 16, 16)], 1), 2)
    base = network.unet(inputs, t, context=tokens, class_labels=tokens.sum(1))
    assert not torch.allclose(base, network.unet(inputs, t, context=other, class_labels=tokens.sum(1)), atol=1e-5)
    assert not torch.allclose(base, network.unet(inputs, t, context=tokens, class_labels=other.sum(1)), atol=1e-5)


def test_any_size_is_padded_and_cropped_back(generator: Generator) -> None:
    _, t, condition = noisy(generator)
    x = torch.randn(2, 1, 13, 18)
    assert generator.denoise(x, t, replace(condition, planes=torch.rand(2, 4, 13, 18))).shape == x.shape


def test_a_row_without_structure_equals_a_batch_without(generator: Generator) -> None:
    x, t, condition = noisy(generator)
    structure = torch.rand(2, 4, 16, 16)
    structure[0] = 0
    mixed = generator.denoise(x, t, replace(condition, planes=structure))
    torch.testing.assert_close(mixed[0], generator.denoise(x, t, condition)[0])


def test_network_spec_refuses_what_cannot_be_built() -> None:
    for wrong in ({"attention_levels": (4,)}, {"norm_groups": 24}, {"head_channels": 48}, {"body": "compact"}):
        with pytest.raises(ValidationError):
            UNetSpec(**{"channels": (32, 64), "res_blocks": 1, "attention_levels": (2,), "head_channels": 32, **wrong})


def test_timesteps_are_embedded_as_monai_does_it() -> None:
    t = torch.arange(0, 1000, 37)
    assert torch.equal(timestep_embedding(t, 32), get_timestep_embedding(t, 32))


@pytest.mark.parametrize("dims", [2, 3])
def test_local_tables_part_tissues_at_full_resolution(dims: int) -> None:
    spec = UNetSpec(
        body="compact",
        channels=(8, 8),
        head_channels=8,
        norm_groups=4,
        unshuffle=4,
        structure=True,
        local_curves=3,
        tissue_curves=True,
    )
    knots, tissues, size = spec.local_curves, 2, (16,) * dims
    network = DenoisingUNet(spec, 1, condition_planes=1 + 2 + tissues + 1, tissues=tissues, spatial_dims=dims)
    # A table for the rest and one per tissue, over the structure image's values, then the gain of the noisy image.
    tables = torch.tensor([[0.0, 0.0, 0.0], [0.2, 0.3, 0.4], [0.9, 0.5, 0.1]])
    coefficients = torch.cat([tables.flatten(), torch.tensor([0.5])])
    coarse = coefficients.view(1, -1, *[1] * dims).expand(1, -1, *[n // 4 for n in size])
    assert network.curves == coefficients.numel() == (tissues + 1) * knots + 1
    draw = torch.Generator().manual_seed(0)
    noisy_image, shown = torch.randn(1, 1, *size, generator=draw), torch.rand(1, 1, *size, generator=draw)
    where = torch.randint(0, 3, size, generator=draw)  # borders far finer than a coarse cell of 4
    one_hot = torch.stack([where == 1, where == 2])[None].float()
    context = torch.full((1, 1, *size), 7.0)  # of neighbouring slices: no tissue
    inputs = torch.cat([noisy_image, shown, torch.ones(1, 2, *size), one_hot, context], dim=1)
    place = 2 * shown[0, 0]
    left = place.floor().long().clamp(max=1)
    expected = torch.lerp(tables[where, left], tables[where, left + 1], place - left) + 0.5 * noisy_image[0, 0]
    assert torch.allclose(network._curved(coarse, inputs, 1)[0, 0], expected, atol=1e-5)


def test_tables_by_tissue_are_asked_for(spec: ModelSpec) -> None:
    changes = {"body": "compact", "attention_levels": (), "local_curves": 4}
    tables = []
    for tissue_curves in (False, True):
        network = spec.network.model_copy(update={**changes, "tissue_curves": tissue_curves})
        tables.append(untrained(spec.model_copy(update={"network": network}), seed=3).network.body.curves)
    assert tables == [4 + 1, 4 * (1 + len(spec.labels)) + 1]
    with pytest.raises(ValidationError, match="tissue_curves go together with local_curves"):
        UNetSpec(channels=(8, 8), head_channels=8, norm_groups=4, structure=True, tissue_curves=True)
