"""Training that begins from Stable Diffusion's autoencoder on disk, or takes it as it is."""

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL
from training_cases import recipe, samples_of, write_rows

from augengine.diffusion import stable_diffusion_vae
from augengine.diffusion.autoencoder import Autoencoder, AutoencoderSpec
from augengine.diffusion.checkpoint import load_model
from augengine.errors import ConfigError, RunError
from augengine.train.run import check_settings, train

CASE = "photo_autoencoder"


def weights(folder: Path, seed: int) -> str:
    network = recipe(CASE).network
    assert isinstance(network, AutoencoderSpec)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        AutoencoderKL(**network.diffusers).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_rows(tmp_path_factory.mktemp("rows"), samples_of())


@pytest.mark.usefixtures("ray_session")
def test_weights_are_taken_as_they_are_or_trained_further(data: str, tmp_path: Path) -> None:
    given = weights(tmp_path / "vae", 1)
    kept = load_model(train(recipe(CASE, pretrained=given, steps=0), data, str(tmp_path / "kept"), num_workers=0))
    theirs = stable_diffusion_vae.read(given)
    assert isinstance(kept.network, Autoencoder)
    assert all(torch.equal(value, theirs[name]) for name, value in kept.network.body.state_dict().items())
    assert kept.network.scale != 1  # measured on the training rows
    assert kept.spec.pretrained == stable_diffusion_vae.sha256(given)
    assert "loss" not in kept.spec.metrics

    slow = {"batch_size": 4, "learning_rate": 1e-6}
    further = recipe(CASE, pretrained=given, steps=1, optimiser=slow)
    moved = load_model(train(further, data, str(tmp_path / "moved"), num_workers=0)).network.state_dict()
    near = [(moved[f"body.{name}"] - value).abs().max() for name, value in theirs.items()]
    assert 0 < max(near) < 1e-5

    other = weights(tmp_path / "other", 2)
    with pytest.raises(RunError, match="another parts"):
        train(recipe(CASE, pretrained=other, steps=0), data, str(tmp_path / "kept"), num_workers=0)


def test_no_steps_and_no_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no steps.*give --set pretrained=FOLDER"):
        check_settings(recipe(CASE, steps=0), 1)
    with pytest.raises(ConfigError, match=r"no config\.json"):
        check_settings(recipe(CASE, pretrained=str(tmp_path)), 1)
    with pytest.raises(ValueError, match=r"pretrained goes with network\.design stable_diffusion"):
        recipe("autoencoder", pretrained=str(tmp_path))
