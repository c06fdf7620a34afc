from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from training_cases import spec_of

from augengine.diffusion import stable_diffusion_vae
from augengine.diffusion.autoencoder import Autoencoder, AutoencoderSpec
from augengine.diffusion.build import build
from augengine.diffusion.checkpoint import untrained
from augengine.diffusion.conditioning import Conditioning
from augengine.diffusion.denoisers import GenerativeNetwork
from augengine.diffusion.painting import Sampling, generate
from augengine.errors import ConfigError

GREY = AutoencoderSpec(channels=(8, 8), latent_channels=3, res_blocks=1, norm_groups=4, rgb=True)
PHOTO = GREY.model_copy(update={"design": "stable_diffusion", "middle_attention": True})


def images(rows: int = 2, channels: int = 2, size: int = 16) -> Tensor:
    return torch.rand(rows, channels, size, size, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a user has: a folder that diffusers wrote."""
    folder = tmp_path_factory.mktemp("vae")
    with torch.random.fork_rng():
        torch.manual_seed(3)
        AutoencoderKL(**PHOTO.diffusers).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("spec", [GREY, PHOTO], ids=["monai", "stable_diffusion"])
def test_channels_go_through_one_by_one(spec: AutoencoderSpec) -> None:
    model, x = Autoencoder(spec, 2, 2).eval(), images()
    with torch.no_grad():
        mean, log_variance = model.encode(x)
        assert mean.shape == log_variance.shape == (2, 2 * 3, 8, 8)
        assert model.latent_channels == 6
        other = x.clone()
        other[:, 1] = 0
        changed = model.encode(other)[0]
        torch.testing.assert_close(changed[:, :3], mean[:, :3])  # the first channel's latents
        assert not torch.allclose(changed[:, 3:], mean[:, 3:])
        drawn = model.decode(mean, (16, 16))
        assert drawn.shape == x.shape
        torch.testing.assert_close(model.decode(mean.flip(0), (16, 16)), drawn.flip(0))
        alone = Autoencoder(spec, 1, 2).eval()
        alone.load_state_dict(model.state_dict())
        torch.testing.assert_close(alone(x[:, :1])[0], model(x)[0][:, :1])


def test_a_grey_image_is_three_equal_channels_and_comes_back_as_their_mean() -> None:
    model, x = Autoencoder(GREY, 1, 2).eval(), images(channels=1)
    with torch.no_grad():
        h = model.body.encoder(x.expand(-1, 3, -1, -1))
        torch.testing.assert_close(model.encode(x)[0], model.body.quant_conv_mu(h))
        z = model.encode(x)[0]
        three = model.body.decoder(model.body.post_quant_conv(z))
        assert three.shape[1] == 3
        torch.testing.assert_close(model.decode(z, (16, 16)), three.mean(1, keepdim=True))


def test_weights_of_diffusers_say_the_same_here(pretrained: Path) -> None:
    stable_diffusion_vae.check(str(pretrained), PHOTO.diffusers)
    model, x = Autoencoder(PHOTO, 1, 2).eval(), images(channels=1)
    model.start_from(str(pretrained))
    theirs = AutoencoderKL.from_pretrained(pretrained)
    photograph = (2 * x - 1).expand(-1, 3, -1, -1)  # theirs are from -1 to 1, our images from 0 to 1
    with torch.no_grad():
        z = theirs.encode(photograph).latent_dist.mean
        torch.testing.assert_close(model.encode(x)[0], z)
        drawn = (theirs.decode(z).sample.mean(1, keepdim=True) + 1) / 2
        torch.testing.assert_close(model.decode(z, (16, 16)), drawn)
        planes = Autoencoder(PHOTO, 1, 2, of_images=False).eval()  # of label planes, from -1 to 1 already
        planes.load_state_dict(model.state_dict())
        torch.testing.assert_close(planes.encode(2 * x - 1)[0], z)


def test_what_does_not_fit_is_refused(pretrained: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no config\.json"):
        stable_diffusion_vae.check(str(tmp_path), PHOTO.diffusers)
    wider = PHOTO.model_copy(update={"channels": (8, 16)})
    with pytest.raises(ConfigError, match=r"network has block_out_channels \(8, 16\).*found \(8, 8\)"):
        stable_diffusion_vae.check(str(pretrained), wider.diffusers)
    (tmp_path / "config.json").write_text('{"_class_name": "UNet2DModel"}')
    (tmp_path / "diffusion_pytorch_model.safetensors").touch()
    with pytest.raises(ConfigError, match=r"diffusers AutoencoderKL.*UNet2DModel"):
        stable_diffusion_vae.check(str(tmp_path), PHOTO.diffusers)
    with pytest.raises(ConfigError, match="is for slices"):
        Autoencoder(PHOTO, 1, 3)
    for wrong in ({"rgb": False}, {"attention_levels": (1,)}):
        with pytest.raises(ValueError, match="stable_diffusion"):
            AutoencoderSpec.model_validate({**PHOTO.model_dump(), **wrong})


def test_a_transformer_diffuses_the_stacked_latents() -> None:
    spec = spec_of("counterfactual_dit")
    grey = spec.parts["autoencoder"].model_copy(
        update={"channels": ("t1", "t2"), "network": PHOTO.model_copy(update={"channels": (4, 8)})}
    )
    spec = spec.model_copy(update={"channels": ("t1", "t2"), "parts": {"autoencoder": grey}})
    drawn = generate(
        untrained(spec, 0), Conditioning(classes=torch.tensor([1, 2])), [1, 2], Sampling(solver="ddim", steps=2)
    )
    assert drawn.shape == (2, 2, *spec.image_size)
    network = build(spec)
    assert isinstance(network, GenerativeNetwork)
    assert network.autoencoder is not None
    assert network.autoencoder.latent_channels == 2 * 3
