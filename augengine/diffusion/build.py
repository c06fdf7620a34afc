"""A `ModelSpec` in, a freshly initialised network out."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from augengine.diffusion.autoencoder import Autoencoder, AutoencoderSpec
from augengine.diffusion.control import ControlSpec
from augengine.diffusion.denoisers import ControlDenoiser, DiTDenoiser, GenerativeNetwork
from augengine.diffusion.discriminative import Predictor, PredictorSpec, Segmenter, SegmenterSpec
from augengine.diffusion.dit import DiTSpec
from augengine.diffusion.lesion_bank import LesionBank, LesionBankSpec
from augengine.diffusion.local_contrast import LocalContrast, LocalContrastSpec
from augengine.diffusion.spec import ModelSpec
from augengine.diffusion.unet import DenoisingUNet


def build(spec: ModelSpec, seed: int = 0, parts: Mapping[str, nn.Module] | None = None) -> nn.Module:
    """Random weights of `seed`; the caller's global random state is left as it was.

    Args:
        spec: the model.
        seed: of all random weights.
        parts: trained networks of `spec.parts`, by role; None draws them at random, to be loaded over.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _build(spec, parts)


def _build(spec: ModelSpec, parts: Mapping[str, nn.Module] | None = None) -> nn.Module:
    network, dims = spec.network, spec.spatial_dims
    if isinstance(network, AutoencoderSpec):
        return Autoencoder(network, spec.content_channels, dims, of_images=spec.content == "image")
    if isinstance(network, SegmenterSpec):
        return Segmenter(network, len(spec.channels), spec.outputs, dims, spec.intensity, spec.vocabulary)
    if isinstance(network, PredictorSpec):
        return Predictor(network, len(spec.channels), spec.outputs, dims, spec.intensity)
    if isinstance(network, LocalContrastSpec):
        assert spec.vocabulary is not None  # every acquisition model has one
        return LocalContrast(network, len(spec.channels), spec.vocabulary)
    if isinstance(network, LesionBankSpec):
        return LesionBank(network, len(spec.channels), dims)
    parts = parts or {role: _build(part) for role, part in spec.parts.items()}
    if isinstance(network, ControlSpec):
        prior = parts["prior"]
        assert isinstance(prior, GenerativeNetwork)
        assert isinstance(prior.body, DenoisingUNet)
        steered = ControlDenoiser(network, prior.body, image_channels=spec.condition_planes, spatial_dims=dims)
        return GenerativeNetwork(steered, dict(prior.parts.items()), spec.intensity, len(spec.channels))
    channels, size = spec.content_channels, spec.image_size
    if (autoencoder := parts.get("autoencoder")) is not None:
        assert isinstance(autoencoder, Autoencoder)
        channels, size = autoencoder.latent_channels, autoencoder.latent_size(size)
    inputs = {"condition_planes": spec.condition_planes, "classes": len(spec.classes)}
    if isinstance(network, DiTSpec):
        return GenerativeNetwork(DiTDenoiser(network, channels, **inputs, image_size=size), parts)
    tissues = len(spec.labels) if network.tissue_curves else 0
    return GenerativeNetwork(
        DenoisingUNet(network, channels, **inputs, tissues=tissues, vocabulary=spec.vocabulary, spatial_dims=dims),
        parts,
        spec.intensity,
        len(spec.channels),
    )
