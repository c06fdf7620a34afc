"""Denoising: noisy content in, the squared error of what the network says of it out (Ho et al. 2020, eq. 14).

What is noised and what the network is shown depends on the model's kind alone: see `examples`.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from augengine.diffusion.samplers import ddim
from augengine.diffusion.schedules import Schedule, clean_estimate, loss_weight, target
from augengine.train.data import Batch
from augengine.train.objectives.base import PICTURE_ROWS, Objective, Picture
from augengine.train.objectives.examples import example

PICTURE_STEPS, PICTURE_PLANES = 20, 6


class Denoising(Objective):
    """Any generator, of pixels or latents."""

    def __init__(self, *args: object, **options: object) -> None:
        super().__init__(*args, **options)  # type: ignore[arg-type]
        assert self.spec.diffusion is not None  # `Recipe` sees to it
        self.schedule = Schedule(self.spec.diffusion)

    def forward(self, batch: Batch, seed: int, step: int) -> dict[str, Tensor]:
        """`total`: squared error weighted over timesteps and pixels."""
        generator = torch.Generator().manual_seed(seed)
        shown = example(self, batch, generator)
        rows, diffusion, loss = len(batch.images), self.schedule.spec, self.recipe.loss
        conditioning = shown.conditioning
        if self.training:
            conditioning = conditioning.drop(torch.rand(rows, generator=generator) < self.recipe.condition_dropout)
        x0 = self.network.encode(shown.content.to(self.device))
        t_B = torch.randint(0, diffusion.timesteps, (rows,), generator=generator)
        noise = torch.randn(x0.shape, generator=generator).to(x0)
        x_t = self.schedule.noised(x0, noise, t_B)
        output = self.network(x_t, t_B.to(self.device), conditioning.to(self.device))
        error = (output.float() - target(diffusion.parametrisation, self.schedule, x0, noise, t_B)).square()
        if shown.weight is not None:
            weight = shown.weight.to(self.device).expand_as(error)
            error = error * weight / weight.flatten(1).mean(1).clamp(min=1e-3).view(-1, *[1] * (error.ndim - 1))
        weight_B = loss_weight(diffusion, self.schedule, t_B, loss.weighting, loss.min_snr_gamma).to(self.device)
        return {"total": (error.flatten(1).mean(1) * weight_B).mean()}

    @torch.no_grad()
    def pictures(self, batch: Batch, seed: int) -> list[Picture]:
        """Of each row: the content, what the network is shown, and a sample."""
        batch = batch.part(slice(PICTURE_ROWS))
        shown = example(self, batch, torch.Generator().manual_seed(seed))
        low, high = self.schedule.spec.x0_range
        conditioning = shown.conditioning.to(self.device)
        content = shown.content.to(self.device)
        like = self.network.encode(content)
        noise = torch.randn(like.shape, generator=torch.Generator().manual_seed(seed + 1)).to(like)

        def denoise(x_t: Tensor, t_B: Tensor) -> Tensor:
            output = self.network(x_t, t_B.to(x_t.device), conditioning).float()
            x0 = clean_estimate(self.schedule.spec.parametrisation, self.schedule, output, x_t, t_B)
            return x0.clamp(low, high)

        steps = [*self.schedule.timesteps(1.0, PICTURE_STEPS), -1]
        drawn = self.network.decode(ddim(denoise, noise, steps, self.schedule), content.shape[2:])
        columns = [("content", content), ("sample", drawn)]
        if conditioning.planes is not None:
            columns.insert(1, ("shown", conditioning.planes[:, :PICTURE_PLANES]))
        return [
            (f"row {n}: {' | '.join(name for name, _ in columns)}", [_array(images[n]) for _, images in columns])
            for n in range(len(content))
        ]


def _array(image: Tensor) -> np.ndarray:
    return image.float().cpu().numpy()
