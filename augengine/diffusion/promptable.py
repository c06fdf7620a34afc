"""Generation inside a prompt: an image and a mask in, the image with only the masked part generated out.

Paper 000, algorithm 1, with its equations corrected, and RePaint (Lugmayr et al. 2022). Masks here are `edit`, 1 where
pixels are generated: the paper's m is 1 - edit. Latent models pass latents with `latent_mask(edit, factor)`, decode
the result, and `composite` it with the image.
Legend: B rows, C channels, `*` spatial axes; `edit` is (B, 1, *), bool or from 0 to 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import EllipsisType
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from augengine.diffusion.samplers import Denoiser, Noise, Solver, at, reverse_step, row_noise, sample
from augengine.diffusion.schedules import Schedule
from augengine.errors import ConfigError, DataError


@dataclass(frozen=True)
class Prompting:
    """How the known part is held, and how often the two parts are given time to agree.

    Attributes:
        known: where the known part of x_prev comes from, q(x_prev | x_t, x0) (`posterior`, paper 000) or
            q(x_prev | x0) (`repaint`).
        jump_length: timesteps (of those sampled) that a resampling jump goes back towards noise.
        resamples: times that each such stretch is denoised, RePaint's jump_n_sample; 1 is no jump. The work grows
            with it in proportion. Without jumps the generated part heeds the known part too little.
    """

    known: Literal["posterior", "repaint"] = "posterior"
    jump_length: int = 1
    resamples: int = 1

    def __post_init__(self) -> None:
        if self.jump_length < 1 or self.resamples < 1:
            raise ConfigError("jump_length and resamples must be at least 1", found=(self.jump_length, self.resamples))


@dataclass(frozen=True)
class Roi:
    """A box of the frame, to run the denoiser on that alone; the box is one for all rows of a batch.

    A row's box, and so the context that its network sees, depends on its neighbours' prompts: where that matters,
    batch rows of equal boxes. Spatial conditions must be cropped, too, by whoever builds the denoiser.

    Attributes:
        slices: one per spatial axis.
    """

    slices: tuple[slice, ...]

    @classmethod
    def of(cls, edit: Tensor, margin: int, multiple: int) -> Roi:
        """The smallest box around every row's prompt and `margin` pixels more, on the grid of `multiple` pixels.

        The grid keeps the box where a network that downsamples by `multiple` would see it in the full frame. At the
        far end of a frame that is no multiple the box is shifted back by less than that. Raises `DataError` if there
        is no prompt.
        """
        if not edit.any():
            raise DataError("a region of interest needs a prompt", next_step="leave out the rows without one")
        slices = []
        for axis in range(2, edit.ndim):
            frame = edit.shape[axis]
            inside = edit.movedim(axis, 0).flatten(1).any(1).nonzero()
            start = max(0, int(inside[0]) - margin) // multiple * multiple
            stop = -(-(int(inside[-1]) + 1 + margin) // multiple) * multiple
            if stop > frame:
                start, stop = max(0, start + (frame - stop)), frame
            slices.append(slice(start, stop))
        return cls(tuple(slices))

    @property
    def _index(self) -> tuple[EllipsisType | slice, ...]:
        return (..., *self.slices)

    def crop(self, x: Tensor) -> Tensor:
        """The box of `x` (..., *)."""
        return x[self._index]

    def paste(self, whole: Tensor, part: Tensor) -> Tensor:
        """A copy of `whole` (..., *) with `part` in the box."""
        pasted = whole.clone()
        pasted[self._index] = part
        return pasted


def inpaint(
    denoise: Denoiser,
    x0: Tensor,
    edit: Tensor,
    timesteps: Sequence[int],
    schedule: Schedule,
    generators: Noise,
    solver: Solver = "ddpm",
    prompting: Prompting = Prompting(),
    roi: Roi | None = None,
) -> Tensor:
    """`x0` (B, C, *) with what `edit` covers generated; outside, every bit is the input's.

    Timesteps that start at T - 1 generate from noise alone; a later start (`Schedule.timesteps` of strength < 1)
    begins at the noised source. With `roi`, which must hold all of `edit`, `denoise` sees that box only, under the
    same noise that the full frame would have had (`dpmpp_2m_sde` apart): a margin as wide as the network's reach
    gives the full frame's result.

    Raises `ConfigError` for a multistep solver with `repaint` or jumps: both change x_t behind the solver's back,
    which then extrapolates from estimates of another path.
    """
    whole, whole_edit = x0, edit.to(x0)
    if roi is not None:
        x0, edit = roi.crop(x0), roi.crop(edit)
    edit = edit.to(x0)

    def noise() -> Tensor:
        drawn = row_noise(whole, generators)
        return drawn if roi is None else roi.crop(drawn)

    source = x0 * (1 - edit) if timesteps[0] == schedule.spec.timesteps - 1 else x0
    x = schedule.noised(source, noise(), at(timesteps[0], x0))
    if solver not in ("ddpm", "ddim"):
        if prompting.known == "repaint" or prompting.resamples > 1:
            raise ConfigError(
                "known repaint and resampling jumps need a solver without memory",
                found=solver,
                next_step="set solver ddpm or ddim, or known posterior with resamples 1",
            )
        x = sample(prompted(denoise, x0, edit), x, timesteps, schedule, solver, generators)
    else:
        levels = [-1, *reversed(timesteps)]
        for now, then in pairwise(levels[left] for left in moves(len(timesteps), prompting)):
            if then > now:
                gain, sd = schedule.transition(at(now, x), at(then, x), x)
                x = gain * x + sd * noise()
            elif prompting.known == "posterior":
                estimate = prompted(denoise, x0, edit)(x, at(now, x))
                x = reverse_step(schedule, estimate, x, now, then, noise() if solver == "ddpm" else None)
            else:
                drawn = noise()  # one draw for both parts, so that a soft edge is as noisy as the rest
                estimate = denoise(x, at(now, x))
                generated = reverse_step(schedule, estimate, x, now, then, drawn if solver == "ddpm" else None)
                x = (1 - edit) * schedule.noised(x0, drawn, at(then, x)) + edit * generated
    return composite(whole, x if roi is None else roi.paste(whole, x), whole_edit)


def prompted(denoise: Denoiser, x0: Tensor, edit: Tensor) -> Denoiser:
    """`denoise` with the known part of its estimate replaced by `x0`.

    The mean of q(x_prev | x_t, x0) is affine in x0, so composing the clean images and then taking one step is lines 4
    to 13 of paper 000's algorithm 1 (known and generated part each stepped, then composed).
    """
    return lambda x_t, t_B: torch.lerp(x0, denoise(x_t, t_B), edit.to(x0))


def moves(steps: int, prompting: Prompting) -> Iterator[int]:
    """Steps still to go after each move, from `steps` to 0: a fall denoises, a rise adds noise (RePaint, appendix).

    >>> list(moves(4, Prompting(jump_length=2, resamples=2)))
    [4, 3, 2, 1, 3, 2, 1, 0]
    """
    length = prompting.jump_length
    jumps = dict.fromkeys(range(1, steps - length + 1, length), prompting.resamples - 1)
    left = steps
    yield left
    while left > 0:
        left -= 1
        yield left
        if jumps.get(left):
            jumps[left] -= 1
            left += length
            yield left


def composite(x0: Tensor, generated: Tensor, edit: Tensor) -> Tensor:
    """`generated` where `edit` is 1, `x0` bit for bit where it is 0, and a blend between."""
    edit = edit.to(x0)
    return torch.where(edit > 0, torch.lerp(x0, generated, edit), x0)


def latent_mask(edit: Tensor, factor: int) -> Tensor:
    """`edit` (B, 1, *) on a grid coarser by `factor`: a cell takes the largest value of the pixels that it covers."""
    pool = {3: functional.max_pool1d, 4: functional.max_pool2d, 5: functional.max_pool3d}[edit.ndim]
    return pool(edit.float(), factor, ceil_mode=True)
