"""A kind of network and a path to its weights in, a hashed feature extractor out; nothing is ever downloaded.

| kind | weights_path | features per row |
|---|---|---|
| checkpoint | folder of a segmenter that this project trained, such as the referee | mean and SD over space of what its head reads |
| meshnet | folder with a TensorFlow.js MeshNet (brainchop) | mean and SD over space of its last hidden layer, per channel |
| resnet50 | safetensors with a ResNet-50 under torchvision's names, of ImageNet or RadImageNet | 2048, slices only |
| radiomics | none | 27 per channel |

Installed packages add other kinds (`augengine.extractors`): functions of weights_path and device. Any other network,
Inception among them, is made one by `from_safetensors`.
"""  # noqa: E501

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from augengine.diffusion.checkpoint import load_model
from augengine.diffusion.discriminative import Segmenter
from augengine.errors import CheckpointError, ConfigError, DataError
from augengine.io.store import Store
from augengine.metrics.chunks import chunked
from augengine.metrics.extractor import Extractor
from augengine.metrics.meshnet import load_meshnet
from augengine.metrics.radiomics import RADIOMICS
from augengine.plugins import Registry

IMAGENET_MEAN, IMAGENET_SD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def load_extractor(
    kind: str, weights_path: str | None = None, sha256: str | None = None, device: str = "cpu"
) -> Extractor:
    """An extractor of one of the kinds above.

    Args:
        kind: which network.
        weights_path: folder or file; any fsspec URI.
        sha256: the hash that the weights must have, or at least its beginning; None takes any and records it.
        device: of the network.

    Raises:
        CheckpointError: missing, damaged or unfitting weights, or another hash.
        ConfigError: an unknown kind, or a path where none belongs or the other way round.
    """
    make = EXTRACTORS.find(kind, "--extractor")
    if made := EXTRACTORS.made_by(kind):
        extractor = make(weights_path, device)
        ((package, version),) = made.items()  # other code may make other features of the same weights
        return _checked(replace(extractor, name=f"{extractor.name}@{package}-{version}"), sha256, str(weights_path))
    if (kind == "radiomics") != (weights_path is None):
        raise ConfigError(
            "an extractor is checkpoint, meshnet or resnet50 with a weights_path, or radiomics without",
            found=f"{kind}, {weights_path}",
        )
    return _checked(make(weights_path, device), sha256, str(weights_path))


def from_safetensors(
    name: str, network: nn.Module, weights_path: str, sha256: str | None = None, device: str = "cpu"
) -> Extractor:
    """Any 2D network for colour pictures, with its weights loaded strictly, but for a classifier named `fc`.

    Args:
        name: of architecture and preprocessing; another preprocessing is another name.
        network: (B, 3, I, J), grey values 0…1 clipped, repeated thrice and standardised as ImageNet's, to (B, F) or
            to maps (B, F, *), which are averaged.
        weights_path: a safetensors file.
        sha256, device: as in `load_extractor`.
    """
    store, file = Store(weights_path.rpartition("/")[0] or "."), weights_path.rpartition("/")[2]
    try:
        content = store.read(file)
        weights = {k: v for k, v in safetensors.torch.load(content).items() if not k.startswith("fc.")}
        network.load_state_dict(weights, strict=True)
    except FileNotFoundError:
        raise CheckpointError(
            "weights are never downloaded: give a file",
            found="none there",
            where=weights_path,
            next_step="download and convert it to safetensors once",
        ) from None
    except (SafetensorError, RuntimeError) as error:
        raise CheckpointError(
            "the weights must fit the network, name by name",
            where=weights_path,
            found=str(error).splitlines()[-1].strip(),
        ) from None
    frozen = network.eval().requires_grad_(False).to(device)
    found = hashlib.sha256(content).hexdigest()
    return _checked(Extractor(name, _pictures(frozen, device), found), sha256, weights_path)


def _checked(extractor: Extractor, sha256: str | None, where: str) -> Extractor:
    if sha256 and not extractor.sha256.startswith(sha256.lower()):
        raise CheckpointError(
            f"the weights must have sha256 {sha256}",
            found=extractor.sha256,
            where=where,
            next_step="get these very weights, or state the hash of yours",
        )
    return extractor


def _radiomics(weights_path: None, device: str) -> Extractor:
    return RADIOMICS


def _meshnet(weights_path: str, device: str) -> Extractor:
    network, found = load_meshnet(weights_path)
    return Extractor("meshnet-1", _pooled(_per_channel(network.to(device)), device), found)


def _resnet50(weights_path: str, device: str) -> Extractor:
    from monai.networks.nets import resnet50  # late: importing MONAI takes seconds

    network = resnet50(spatial_dims=2, n_input_channels=3, conv1_t_stride=2, feed_forward=False, bias_downsample=False)
    return from_safetensors("resnet50-1", network, weights_path, device=device)


def _checkpoint(uri: str, device: str) -> Extractor:
    model = load_model(uri, device)
    if not isinstance(model.network, Segmenter):
        raise CheckpointError("features are taken from a segmenter", found=model.spec.kind, where=uri)
    network = model.network
    pooled = _pooled(lambda x: network.features(x)[0], device)
    return Extractor("segmenter-1", pooled, model.sha256, model.spec.channels)


def _per_channel(network: nn.Module) -> Callable[[Tensor], Tensor]:
    """A network of one channel, 0…1 from its 5th to its 95th percentile, applied to every channel of (B, C, *)."""

    def run(x: Tensor) -> Tensor:
        channels = []
        for channel in torch.split(x, 1, dim=1):
            flat = channel.flatten(1).cpu().numpy()
            low, high = np.percentile(flat, (5, 95), axis=1)
            shape = (-1, *[1] * (x.ndim - 1))
            low_B, span_B = (
                torch.from_numpy(v.astype(np.float32)).to(x.device).reshape(shape)
                for v in (low, np.maximum(high - low, 1e-6))
            )
            channels.append(network(((channel - low_B) / span_B).clamp(0, 1)))
        return torch.cat(channels, dim=1)

    return run


def _pooled(maps: Callable[[Tensor], Tensor], device: str) -> Callable[[np.ndarray], np.ndarray]:
    """Mean and SD over space of feature maps: a mean alone would hardly tell texture."""

    def run(x: Tensor) -> Tensor:
        flat = maps(x).flatten(2).double()
        return torch.cat([flat.mean(2), flat.std(2, correction=0)], dim=1)

    return chunked(run, device)


def _pictures(network: nn.Module, device: str) -> Callable[[np.ndarray], np.ndarray]:
    mean, sd = (torch.tensor(v, device=device)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_SD))

    def run(x: Tensor) -> Tensor:
        if x.ndim != 4 or x.shape[1] not in (1, 3):
            raise DataError(
                "a network for pictures takes slices of one or three channels",
                found=tuple(x.shape),
                next_step="use another extractor, or shards of slices",
            )
        out: Tensor = network((x.expand(-1, 3, -1, -1).clamp(0, 1) - mean) / sd)
        return out if out.ndim == 2 else out.flatten(2).mean(2)

    return chunked(run, device)


def _maker(name: str, make: Any) -> Callable[..., Extractor]:
    if not callable(make):
        raise TypeError(f"{make!r} is no function of weights_path and device")
    found: Callable[..., Extractor] = make
    return found


EXTRACTORS: Registry[Callable[..., Extractor]] = Registry(
    "extractor",
    {"checkpoint": _checkpoint, "meshnet": _meshnet, "resnet50": _resnet50, "radiomics": _radiomics},
    _maker,
)
"""Kind → function of weights_path (None where it has none) and device."""
