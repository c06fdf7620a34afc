import hashlib
import json
from pathlib import Path

import pytest
import safetensors.torch
import torch

from augengine.diffusion.checkpoint import Generator, load_generator, read_spec, save_model, subject_hash, untrained
from augengine.diffusion.counterfactual import acquired
from augengine.errors import CheckpointError
from augengine.io.sealed import sealed
from augengine.io.store import Store
from augengine.records import Acquisition, IntensityRule


@pytest.fixture
def folder(generator: Generator, tmp_path: Path) -> Path:
    spec = generator.spec.model_copy(update={"subject_hashes": (subject_hash("A"),), "metrics": {"loss": 0.5}})
    save_model(Store(tmp_path / "model"), spec, dict(generator.network.state_dict()))
    return tmp_path / "model"


def edit(folder: Path, **changes: object) -> None:
    path = folder / "model.json"
    path.write_text(json.dumps(sealed({**json.loads(path.read_text()), **changes})))


def test_round_trip(generator: Generator, folder: Path) -> None:
    loaded = load_generator(str(folder))
    assert loaded.sha256
    assert loaded.spec.subject_hashes == (subject_hash("A"),)
    assert loaded.spec.vocabulary == generator.spec.vocabulary
    assert not loaded.network.training
    for name, value in generator.network.state_dict().items():
        assert torch.equal(value, loaded.network.state_dict()[name])


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_missing_file(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=f"no {name}"):
        load_generator(str(folder))


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no model\.json"):
        load_generator(str(tmp_path / "nowhere"))


def test_damaged_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="sha256"):
        load_generator(str(folder))


def test_weights_that_are_no_safetensors(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"junk")
    edit(folder, sha256=hashlib.sha256(b"junk").hexdigest())
    with pytest.raises(CheckpointError, match="do not fit"):
        load_generator(str(folder))


def test_weights_of_another_network(folder: Path) -> None:
    content = safetensors.torch.save({"a": torch.zeros(1)})
    (folder / "model.safetensors").write_bytes(content)
    edit(folder, sha256=hashlib.sha256(content).hexdigest())
    with pytest.raises(CheckpointError, match="do not fit"):
        load_generator(str(folder))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 2}, "format version 1"),
        ({"kind": "poet"}, "kind"),
        ({"surprise": 1}, "surprise"),
        ({"channels": []}, "channels"),
    ],
)
def test_spec_that_does_not_hold(folder: Path, changes: dict[str, object], message: str) -> None:
    edit(folder, **changes)
    with pytest.raises(CheckpointError, match=message):
        load_generator(str(folder))


def test_spec_that_is_no_json(folder: Path) -> None:
    (folder / "model.json").write_text("{")
    with pytest.raises(CheckpointError, match="JSON"):
        load_generator(str(folder))


def test_regions_keep_their_order(generator: Generator, tmp_path: Path) -> None:
    """The n-th plane is the n-th region, whatever its name."""
    regions = {"whole": ("a", "b"), "core": ("a",), "another": ("b",)}
    spec = generator.spec.model_copy(update={"regions": regions})
    save_model(Store(tmp_path), spec, dict(generator.network.state_dict()))
    assert list(read_spec(str(tmp_path)).regions) == list(regions)


def test_other_channels_are_refused(generator: Generator) -> None:
    generator.check(("t1",), IntensityRule())
    with pytest.raises(CheckpointError, match="t1"):
        generator.check(("flair",), IntensityRule())


def test_untrained_differs_by_seed_and_is_not_the_zero_image(generator: Generator) -> None:
    first, again, other = (untrained(generator, seed) for seed in (3, 3, 4))
    assert first.sha256 == again.sha256 != other.sha256
    assert first.spec.network == generator.spec.network
    x = torch.randn(2, 1, 16, 16)
    condition = acquired(generator, [Acquisition(), Acquisition()])
    assert float(first.denoise(x, torch.tensor([500, 500]), condition).std()) > 0.01


def test_building_leaves_the_global_random_state_alone(generator: Generator) -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    untrained(generator, seed=1)
    assert torch.equal(torch.rand(3), expected)
