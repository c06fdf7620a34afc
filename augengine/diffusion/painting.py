"""Sampling of the generators of anatomy: a scan, a prompt and what is wanted there in; the scan with that painted out.

All images are float32 (B, C, *), normalised as in training. `edit` is (B, 1, *), True where pixels are generated.
`seeds` holds one integer per row, or is a `VolumeNoise` for slices that shall match along z; a row's result does not
depend on its neighbours or its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from augengine.diffusion.checkpoint import Generator
from augengine.diffusion.conditioning import Conditioning
from augengine.diffusion.counterfactual import denoiser
from augengine.diffusion.guidance import Guidance
from augengine.diffusion.promptable import Prompting, Roi, composite, inpaint, latent_mask
from augengine.diffusion.samplers import Noise, Solver, at, row_generators, row_noise, sample, spacing_of
from augengine.diffusion.tissue import one_hot
from augengine.diffusion.volume_noise import VolumeNoise
from augengine.errors import CheckpointError, ConfigError

HEALTHY, UNHEALTHY = 1, 2
Seeds = Sequence[int] | VolumeNoise


@dataclass(frozen=True)
class Sampling:
    """How the reverse process is run.

    Attributes:
        solver, steps: which, and how many network evaluations (times resampling jumps).
        strength: share of the chain that is noised and denoised again; 1 starts from pure noise.
        guidance: classifier-free guidance, for models with a class.
        prompting: how the known part is held.
        roi_margin: pixels around the prompt that the network sees; None shows it the whole frame.
    """

    solver: Solver = "ddpm"
    steps: int = 50
    strength: float = 1.0
    guidance: Guidance = field(default_factory=Guidance)
    prompting: Prompting = field(default_factory=Prompting)
    roi_margin: int | None = None


def healthy(generator: Generator, tissue: Tensor, edit: Tensor, context: Tensor | None = None) -> Conditioning:
    """No lesion: the class "healthy", or the label map with whatever `edit` covers made unknown.

    A painter without the plane for "unknown" is told background there, as in paper 001, 4.8. A model of slices in
    their `context` (2.5D) is shown the neighbouring slices (B, offsets * C, *), in the order of training.
    """
    hidden = torch.where(edit[:, 0].bool(), torch.zeros_like(tissue), tissue)
    return _wanted(generator, hidden, HEALTHY, edit, context)


def unhealthy(generator: Generator, tissue: Tensor, context: Tensor | None = None) -> Conditioning:
    """With a lesion: the class "unhealthy", or the label map that holds it; `context` as for `healthy`."""
    return _wanted(generator, tissue, UNHEALTHY, torch.zeros_like(tissue[:, None]), context)


def _wanted(
    generator: Generator, tissue: Tensor, class_index: int, unknown: Tensor, context: Tensor | None
) -> Conditioning:
    spec = generator.spec
    if spec.kind not in ("counterfactual", "painter"):
        raise CheckpointError("a generator of kind counterfactual or painter is needed", found=spec.kind)
    if (context is None) == bool(spec.context):
        raise CheckpointError(
            "a generator is shown the neighbouring slices that it was trained with, and only these",
            found="none" if context is None else tuple(context.shape),
            next_step=f"its offsets are {spec.context}",
        )
    planes = []
    if spec.mask != "none":
        planes.append(one_hot(tissue, len(spec.labels)))
    if spec.mask == "labels_unknown":
        planes.append(unknown.float())
    if context is not None:
        planes.append(context)
    classes = torch.full((len(tissue),), class_index) if spec.kind == "counterfactual" else None
    return Conditioning(torch.cat(planes, dim=1) if planes else None, classes).to(generator.device)


def paint(
    generator: Generator, x: Tensor, edit: Tensor, wanted: Conditioning, seeds: Seeds, sampling: Sampling
) -> Tensor:
    """`x` with what `edit` covers generated under `wanted`; outside, every bit is the input's.

    A latent generator works on the latents of the whole frame; the composite is made of pixels, after decoding.
    """
    if sampling.roi_margin is not None and generator.network.autoencoder is None:
        return _paint_boxes(generator, x, edit, wanted, seeds, sampling, sampling.roi_margin)
    x, edit = x.to(generator.device), edit.to(generator.device)
    wanted = _surrounded(generator, wanted, x, edit <= 0)
    known, prompt = generator.network.encode(x), edit.float()
    if (autoencoder := generator.network.autoencoder) is not None:
        prompt = latent_mask(prompt, autoencoder.factor)
    drawn = inpaint(
        denoiser(generator, wanted, sampling.guidance),
        known,
        prompt,
        _timesteps(generator, sampling),
        generator.schedule,
        _noise(seeds),
        sampling.solver,
        sampling.prompting,
    )
    return composite(x, generator.network.decode(drawn, x.shape[2:]), edit).cpu()


def _paint_boxes(
    generator: Generator, x: Tensor, edit: Tensor, wanted: Conditioning, seeds: Seeds, sampling: Sampling, margin: int
) -> Tensor:
    """`paint` on a box around each row's prompt, row by row, since every row has a box of its own."""
    if not isinstance(seeds, Sequence):
        raise ConfigError("slices that match along z are drawn on whole frames", next_step="leave out roi_margin")
    x, edit = x.to(generator.device), edit.to(generator.device)
    timesteps, painted = _timesteps(generator, sampling), x.clone()
    wanted = _surrounded(generator, wanted, x, edit <= 0)
    for n, seed in enumerate(seeds):
        if not edit[n].any():
            continue
        row = slice(n, n + 1)
        roi, shown = Roi.of(edit[row], margin, getattr(generator.network.body, "multiple", 1)), wanted.rows(row)
        shown = shown if shown.planes is None else replace(shown, planes=roi.crop(shown.planes))
        painted[row] = inpaint(
            denoiser(generator, shown, sampling.guidance),
            x[row],
            edit[row],
            timesteps,
            generator.schedule,
            row_generators([seed]),
            sampling.solver,
            sampling.prompting,
            roi,
        )
    return painted.cpu()


def counterfactual(generator: Generator, x: Tensor, wanted: Conditioning, seeds: Seeds, sampling: Sampling) -> Tensor:
    """The whole image noised to `strength` and denoised under `wanted`, without a prompt (the CF of paper 000)."""
    x = x.to(generator.device)
    known, wanted = generator.network.encode(x), _surrounded(generator, wanted, x, torch.zeros_like(x[:, :1]))
    noise, timesteps = _noise(seeds), _timesteps(generator, sampling)
    x_t = generator.schedule.noised(known, row_noise(known, noise), at(timesteps[0], known))
    denoise = denoiser(generator, wanted, sampling.guidance)
    drawn = sample(denoise, x_t, timesteps, generator.schedule, sampling.solver, noise)
    return generator.network.decode(drawn, x.shape[2:]).cpu()


def generate(
    generator: Generator, wanted: Conditioning, seeds: Seeds, sampling: Sampling, size: Sequence[int] | None = None
) -> Tensor:
    """New content (B, C, *) from noise alone, of the spatial `size` (default: that of training)."""
    size, autoencoder = tuple(size or generator.spec.image_size), generator.network.autoencoder
    shape = (generator.spec.content_channels, *size)
    if autoencoder is not None:
        shape = (autoencoder.latent_channels, *autoencoder.latent_size(size))
    rows = len(seeds) if isinstance(seeds, Sequence) else len(seeds.seeds)
    blank = torch.zeros(rows, len(generator.spec.channels), *size, device=generator.device)
    wanted = _surrounded(generator, wanted, blank, blank[:, :1])
    noise = _noise(seeds)
    start = row_noise(torch.zeros(rows, *shape, device=generator.device), noise)
    denoise = denoiser(generator, wanted, sampling.guidance)
    timesteps = _timesteps(generator, replace(sampling, strength=1.0))
    drawn = sample(denoise, start, timesteps, generator.schedule, sampling.solver, noise)
    return generator.network.decode(drawn, size).cpu()


def _surrounded(generator: Generator, wanted: Conditioning, x: Tensor, around: Tensor) -> Conditioning:
    """`wanted`, and `x` where `around` (B, 1, *) is not 0 for a painter that is shown what surrounds its prompt."""
    if not generator.spec.surroundings:
        return wanted
    assert wanted.planes is not None  # such a painter is shown labels, too
    return replace(wanted, planes=torch.cat([wanted.planes, x * around, around.float()], dim=1))


def _timesteps(generator: Generator, sampling: Sampling) -> list[int]:
    return generator.schedule.timesteps(sampling.strength, sampling.steps, spacing_of(sampling.solver))


def _noise(seeds: Seeds) -> Noise:
    return row_generators(seeds) if isinstance(seeds, Sequence) else seeds
