from collections.abc import Iterator

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from augengine.diffusion.autoencoder import Autoencoder, AutoencoderSpec
from augengine.errors import ConfigError, DataError

SPEC = AutoencoderSpec(channels=(8, 8, 16), latent_channels=3, res_blocks=1, norm_groups=4)


def network(dims: int = 2, channels: int = 2, spec: AutoencoderSpec = SPEC) -> Autoencoder:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Autoencoder(spec, channels, dims)


def images(*size: int, rows: int = 2, channels: int = 2) -> Tensor:
    return torch.randn(rows, channels, *size, generator=torch.Generator().manual_seed(1))


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


@pytest.mark.parametrize("size", [(16, 16), (13, 18), (8, 9, 11)])
def test_any_size_is_padded_and_cropped_back(size: tuple[int, ...]) -> None:
    model, x = network(len(size)), images(*size)
    z = model.latents(x)
    assert z.shape == (2, 3, *(-(-n // 4) for n in size)) == (2, 3, *model.latent_size(size))
    assert model.images(z, size).shape == x.shape


def test_padding_repeats_the_edge_and_loses_no_pixel() -> None:
    model, x = network(), images(13, 16)
    by_hand = torch.cat([x, x[:, :, -1:].expand(-1, -1, 3, -1)], dim=2)
    assert torch.equal(model.encode(x)[0], model.encode(by_hand)[0])
    last = x.clone()
    last[:, :, -1] += 1
    assert not torch.equal(model.encode(x)[0], model.encode(last)[0])


@pytest.mark.parametrize(("channels", "factor"), [((32, 96, 192), 4), ((32, 32, 64, 64), 8)])
def test_factor(channels: tuple[int, ...], factor: int) -> None:
    assert AutoencoderSpec(channels=channels).factor == factor


def test_middle_attention_reaches_across_the_latent() -> None:
    local, wide = (network(spec=SPEC.model_copy(update={"middle_attention": on})) for on in (False, True))
    parameters = [sum(p.numel() for p in m.parameters()) for m in (local, wide)]
    assert parameters[0] < parameters[1]


def test_draws_follow_the_rows_generators() -> None:
    model, x = network(), images(16, 16)
    z = model.latents(x, generators(1, 2))
    torch.testing.assert_close(z.flip(0), model.latents(x.flip(0), generators(2, 1)))
    mean, log_variance = model.encode(x)
    noise = torch.stack([torch.randn(mean.shape[1:], generator=g) for g in generators(1, 2)])
    torch.testing.assert_close(z, mean + (log_variance / 2).exp() * noise)
    assert torch.equal(model.latents(x), mean)


def test_scale_makes_latents_of_unit_spread_and_is_saved() -> None:
    model = network()
    model.body.quant_conv_mu.conv.weight.data *= 5
    model.body.quant_conv_mu.conv.bias.data += 3

    def stream() -> Iterator[Tensor]:
        yield images(16, 16, rows=5)
        yield images(12, 16, rows=3) + 1

    model.measure_scale(stream())
    drawn = [model.latents(x, generators(*range(s, s + len(x)))).flatten() for s in range(0, 800, 8) for x in stream()]
    assert float(torch.cat(drawn).detach().std()) == pytest.approx(1.0, abs=0.02)
    assert float(model.scale) != pytest.approx(1.0, abs=0.05)
    measured = float(model.scale)
    model.measure_scale(stream())
    assert float(model.scale) == pytest.approx(measured)
    other = network()
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.scale, model.scale)


def test_images_undo_the_scale() -> None:
    model, x = network(), images(16, 16)
    before = model.images(model.latents(x), (16, 16))
    model.scale.fill_(7.0)
    torch.testing.assert_close(model.images(model.latents(x), (16, 16)), before)
    torch.testing.assert_close(model(x)[0], before)


def test_empty_or_constant_streams_have_no_scale() -> None:
    model = network()
    for part in (model.body.quant_conv_mu, model.body.quant_conv_log_sigma):
        nn.init.zeros_(part.conv.weight)
    model.body.quant_conv_log_sigma.conv.bias.data.fill_(float("nan"))
    for stream in ([], [images(16, 16)]):
        with pytest.raises(DataError, match="must vary"):
            model.measure_scale(stream)


def test_recomputed_gradients_are_the_same() -> None:
    x, found = images(16, 16), []
    for recompute in (False, True):
        model = network(spec=SPEC.model_copy(update={"recompute": recompute}))
        model(x)[0].square().mean().backward()
        found.append(model.body.encoder.blocks[0].conv.weight.grad)
    torch.testing.assert_close(*found)


def test_rows_do_not_meet() -> None:
    model, x = network().train(), images(16, 16)
    torch.testing.assert_close(model(x)[0][:1], model(x[:1])[0])


def test_a_latent_of_another_size_is_refused() -> None:
    model = network()
    with pytest.raises(ConfigError, match=r"has the size \(4, 4\)"):
        model.decode(torch.zeros(1, 3, 5, 4), (16, 16))


def test_spec_refuses_what_cannot_be() -> None:
    with pytest.raises(ValidationError, match="norm_groups 4"):
        AutoencoderSpec(channels=(8, 10), norm_groups=4)
    with pytest.raises(ValidationError, match="from 1 to 2"):
        AutoencoderSpec(channels=(8, 8), norm_groups=4, attention_levels=(3,))
