"""A source image to its counterfactual under another acquisition, by one of three methods over a `Generator`.

All images are float32 (B, C, H, W), normalised as in training (10th percentile of the volume 0, 99th 1, unclipped).
`seeds` holds one integer per row; a row's result does not depend on its neighbours or its place.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from augengine.diffusion.checkpoint import Generator
from augengine.diffusion.conditioning import Conditioning
from augengine.diffusion.guidance import Guidance, guided
from augengine.diffusion.samplers import (
    Denoiser,
    Solver,
    ddim,
    ddim_inverse,
    row_generators,
    row_noise,
    sample,
    spacing_of,
)
from augengine.diffusion.structure import opposed_heights, recolour, structure_planes
from augengine.errors import CheckpointError, ConfigError
from augengine.records import Acquisition

# Deviation of an image that shows next to nothing: about the noise of a scan, normalised.
_FLAT = 0.02


def sdedit(
    generator: Generator,
    x: np.ndarray,
    target: Sequence[Acquisition],
    seeds: Sequence[int],
    *,
    steps: int,
    strength: float,
    guidance: Guidance = Guidance(),  # noqa: B008  (frozen)
    solver: Solver = "ddpm",
) -> np.ndarray:
    """Noise the source to strength * T, then denoise it under `target` (paper 004, algorithm 1).

    The paper's setting is `steps=50, strength=0.05, guidance=Guidance(3.0), solver="ddpm"` with T = 1000.
    """
    x0, generators = _tensor(generator, x), row_generators(seeds)
    timesteps = generator.schedule.timesteps(strength, steps, spacing_of(solver))
    start_B = torch.full((len(x0),), timesteps[0], dtype=torch.long)
    x_t = generator.schedule.noised(x0, row_noise(x0, generators), start_B)
    denoise = denoiser(generator, acquired(generator, target), guidance)
    return _array(sample(denoise, x_t, timesteps, generator.schedule, solver, generators))


def inversion(
    generator: Generator,
    x: np.ndarray,
    source: Sequence[Acquisition],
    target: Sequence[Acquisition],
    *,
    steps: int,
    strength: float,
    guidance: Guidance = Guidance(),  # noqa: B008  (frozen)
    solver: Solver = "ddim",
) -> tuple[np.ndarray, np.ndarray]:
    """Run DDIM backwards to strength * T under `source`, then forwards under `target`; deterministic.

    The inversion itself is unguided: guidance would make it diverge from the source's own trajectory.

    Returns:
        The images, and of each row float64 (B,) the round trip's error: what the same noise gives forwards under
        `source`, unguided, less `x`; root mean square, relative to the standard deviation of `x`. What is lost on the
        way there and back, no target brings back.

    Raises:
        ConfigError: another solver than DDIM, which alone runs the same path in both directions.
    """
    if solver != "ddim":
        raise ConfigError("method 'inversion' needs solver ddim", found=solver, next_step="set sampler.solver: ddim")
    x0 = _tensor(generator, x)
    timesteps = generator.schedule.timesteps(strength, steps, spacing_of(solver))
    own = denoiser(generator, acquired(generator, source))
    x_t = ddim_inverse(own, x0, timesteps, generator.schedule)
    back, made = (
        _array(ddim(denoise, x_t, [*timesteps, -1], generator.schedule))
        for denoise in (own, denoiser(generator, acquired(generator, target), guidance))
    )
    return made, _relative_error(back, x)


def structure(
    generator: Generator,
    x: np.ndarray,
    target: Sequence[Acquisition],
    seeds: Sequence[int],
    tissue: np.ndarray,
    *,
    steps: int = 15,
    strength: float = 1.0,
    guidance: Guidance = Guidance(),  # noqa: B008  (frozen)
    solver: Solver = "ddim",
) -> np.ndarray:
    """Generate under `target` while the network sees the source recoloured and where its tissues are.

    It sees two opposed recolourings, whose x0 estimates are averaged at every step.

    `strength` 1 starts from pure noise, so that contrast can come from `target` alone; less starts from the noised
    source. Raises `CheckpointError` for a generator without a structure input.

    Args:
        tissue: int8 (B, H, W) by `augengine.diffusion.tissue.tissue_index` of the generator's labels.
    """
    if not generator.spec.takes_structure:
        raise CheckpointError(
            "method 'structure' needs a generator with a structure input",
            found="network.structure false",
            next_step="train a recipe with network.structure true, or use method sdedit or inversion",
        )
    x0, generators = _tensor(generator, x), row_generators(seeds)
    timesteps = generator.schedule.timesteps(strength, steps, spacing_of(solver))
    start_B = torch.full((len(x0),), timesteps[0], dtype=torch.long)
    x_t = row_noise(x0, generators)
    if strength < 1:
        x_t = generator.schedule.noised(x0, x_t, start_B)
    shown = structure_views(generator, x0, torch.from_numpy(tissue).to(x0.device))
    estimates = [denoiser(generator, acquired(generator, target, planes=view), guidance) for view in shown]

    def denoise(x_t: Tensor, t_B: Tensor) -> Tensor:
        return torch.stack([estimate(x_t, t_B) for estimate in estimates]).mean(0)

    return _array(sample(denoise, x_t, timesteps, generator.schedule, solver, generators))


def structure_views(generator: Generator, x0: Tensor, tissue: Tensor) -> list[Tensor]:
    """Structure inputs of the same rows, one per curve of `opposed_heights`."""
    tissues = len(generator.spec.labels)
    curves = opposed_heights(tissues, x0.shape[1])
    return [structure_planes(recolour(x0, tissue, curve[None]), tissue, tissues) for curve in curves]


def acquired(generator: Generator, acquisitions: Sequence[Acquisition], planes: Tensor | None = None) -> Conditioning:
    """Conditioning on `acquisitions`, on the generator's device."""
    assert generator.spec.vocabulary is not None  # every acquisition model has one
    return Conditioning(planes, acquisition=generator.spec.vocabulary.encode(acquisitions)).to(generator.device)


def denoiser(generator: Generator, wanted: Conditioning, guidance: Guidance = Guidance()) -> Denoiser:  # noqa: B008
    """`denoise(x_t, t_B) -> x0` under `wanted`, guided (paper 004, algorithm 1) and clamped to the range of images."""
    low, high = generator.schedule.spec.x0_range
    known: dict[tuple[bool, int], Conditioning] = {}

    def estimate(x_t: Tensor, t_B: Tensor, doubled: bool) -> Tensor:
        key = (doubled, len(x_t))
        if key not in known:
            asked = wanted.unconditional().cat(wanted) if doubled else wanted
            known[key] = generator.prepared(asked, len(x_t))
        return generator.denoise(x_t, t_B, known[key])

    free = guided(estimate, guidance, generator.schedule)
    return lambda x_t, t_B: free(x_t, t_B).clamp(low, high)


def _relative_error(found: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """float64 (B,): root mean square of each row's difference, relative to the deviation of what is wanted."""
    axes = tuple(range(1, wanted.ndim))
    error = np.sqrt(np.mean((found.astype(np.float64) - wanted) ** 2, axis=axes))
    return np.asarray(error / np.maximum(wanted.std(axis=axes, dtype=np.float64), _FLAT))


def _tensor(generator: Generator, x: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(x, np.float32)).to(generator.device)


def _array(x: Tensor) -> np.ndarray:
    return x.float().cpu().numpy()
