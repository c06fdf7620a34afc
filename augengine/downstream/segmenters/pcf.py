"""An image and its tumour-free counterfactual in, a tumour mask out (promptable counterfactuals, Shen et al. §2).

A prompt is True where the tumour is looked for, so the mask of what a sampler keeps is its complement. The
paper's vote and the clean-up that it leaves unsaid are steps that `Vote` switches one by one. `Pcf` is the segmenter
that draws the counterfactual itself, within a prompt that it predicts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, Self, get_args

import numpy as np
import torch
from scipy import ndimage
from skimage.filters import threshold_otsu
from torch import Tensor

from augengine.diffusion.checkpoint import Generator, Model, load_generator, load_model
from augengine.diffusion.guidance import Guidance
from augengine.diffusion.painting import Sampling, counterfactual, healthy, paint
from augengine.diffusion.segmentation import probabilities
from augengine.diffusion.spec import Kind
from augengine.downstream.segmenters.base import PLAIN, Segmenter, Training
from augengine.downstream.segmenters.fitting import adapted, checkpoint, fit_network, mark, need_roles
from augengine.errors import ConfigError, DataError
from augengine.intensity import match_quantiles
from augengine.masks import foreground
from augengine.train.config import Recipe

PromptKind = Literal["none", "box", "dilated", "predicted", "ground_truth"]
_ROUNDING = 1e-6  # of float32 images around 1; the contrast step would blow it up to a tumour


@dataclass(frozen=True)
class Vote:
    """The steps from a difference image to a mask.

    Attributes:
        weights: of the modalities, in channel order (eq. 2, 0.25 for each of four); None is the same for each.
        majority: tumour where the weights of the voting modalities sum to this or more.
        match_histogram: map the counterfactual's intensities to the factual's, as they relate outside the prompt.
            Does nothing to a counterfactual that was composited (equal outside) or prompted everywhere.
        contrast_percent: percentiles of the prompted difference that become 0 and 1, saturating. The paper gives
            no numbers; without saturation the step could not move Otsu's threshold. None: off.
        inside_prompt: nothing outside the prompt is tumour.
        largest_component: keep the largest piece only.
        fill_holes: fill what the tumour encloses.
    """

    weights: tuple[float, ...] | None = None
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
        raise DataError(
            "image, counterfactual and prompt share a grid",
            found=f"{factual.shape}, {counterfactual.shape}, {prompt.shape}",
        )
    if not (np.isfinite(factual).all() and np.isfinite(counterfactual).all()):
        raise DataError("image and counterfactual are finite", next_step="check the sampler's output")
    weights = vote.weights or (1 / len(factual),) * len(factual)
    if len(weights) != len(factual):
        raise ConfigError("a vote has one weight per channel", found=weights, next_step=f"give {len(factual)} weights")
    brain = np.ones(prompt.shape, bool) if brain is None else brain
    score = np.zeros(prompt.shape)
    for weight, image, other in zip(weights, factual, counterfactual, strict=True):
        score += weight * _ballot(image, other, prompt, brain, vote)
    return _tidy(score >= vote.majority - 1e-9, prompt, vote)  # tenths do not add up in binary


def _ballot(image: np.ndarray, other: np.ndarray, prompt: np.ndarray, brain: np.ndarray, vote: Vote) -> np.ndarray:
    """bool (*spatial): where one modality votes for tumour; nowhere if nothing differs."""
    if vote.match_histogram:
        other = match_quantiles(other, image, brain & ~prompt)
    difference = np.abs(image.astype(np.float64) - other)  # eq. 1
    if not brain.any() or np.ptp(difference[brain]) < _ROUNDING:
        return np.zeros(prompt.shape, bool)
    if vote.contrast_percent is not None and (prompt & brain).any():
        low, high = np.percentile(difference[prompt & brain], vote.contrast_percent)
        if high > low:
            difference = ((difference - low) / (high - low)).clip(0, 1)
    return np.asarray((difference > threshold_otsu(difference[brain])) & brain)


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
        raise ConfigError(
            "a prompt is of a known kind with a margin of 0 mm or more",
            found=f"{kind}, {margin_mm} mm",
            next_step=f"kinds: {', '.join(get_args(PromptKind))}",
        )
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


PROMPTED = Sampling(solver="ddpm", steps=50, guidance=Guidance(3.0))
CF = Sampling(solver="ddim", steps=100, strength=0.75, guidance=Guidance(3.0))


@dataclass(frozen=True)
class PcfOptions:
    """How `Pcf` predicts.

    Attributes:
        prompt: `predicted`, or `none` for the plain counterfactual (CF) of the paper.
        margin_mm: by which a predicted prompt is grown.
        vote: from difference to mask.
        prompted: sampling inside a prompt, from noise alone: what lies inside must not be remembered.
        plain: sampling without a prompt, from the image noised to .75 of the chain.
    """

    prompt: Literal["none", "predicted"] = "predicted"
    margin_mm: float = 6.0
    vote: Vote = Vote()
    prompted: Sampling = PROMPTED
    plain: Sampling = CF


class Pcf(Segmenter):
    """Segmentation by counterfactuals of healthy subjects.

    Recipes: `counterfactual` of that kind, which learns from rows with and without `data.lesion`, and `prompter` of
    kind segmenter: where it finds any of its regions is the predicted prompt. Votes are 0 or 1.
    """

    name: ClassVar[str] = "pcf"
    roles: ClassVar[Mapping[str, Kind]] = {"counterfactual": "counterfactual", "prompter": "segmenter"}
    loaded = ("counterfactual", "prompter")

    def __init__(self, generator: Generator, prompter: Model, options: PcfOptions = PcfOptions()) -> None:
        self.generator, self.prompter, self.options = generator, prompter, options
        self.channels, self.regions = generator.spec.channels, {"lesion": generator.spec.lesion}
        self.rule = generator.spec.intensity.rule

    @classmethod
    def fit(
        cls,
        shards: Sequence[str],
        steps: int,
        seed: int,
        out: str,
        *,
        recipes: Mapping[str, Recipe],
        training: Training = PLAIN,
    ) -> str:
        """Train both networks; classical augmentation is for the prompter, since a generator would draw its traces."""
        need_roles(cls, recipes)
        for role, how in (("counterfactual", training.natural), ("prompter", training)):
            fit_network(role, adapted(recipes[role], steps, seed, how), shards, out, training)
        return mark(cls, out)

    @classmethod
    def regions_of(cls, recipes: Mapping[str, Recipe]) -> dict[str, tuple[str, ...]]:
        """The lesion as one."""
        return {"lesion": recipes["counterfactual"].data.lesion}

    @classmethod
    def settings(cls) -> dict[str, Any]:
        """Prompt, vote and sampling."""
        return asdict(PcfOptions())

    @classmethod
    def load(cls, folder: str, *, device: str = "cpu", options: PcfOptions = PcfOptions()) -> Self:
        """Both networks."""
        generator = load_generator(checkpoint(cls, folder, "counterfactual"), device)
        return cls(generator, load_model(checkpoint(cls, folder, "prompter"), device), options)

    def predicted_prompts(self, images: np.ndarray) -> np.ndarray:
        """Bool (B, *): where `predict` looks for the tumour; also the baseline that copies this prompt."""
        x, _ = self.checked(images, None)
        with torch.no_grad():
            found = probabilities(self.prompter.spec, self.prompter.network(x.to(self.prompter.device)).float())
        masks, spacing_mm = (found > 0.5).any(1).cpu().numpy(), self.generator.spec.spacing_mm
        return np.stack(
            [
                prompt("predicted", mask, spacing_mm[: mask.ndim], self.options.margin_mm, brain=_brain(image))
                for mask, image in zip(masks, x.numpy(), strict=True)
            ]
        )

    def predict_within(
        self, images: np.ndarray, prompts: np.ndarray | None, seeds: Sequence[int] | None = None
    ) -> np.ndarray:
        """As `predict`, within prompts bool (B, *) of the caller's; None is the whole image, without a prompt.

        A prompt from the ground truth (`box`, `dilated`) tells the answer in part: compare with `copy_the_prompt`.
        """
        x, row_seeds = self.checked(images, seeds)
        brains = np.stack([_brain(image) for image in x.numpy()])
        inside = brains if prompts is None else prompts
        edit = torch.from_numpy(inside)[:, None]
        wanted = healthy(self.generator, torch.zeros(inside.shape, dtype=torch.int8), edit)
        with torch.no_grad():
            if prompts is None:
                drawn = counterfactual(self.generator, x, wanted, row_seeds, self.options.plain)
            else:
                drawn = paint(self.generator, x, edit, wanted, row_seeds, self.options.prompted)
        rows = zip(x.numpy(), drawn.numpy(), inside, brains, strict=True)
        masks = [segment(image, other, where, self.options.vote, brain=brain) for image, other, where, brain in rows]
        return np.stack(masks)[:, None].astype(np.float32)

    def _predict(self, x: Tensor, seeds: Sequence[int]) -> Tensor:
        images = x.numpy()
        prompts = None if self.options.prompt == "none" else self.predicted_prompts(images)
        return torch.from_numpy(self.predict_within(images, prompts, seeds))


def _brain(image: np.ndarray) -> np.ndarray:
    """bool (*): what is not air, which has one value in a skull-stripped scan; (C, *) normalised."""
    return foreground(image - image.min(axis=tuple(range(1, image.ndim)), keepdims=True))
