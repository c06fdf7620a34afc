"""What trains an autoencoder: image, reconstruction and latent moments in; named loss terms and their total out.

L1, KL divergence, perceptual distance and a patch discriminator (paper 002, 2.3; Rombach et al. 2022, app. G).
Legend: B rows, C channels, Z latent channels, `*` spatial axes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from augengine.errors import ConfigError
from augengine.yaml_config import Strict, Width


class AutoencodingLossSpec(Strict):
    """Weights of the terms beside the mean absolute error.

    Attributes:
        kl_weight: of the divergence from the unit normal, summed over a row's latent.
        overlap_weight: of 1 - Dice, for label planes: a lesion of a hundredth of the image is worth 2 % of L1, so that
            L1 alone is content with empty maps for long.
        perceptual_weight: of the distance of features; more than 0 needs an extractor.
        adversarial_weight: of the discriminator's verdict; 0 builds no discriminator.
        adversarial_start: step from which the discriminator learns and is heard.
        discriminator_channels: features of its first layer; they double in every layer.
        discriminator_layers: strided layers of the discriminator.
    """

    kl_weight: float = Field(default=1e-6, ge=0)
    overlap_weight: float = Field(default=0.0, ge=0)
    perceptual_weight: float = Field(default=0.0, ge=0)
    adversarial_weight: float = Field(default=0.0, ge=0)
    adversarial_start: int = Field(default=0, ge=0)
    discriminator_channels: Width = 64
    discriminator_layers: int = Field(default=3, ge=1, le=10)


class AutoencodingLoss(nn.Module):
    """`forward(x, reconstruction, mean, log_variance, step)` to a dictionary of scalars with `total`.

    One backward pass over `total` trains autoencoder and discriminator: each adversarial term reaches its own side
    only. The discriminator's parameters are this module's, for the same optimiser or another.

    Args:
        spec: the weights.
        channels: C.
        spatial_dims: 2 or 3.
        features: a module or function from images (B, C, *) to a list of feature maps (B, F, *); frozen here.

    Raises:
        ConfigError: `perceptual_weight` is above 0 without `features`.
    """

    def __init__(
        self,
        spec: AutoencodingLossSpec,
        channels: int,
        spatial_dims: int,
        features: Callable[[Tensor], list[Tensor]] | None = None,
    ) -> None:
        super().__init__()
        if spec.perceptual_weight > 0 and features is None:
            raise ConfigError(
                "a perceptual loss needs a feature extractor",
                found=f"perceptual_weight {spec.perceptual_weight:g}",
                next_step="set perceptual_weight to 0, or pass an extractor",
            )
        self.spec = spec
        self.features = features
        if isinstance(features, nn.Module):
            features.requires_grad_(False).eval()
        self.discriminator: nn.Module | None = None
        if spec.adversarial_weight > 0:
            from monai.networks.nets import PatchDiscriminator  # late: importing MONAI takes seconds

            # Instance normalisation: no running state, and a row's verdict does not depend on its batch.
            self.discriminator = PatchDiscriminator(
                spatial_dims=spatial_dims,
                channels=spec.discriminator_channels,
                in_channels=channels,
                num_layers_d=spec.discriminator_layers,
                norm=("instance", {"affine": True}),
            )

    def train(self, mode: bool = True) -> AutoencodingLoss:
        """As `nn.Module.train`; the extractor stays in evaluation mode."""
        super().train(mode)
        if isinstance(self.features, nn.Module):
            self.features.eval()
        return self

    def forward(
        self, x: Tensor, reconstruction: Tensor, mean: Tensor, log_variance: Tensor, step: int
    ) -> dict[str, Tensor]:
        """Unweighted terms and `total`.

        Keys: `reconstruction`, `kl`, `total`; `overlap`, `perceptual`, `adversarial` and `discriminator` where
        their weight is above 0. Before `adversarial_start` the last two count 0 in `total` but stay in its graph, so
        that every parameter has a gradient in every step, which gradient synchronisation between workers relies on.
        """
        terms = {"reconstruction": functional.l1_loss(reconstruction, x), "kl": _divergence(mean, log_variance)}
        total = terms["reconstruction"] + self.spec.kl_weight * terms["kl"]
        if self.spec.overlap_weight > 0:
            terms["overlap"] = soft_dice_loss(((reconstruction + 1) / 2).clamp(0, 1), (x + 1) / 2)
            total = total + self.spec.overlap_weight * terms["overlap"]
        if self.features is not None and self.spec.perceptual_weight > 0:
            terms["perceptual"] = self._perceptual(x, reconstruction)
            total = total + self.spec.perceptual_weight * terms["perceptual"]
        if self.discriminator is not None:
            terms["adversarial"], terms["discriminator"] = self._adversarial(self.discriminator, x, reconstruction)
            heard = float(step >= self.spec.adversarial_start)
            total = total + heard * (self.spec.adversarial_weight * terms["adversarial"] + terms["discriminator"])
        return {**terms, "total": total}

    def _perceptual(self, x: Tensor, reconstruction: Tensor) -> Tensor:
        """Mean square distance of features of unit length, summed over layers (Zhang et al. 2018, eq. 1, w = 1)."""
        assert self.features is not None
        with torch.no_grad():
            wanted = self.features(x)
        pairs = zip(self.features(reconstruction), wanted, strict=True)
        units = [(functional.normalize(a, dim=1), functional.normalize(b, dim=1)) for a, b in pairs]
        return torch.stack([((a - b) ** 2).sum(1).mean() for a, b in units]).sum()

    def _adversarial(self, discriminator: nn.Module, x: Tensor, reconstruction: Tensor) -> tuple[Tensor, Tensor]:
        """The autoencoder's and the discriminator's term of a least-squares GAN (Mao et al. 2017, eq. 9)."""
        smallest = 3 * 2**self.spec.discriminator_layers
        if min(x.shape[2:]) < smallest:
            raise ConfigError(
                f"{self.spec.discriminator_layers} discriminator layers need images of at least {smallest}",
                found=tuple(x.shape[2:]),
                next_step="lower discriminator_layers",
            )
        # The same weights as constants: the autoencoder's term must not teach the discriminator to be fooled.
        constants = {name: p.detach() for name, p in discriminator.named_parameters()}
        judged = functional_call(discriminator, constants, (reconstruction,))[-1]
        real, drawn = discriminator(x)[-1], discriminator(reconstruction.detach())[-1]
        return ((judged - 1) ** 2).mean(), 0.5 * (((real - 1) ** 2).mean() + (drawn**2).mean())


def soft_dice_loss(found: Tensor, truth: Tensor) -> Tensor:
    """1 - Dice of probabilities (B, R, *) with masks, summed over rows and space, then the mean of regions.

    Summing over the rows first keeps rows without a region from teaching that a trace of it is as wrong as a lot.
    """
    axes = (0, *range(2, truth.ndim))
    overlap, size = (found * truth).sum(axes), found.sum(axes) + truth.sum(axes)
    return 1 - ((2 * overlap + 1) / (size + 1)).mean()


def _divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL divergence from the unit normal (Kingma and Welling 2014, app. B): sum over the latent, mean over rows."""
    mean, log_variance = mean.float(), log_variance.float()
    return 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).flatten(1).sum(1).mean()
