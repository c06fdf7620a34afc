"""Every generator behind one call: noisy content, timesteps and conditioning in; raw output out.

A latent generator works on the latents of a frozen autoencoder; a corrector or segmenter on top of other frozen
models. These parts belong to the network, so that one weights file holds all that sampling needs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from augengine.diffusion.autoencoder import Autoencoder
from augengine.diffusion.conditioning import Conditioning
from augengine.diffusion.control import ControlledUNet, ControlSpec
from augengine.diffusion.dit import DiT, DiTSpec
from augengine.diffusion.intensity_spec import IntensityRecipe
from augengine.diffusion.unet import DenoisingUNet


class GenerativeNetwork(nn.Module):
    """A trainable `body` and frozen `parts` by role; `forward(x_t, t, conditioning)` to the raw output.

    `x_t` is in latent space if there is an autoencoder, else content at full resolution.

    Args:
        intensity: the scale that the body sees images on; another than that of normalised rows is for models that are
            shown an image and draw none.
        channels: of that image, the first of the planes.
    """

    def __init__(
        self,
        body: nn.Module,
        parts: Mapping[str, nn.Module],
        intensity: IntensityRecipe = IntensityRecipe(),  # noqa: B008  (frozen)
        channels: int = 0,
    ) -> None:
        super().__init__()
        self.body, self.intensity, self.channels = body, intensity, channels
        self.parts = nn.ModuleDict(parts).requires_grad_(False)

    def forward(self, x_t: Tensor, t_B: Tensor, conditioning: Conditioning) -> Tensor:
        """Raw output (B, C, *) in the shape of `x_t`."""
        planes = conditioning.planes
        if planes is not None and not self.intensity.plain:
            image, rest = planes[:, : self.channels], planes[:, self.channels :]
            conditioning = replace(conditioning, planes=torch.cat([self.intensity.shown(image), rest], dim=1))
        out: Tensor = self.body(x_t, t_B, conditioning)
        return out

    def prepared(self, conditioning: Conditioning, rows: int) -> Conditioning:
        """`conditioning` of so many rows with all that is the same at every step of a chain."""
        return self.body.prepared(conditioning, rows) if isinstance(self.body, DenoisingUNet) else conditioning

    def train(self, mode: bool = True) -> GenerativeNetwork:
        """Frozen parts stay in evaluation mode."""
        super().train(mode)
        self.parts.eval()
        return self

    @property
    def autoencoder(self) -> Autoencoder | None:
        """The frozen autoencoder; None for a model of pixels."""
        found = dict(self.parts.items()).get("autoencoder")
        return found if isinstance(found, Autoencoder) else None

    @torch.no_grad()
    def encode(self, content: Tensor, generators: Sequence[torch.Generator] | None = None) -> Tensor:
        """What diffusion works on: scaled latents (their mean without `generators`), or the content itself."""
        return content if self.autoencoder is None else self.autoencoder.latents(content, generators)

    @torch.no_grad()
    def decode(self, latents: Tensor, size: Sequence[int]) -> Tensor:
        """Inverse of `encode`, cropped to the spatial `size`."""
        return latents if self.autoencoder is None else self.autoencoder.images(latents, tuple(size))


class DiTDenoiser(nn.Module):
    """A diffusion transformer; planes are concatenated, acquisition tokens it cannot take."""

    def __init__(
        self, spec: DiTSpec, channels: int, *, condition_planes: int, classes: int, image_size: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.condition_planes = condition_planes
        self.dit = DiT(spec, channels + condition_planes, channels, classes, image_size)

    def forward(self, x: Tensor, t_B: Tensor, conditioning: Conditioning) -> Tensor:
        """Raw output (B, C, H, W)."""
        if self.condition_planes:
            planes = conditioning.planes
            x = torch.cat(
                [x, x.new_zeros(len(x), self.condition_planes, *x.shape[2:]) if planes is None else planes.to(x)], 1
            )
        classes = conditioning.classes
        out: Tensor = self.dit(x, t_B, torch.zeros_like(t_B) if classes is None else classes)
        return out


class ControlDenoiser(nn.Module):
    """A frozen prior steered by the image in `conditioning.planes`, which has the content's full resolution."""

    def __init__(self, spec: ControlSpec, prior: DenoisingUNet, *, image_channels: int, spatial_dims: int) -> None:
        super().__init__()
        self.controlled = ControlledUNet(spec, prior.unet, image_channels, spatial_dims)

    def forward(self, x: Tensor, t_B: Tensor, conditioning: Conditioning) -> Tensor:
        """Raw output (B, C, *)."""
        assert conditioning.planes is not None  # the model's kind sees to it
        out: Tensor = self.controlled(x, t_B, conditioning.planes.to(x))
        return out
