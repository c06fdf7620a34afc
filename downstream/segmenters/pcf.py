"""An image and its tumour-free counterfactual in, a tumour mask out (promptable counterfactuals, Shen et al. §2).

A prompt is True where the tumour is looked for, so the mask of what a sampler keeps is its complement. The
paper's vote and the clean-up that it leaves unsaid are steps that `Vote` switches one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from scipy import ndimage
from skimage.filters import threshold_otsu

from augengine.errors import ConfigError, DataError

PromptKind = Literal["none", "box", "dilated", "predicted", "ground_truth"]
_QUANTILES = np.linspace(0, 1, 257)
_ROUNDING = 1e-6  # of float32 images around 1; the contrast step would blow it up to a tumour


@dataclass(frozen=True)
class Vote:
    """The steps from a difference image to a mask.

    Attributes:
        weights: of the modalities, in channel order (eq. 2).
        majority: tumour where the weights of the voting modalities sum to this or more.
        match_histogram: map the counterfactual's intensities to the factual's, as they relate outside the prompt.
            Does nothing to a counterfactual that was composited (equal outside) or prompted everywhere.
        contrast_percent: percentiles of the prompted difference that become 0 and 1, saturating. The paper gives
            no numbers; without saturation the step could not move Otsu's threshold. None: off.
        inside_prompt: nothing outside the prompt is tumour.
        largest_component: keep the largest piece only.
        fill_holes: fill what the tumour encloses.
    """

    weights: tuple[float, ...] = (0.25, 0.25, 0.25, 0.25)
    majority: float = 0.5
    match_histogram: bool = True
    contrast_percent: tuple[float, float] | None = (1.0, 99.0)
    inside_prompt: bool = True
    largest_component: bool = True
    fill_holes: bool = True


PAPER = Vote(match_histogram=False, inside_prompt=False, largest_component=False, fill_holes=False)


def segment(
    factual: np.ndarray,
    counterfactual: np.ndarray,
    prompt: np.ndarray,
    vote: Vote = Vote(),
    *,
    brain: np.ndarray | None = None,
) -> np.ndarray:
    """Where the two images differ enough in enough modalities.

    Args:
        factual: (C, *spatial), the image.
        counterfactual: (C, *spatial), the same without tumour.
        prompt: bool (*spatial), where the counterfactual was free to differ.
        vote: the steps to take.
        brain: bool (*spatial); histograms are taken over it, by default over the whole frame. Without it, Otsu's
            two classes of an unprompted difference tend to become air and brain.

    Returns:
        bool (*spatial).

    Raises:
        DataError: shapes that differ, or images that are not finite.
        ConfigError: as many weights as channels are needed.
    """
    if factual.shape != counterfactual.shape or factual.shape[1:] != prompt.shape:
        raise DataError("image, counterfactual and prompt share a grid",
                        found=f"{factual.shape}, {counterfactual.shape}, {prompt.shape}")  # fmt: skip
    if not (np.isfinite(factual).all() and np.isfinite(counterfactual).all()):
        raise DataError("image and counterfactual are finite", next_step="check the sampler's output")
    if len(vote.weights) != len(factual):
        raise ConfigError("a vote has one weight per channel", found=vote.weights,
                          next_step=f"give {len(factual)} weights")  # fmt: skip
    brain = np.ones(prompt.shape, bool) if brain is None else brain
    score = np.zeros(prompt.shape)
    for weight, image, other in zip(vote.weights, factual, counterfactual, strict=True):
        score += weight * _ballot(image, other, prompt, brain, vote)
    return _tidy(score >= vote.majority - 1e-9, prompt, vote)  # tenths do not add up in binary


def _ballot(image: np.ndarray, other: np.ndarray, prompt: np.ndarray, brain: np.ndarray, vote: Vote) -> np.ndarray:
    """bool (*spatial): where one modality votes for tumour; nowhere if nothing differs."""
    if vote.match_histogram:
        other = _match(other, image, brain & ~prompt)
    difference = np.abs(image.astype(np.float64) - other)  # eq. 1
    if not brain.any() or np.ptp(difference[brain]) < _ROUNDING:
        return np.zeros(prompt.shape, bool)
    if vote.contrast_percent is not None and (prompt & brain).any():
        low, high = np.percentile(difference[prompt & brain], vote.contrast_percent)
        if high > low:
            difference = ((difference - low) / (high - low)).clip(0, 1)
    return np.asarray((difference > threshold_otsu(difference[brain])) & brain)


def _match(image: np.ndarray, reference: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Map intensities so that `image` has the quantiles of `reference` within `where`; slope 1 beyond its range."""
    if not where.any():
        return image
    source, target = (np.quantile(x[where].astype(np.float64), _QUANTILES) for x in (image, reference))
    beyond = image - image.clip(source[0], source[-1])
    return np.asarray(np.interp(image, source, target) + beyond)


def _tidy(mask: np.ndarray, prompt: np.ndarray, vote: Vote) -> np.ndarray:
    if vote.inside_prompt:
        mask = mask & prompt
    if vote.largest_component:
        pieces, count = ndimage.label(mask, np.ones((3,) * mask.ndim))
        if count > 1:
            mask = pieces == 1 + np.argmax(np.bincount(pieces.ravel())[1:])
    if vote.fill_holes:
        mask = ndimage.binary_fill_holes(mask)
        if vote.inside_prompt:
            mask = mask & prompt
    return np.asarray(mask)


def prompt(
    kind: PromptKind,
    mask: np.ndarray,
    spacing_mm: Sequence[float],
    margin_mm: float = 0.0,
    *,
    brain: np.ndarray | None = None,
) -> np.ndarray:
    """Where the tumour is looked for.

    Args:
        kind: `none`: everywhere; `box`: the bounding box of the mask, grown by the margin; `dilated`: the mask
            grown by the margin; `predicted`: the same of a mask that another segmenter found, and the only kind
            but `none` that does not show the truth to the method; `ground_truth`: the mask as it is.
        mask: bool (*spatial), the true or predicted tumour. Where it is empty, so are all prompts but `none`.
        spacing_mm: voxel size per spatial axis.
        margin_mm: ≥ 0.
        brain: bool (*spatial), which the prompt is cut to.

    Returns:
        bool (*spatial).
    """
    if kind not in get_args(PromptKind) or margin_mm < 0:
        raise ConfigError("a prompt is of a known kind with a margin of 0 mm or more", found=f"{kind}, {margin_mm} mm",
                          next_step=f"kinds: {', '.join(get_args(PromptKind))}")  # fmt: skip
    if kind == "none":
        out = np.ones(mask.shape, bool)
    elif kind == "ground_truth" or not mask.any():
        out = mask.copy()
    elif kind == "box":
        out = _box(mask, [int(np.ceil(round(margin_mm / s, 6))) for s in spacing_mm])
    else:
        out = np.asarray(ndimage.distance_transform_edt(~mask, sampling=spacing_mm) <= margin_mm)
    return out if brain is None else out & brain


def _box(mask: np.ndarray, margin: Sequence[int]) -> np.ndarray:
    out = np.zeros(mask.shape, bool)
    (box,) = ndimage.find_objects(mask.astype(np.uint8))
    out[tuple(slice(max(s.start - m, 0), s.stop + m) for s, m in zip(box, margin, strict=True))] = True
    return out


def copy_the_prompt(prompt: np.ndarray) -> np.ndarray:
    """The baseline that every prompted segmentation has to beat: a ground-truth prompt alone scores Dice 1."""
    return prompt.copy()
