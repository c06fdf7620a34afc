"""Extractors from weights on disk: what is computed, and that other weights are noticed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from builders import LESION_CODES
from monai.networks.nets import resnet50

from augengine.diffusion.build import build
from augengine.diffusion.checkpoint import save_model
from augengine.diffusion.discriminative import SegmenterSpec
from augengine.diffusion.spec import ModelSpec
from augengine.errors import CheckpointError, ConfigError, DataError
from augengine.io.store import Store
from augengine.metrics.extractors import from_safetensors, load_extractor
from augengine.metrics.meshnet import load_meshnet

IMAGES = np.random.default_rng(0).normal(0.5, 0.3, (3, 1, 24, 24)).astype(np.float32)


def write_meshnet(folder: Path, kernels: list[np.ndarray], biases: list[np.ndarray], act: str = "relu") -> str:
    """A MeshNet as TensorFlow.js writes it: kernels (i, j, k, in, out), dilated 1, 2, 1, … and a last layer of 1."""
    folder.mkdir(exist_ok=True)
    layers: list[dict[str, Any]] = [{"class_name": "InputLayer", "config": {"name": "input"}}]
    weights, content = [], b""
    for n, (kernel, bias) in enumerate(zip(kernels, biases, strict=True)):
        config = {
            "name": f"c{n}",
            "filters": kernel.shape[-1],
            "kernel_size": list(kernel.shape[:3]),
            "use_bias": True,
            "dilation_rate": [1 + n % 2] * 3,
            "padding": "same",
            "strides": [1, 1, 1],
            "activation": "linear",
        }
        layers.append({"class_name": "Conv3D", "config": config})
        if n < len(kernels) - 1:
            layers.append({"class_name": "Activation", "config": {"name": f"a{n}", "activation": act}})
        for part, values in (("kernel", kernel), ("bias", bias)):
            weights.append({"name": f"c{n}/{part}", "shape": list(values.shape), "dtype": "float32"})
            content += values.astype("<f4").tobytes()
    text = {
        "modelTopology": {"model_config": {"config": {"layers": layers}}},
        "weightsManifest": [{"paths": ["w.bin"], "weights": weights}],
    }
    (folder / "model.json").write_text(json.dumps(text))
    (folder / "w.bin").write_bytes(content)
    return str(folder)


@pytest.fixture
def meshnet(tmp_path: Path) -> str:
    rng = np.random.default_rng(1)
    shapes = [(3, 3, 3, 1, 4), (3, 3, 3, 4, 4), (1, 1, 1, 4, 2)]
    return write_meshnet(tmp_path / "net", [rng.normal(size=s) / 3 for s in shapes], [np.zeros(s[-1]) for s in shapes])


def test_meshnet_kernels_keep_their_axes(tmp_path: Path) -> None:
    """One weight at (0, 1, 2): the output at a voxel is the input one back along i and one on along k."""
    kernel = np.zeros((3, 3, 3, 1, 1))
    kernel[0, 1, 2] = 2.0
    path = write_meshnet(tmp_path / "net", [kernel, np.ones((1, 1, 1, 1, 2))], [np.array([0.5]), np.zeros(2)])
    x = torch.zeros(1, 1, 5, 5, 5)
    x[0, 0, 2, 2, 2] = 1
    found = load_meshnet(path)[0](x)[0, 0]
    assert found[3, 2, 1] == 2.5
    assert (found == 0.5).sum() == 124


def test_meshnet_sees_a_slice_as_a_volume_of_copies(meshnet: str) -> None:
    network, _ = load_meshnet(meshnet)
    x = torch.from_numpy(IMAGES)
    volume = x[..., None].expand(-1, -1, -1, -1, 15)
    assert torch.allclose(network(x), network(volume)[..., 7], atol=1e-5)


def test_meshnet_features_and_their_hash(meshnet: str) -> None:
    extractor = load_extractor("meshnet", meshnet)
    folder = Path(meshnet)
    expected = hashlib.sha256((folder / "model.json").read_bytes() + (folder / "w.bin").read_bytes()).hexdigest()
    assert extractor.id == f"meshnet-1:{expected[:12]}"
    found = extractor.features(np.concatenate([IMAGES, 2 * IMAGES + 1], axis=1))
    assert found.shape == (3, 2 * 2 * 4)
    assert np.allclose(found[:, :4], found[:, 4:8], atol=1e-5), "percentiles make it blind to scale"
    alone = extractor.features(IMAGES[1:2])
    assert (alone == extractor.features(IMAGES)[1:2]).all(), "a row does not depend on its neighbours"
    assert load_extractor("meshnet", meshnet, expected[:16]).id == extractor.id
    with pytest.raises(CheckpointError, match="sha256"):
        load_extractor("meshnet", meshnet, "0" * 64)


def test_broken_meshnets_are_refused(meshnet: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no model\.json"):
        load_extractor("meshnet", str(tmp_path / "none"))
    (Path(meshnet) / "w.bin").write_bytes((Path(meshnet) / "w.bin").read_bytes()[:-4])
    with pytest.raises(CheckpointError, match="float32 numbers"):
        load_extractor("meshnet", meshnet)
    other = write_meshnet(tmp_path / "other", [np.ones((3, 3, 3, 1, 1))] * 2, [np.zeros(1)] * 2, act="tanh")
    with pytest.raises(CheckpointError, match="tanh"):
        load_extractor("meshnet", other)


def test_published_meshnets_load_and_tell_noise_from_images(real_data: Path) -> None:
    for name, width, values in (("model5_gw_ae", 5, 5_598), ("model20chan3cls", 20, 87_183)):
        folder = real_data / "C1_meshnet_brain_weights" / name
        network, sha256 = load_meshnet(str(folder))
        head = 3 * (width + 1)  # the classes' layer is left out
        assert sum(p.numel() for p in network.parameters()) + head == values
        disc = (np.mgrid[:48, :48] - 24.0) ** 2
        images = np.stack([(disc.sum(0) < 400) * 1.0, np.random.default_rng(0).uniform(size=(48, 48))])
        found = load_extractor("meshnet", str(folder), sha256).features(images[:, None].astype(np.float32))
        assert found.shape == (2, 2 * width)
        assert np.abs(found[0] - found[1]).max() > 0.1


def test_the_referee_is_an_extractor(tmp_path: Path) -> None:
    spec = ModelSpec(
        kind="segmenter",
        network=SegmenterSpec(channels=(4, 8)),
        channels=("t1",),
        labels=tuple(LESION_CODES),
        regions={"whole": ("necrosis", "enhancing", "oedema")},
        image_size=(24, 24),
        spacing_mm=(2.0, 2.0),
    )
    network = build(spec, seed=3)
    saved = save_model(Store(tmp_path), spec, network.state_dict())
    extractor = load_extractor("checkpoint", str(tmp_path))
    assert (extractor.id, extractor.channels) == (f"segmenter-1:{saved.sha256[:12]}", ("t1",))
    with torch.no_grad():
        maps = network.eval().features(torch.from_numpy(IMAGES))[0].flatten(2)
    expected = torch.cat([maps.mean(2), maps.std(2, correction=0)], dim=1)
    assert extractor.features(IMAGES) == pytest.approx(expected.numpy(), abs=1e-5)


def test_a_resnet_under_torchvisions_names(tmp_path: Path) -> None:
    network = resnet50(spatial_dims=2, n_input_channels=3, conv1_t_stride=2, bias_downsample=False, num_classes=7)
    weights = network.state_dict()
    assert len(weights) == 320, "torchvision's ResNet-50 has as many entries"
    assert {"conv1.weight", "layer1.0.downsample.0.weight", "layer4.2.bn3.running_var", "fc.bias"} <= weights.keys()
    safetensors.torch.save_file(weights, tmp_path / "resnet.safetensors")
    extractor = load_extractor("resnet50", str(tmp_path / "resnet.safetensors"))
    assert extractor.sha256 == hashlib.sha256((tmp_path / "resnet.safetensors").read_bytes()).hexdigest()
    found = extractor.features(IMAGES[:2])
    assert found.shape == (2, 2048)
    grey = np.repeat(IMAGES[:2].clip(0, 1), 3, axis=1)
    assert extractor.features(grey) == pytest.approx(found, abs=1e-5)
    with pytest.raises(DataError, match="slices"):
        extractor.features(IMAGES[..., None])


def test_any_other_network_is_plugged_in(tmp_path: Path) -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 1))
    file = str(tmp_path / "w.safetensors")
    safetensors.torch.save_file(network.state_dict(), file)
    found = from_safetensors("mine", network, file).features(IMAGES)
    standard = (IMAGES.clip(0, 1).mean(axis=(2, 3)) - [[0.485, 0.456, 0.406]]) / [[0.229, 0.224, 0.225]]
    weight, bias = (p.detach().numpy() for p in network.parameters())
    assert found == pytest.approx(standard @ weight[:, :, 0, 0].T + bias, abs=1e-5)
    with pytest.raises(CheckpointError, match="name by name"):
        from_safetensors("mine", torch.nn.Conv2d(3, 2, 1), file)
    with pytest.raises(CheckpointError, match="never downloaded"):
        from_safetensors("mine", network, str(tmp_path / "none.safetensors"))


def test_kinds_and_paths_belong_together() -> None:
    assert load_extractor("radiomics").id == "radiomics-1"
    for wrong in (("meshnet",), ("radiomics", "x")):
        with pytest.raises(ConfigError, match="weights_path"):
            load_extractor(*wrong)
    with pytest.raises(ConfigError, match="unknown extractor 'inception'; valid: checkpoint"):
        load_extractor("inception", "x")
