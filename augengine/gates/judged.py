"""Gates that ask a trained model: what a referee segments, and which acquisition a predictor sees."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from augengine.acquisition_terms import same
from augengine.diffusion.checkpoint import Model
from augengine.diffusion.conditions import CATEGORICAL, MULTI_LABEL, Condition, Vocabulary
from augengine.diffusion.segmentation import probabilities
from augengine.diffusion.spec import Kind, ModelSpec
from augengine.errors import CheckpointError
from augengine.gates.base import Case, LesionGate, ModelGate, RealPair, Tools
from augengine.intensity import normalise
from augengine.metrics.overlap import dice
from augengine.records import Sample


class RefereeGate(ModelGate, LesionGate):
    """A gate that asks a segmenter where it sees the lesion."""

    kind: ClassVar[Kind] = "segmenter"

    def accept(self, spec: ModelSpec) -> None:
        """It must have a region that holds lesion labels only."""
        if not self._regions(spec):
            raise CheckpointError(
                f"the referee needs a region of lesion labels ({', '.join(self.lesion)}) alone",
                found=str({name: list(labels) for name, labels in spec.regions.items()}),
                where=self.model.ref,
                next_step="set the gate's options.lesion, or train a referee with such a region",
            )

    def seen(self, sample: Sample, tools: Tools) -> np.ndarray:
        """bool (*spatial): where the referee sees the lesion in the row."""
        model = tools.model(self.model)
        model.check(sample.channels, sample.intensity_rule)
        logits = _forward(model, normalise(sample))
        found = probabilities(model.spec, logits)[0, self._regions(model.spec)] > 0.5
        return np.asarray(found.any(0).numpy())

    def _regions(self, spec: ModelSpec) -> list[int]:
        return [n for n, labels in enumerate(spec.regions.values()) if set(labels) <= set(self.lesion)]


class ResidualLesion(RefereeGate):
    """Share of what the source calls lesion and the output does not in which a referee still sees a lesion."""

    comparison: ClassVar[RealPair] = "mirrored"

    def value(self, case: Case, tools: Tools) -> float:
        """See the class."""
        removed = case.within(self.mask(case.before)) & ~self.mask(case.after)
        return float(self.seen(case.after, tools)[removed].mean()) if removed.any() else math.nan


class RefereeDice(RefereeGate):
    """Dice of the lesion that a referee sees in the output with the output's label; 1 where neither has one."""

    comparison: ClassVar[RealPair] = "itself"

    def value(self, case: Case, tools: Tools) -> float:
        """See the class."""
        return dice(self.seen(case.after, tools), self.mask(case.after))


class AcquisitionPrediction(ModelGate):
    """Gain in a predictor's belief in the planned acquisition, C(output) − C(source), −1…1 (paper 004, A.5, eq. 9).

    C is the mean over the parameters that the edit changes: the probability of a category, the mean probability of
    the right answer for each scan option, and 1 − |error| (0 at worst, in units of the largest value seen in
    training) of a number. A row whose acquisition did not change, or to unknown values alone, fails.
    """

    kind: ClassVar[Kind] = "acquisition_predictor"
    comparison: ClassVar[RealPair] = "stranger"

    def value(self, case: Case, tools: Tools) -> float:
        """See the class."""
        model = tools.model(self.model)
        model.check(case.before.channels, case.before.intensity_rule)
        vocabulary = model.spec.vocabulary
        assert vocabulary is not None  # a predictor cannot be built without one
        wanted = vocabulary.encode([case.after.acquisition])
        changed = _changed(vocabulary, wanted, case)
        if not changed:
            return math.nan
        before, after = (
            belief(vocabulary, _forward(model, normalise(s)), wanted, changed) for s in (case.before, case.after)
        )
        return after - before


def belief(vocabulary: Vocabulary, output: Tensor, wanted: Condition, parameters: list[str]) -> float:
    """C of a predictor's output (1, F) for the encoded acquisition; see `AcquisitionPrediction`."""
    widths = vocabulary.widths
    found = dict(zip(widths, torch.split(output[0], list(widths.values())), strict=True))
    truth = dict(zip(widths, torch.split(wanted.features[0], list(widths.values())), strict=True))
    scores = []
    for name in parameters:
        if name in CATEGORICAL:
            score = (found[name].softmax(0) * truth[name]).sum()
        elif name == MULTI_LABEL:
            score = (1 - (found[name].sigmoid() - truth[name]).abs()).mean()
        else:
            score = (1 - (found[name] - truth[name]).abs()).clamp(min=0).mean()
        scores.append(float(score))
    return float(np.mean(scores))


def _changed(vocabulary: Vocabulary, wanted: Condition, case: Case) -> list[str]:
    """Parameters that the edit changes to values which the predictor knows."""
    new, old = case.after.acquisition.to_dict(), case.before.acquisition.to_dict()
    known = zip(vocabulary.widths.items(), wanted.present[0].tolist(), strict=True)
    return [name for (name, width), stated in known if width and stated and not same(name, new[name], old[name])]


def _forward(model: Model, image: np.ndarray) -> Tensor:
    """Output (1, …) of a network for one image (C, *), float32 on the CPU."""
    with torch.no_grad():
        output: Tensor = model.network(torch.from_numpy(image)[None].to(model.device))
    return output.float().cpu()
