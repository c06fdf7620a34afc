"""Counterfactual acquisition: the same anatomy as another scanner and protocol would have shown it.

Source: "Counterfactual Simulation of Acquisition Parameters via Conditional Diffusion Model" (MIDL 2025) for
`sdedit`; `inversion` and `structure` are described in `augengine.diffusion.counterfactual`, `local_contrast`, which
paints nothing, in `augengine.diffusion.local_contrast`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from augengine.acquisition_terms import alike
from augengine.diffusion import counterfactual
from augengine.diffusion.checkpoint import Generator, Model
from augengine.diffusion.conditions import PARAMETERS, Vocabulary
from augengine.diffusion.guidance import Guidance
from augengine.diffusion.local_contrast import LocalContrast, render
from augengine.diffusion.spec import ModelSpec
from augengine.diffusion.tissue import tissue_index
from augengine.edits.base import Context, Donor, Drawing, Plan, Skip, SkippedError
from augengine.edits.targets import Target, candidates, check_donors, check_stated, known_part, paintable
from augengine.errors import CheckpointError, ConfigError
from augengine.intensity import denormalise, normalise
from augengine.policy.spec import Sampler
from augengine.records import Acquisition, Sample
from augengine.yaml_config import Strict, unset

TEXTURE = 0.15
ROUND_TRIP = 0.1


class AcquisitionParams(Strict):
    """Parameters of the edit in a policy file.

    Attributes:
        texture: of method `local_contrast`: share of the source's own finest detail (what a Gaussian of one voxel
            removes) that is added to the prediction, which as a mean is too smooth.
        round_trip: of method `inversion`: a row is skipped whose round trip under its own parameters errs by more
            (root mean square, relative to the row's standard deviation). Left out: 0.1.
    """

    method: Literal["structure", "inversion", "sdedit", "local_contrast"] = "structure"
    target: Target
    texture: float | None = Field(default=None, ge=0, le=1, exclude_if=unset)
    round_trip: float | None = Field(default=None, gt=0, exclude_if=unset)

    @model_validator(mode="after")
    def _fits(self) -> AcquisitionParams:
        if self.texture is not None and self.method != "local_contrast":
            raise ValueError("texture goes with method local_contrast")
        if self.round_trip is not None and self.method != "inversion":
            raise ValueError("round_trip goes with method inversion")
        return self


class AcquisitionEdit:
    """Keeps anatomy, label and geometry; changes contrast, noise and the acquisition record."""

    name: ClassVar[str] = "acquisition"
    Params: ClassVar[type[Strict]] = AcquisitionParams
    MODELS: ClassVar[Mapping[str, tuple[str, ...]]] = {"generator": ("acquisition",)}

    def check(self, params: AcquisitionParams, sampler: Sampler, specs: Mapping[str, ModelSpec]) -> None:
        """Each method needs the generator that was trained for it, and `inversion` the solver ddim.

        Values that the policy itself states must be among those that the generator saw, unless `target.unseen` says
        what becomes of them.
        """
        changes = specs["generator"].changes_contrast
        if changes != (params.method == "local_contrast"):
            raise CheckpointError(
                "method 'local_contrast', and it alone, takes a generator with network.body local_contrast",
                found=f"method '{params.method}', recipe {specs['generator'].recipe or 'unknown'}",
                next_step="set params.method to what the generator was trained for, or take another generator",
            )
        if params.method == "structure" and not specs["generator"].takes_structure:
            raise CheckpointError(
                "method 'structure' needs a generator with a structure input",
                found=f"recipe {specs['generator'].recipe or 'unknown'}",
                next_step="train a recipe with network.structure true, or use method sdedit or inversion",
            )
        if params.method == "inversion" and sampler.solver != "ddim":
            raise ConfigError(
                "method 'inversion' needs solver ddim", found=sampler.solver, next_step="set sampler.solver: ddim"
            )
        check_stated(params.target, specs["generator"].vocabulary)

    def check_donors(self, params: AcquisitionParams, donors: Sequence[Donor]) -> None:
        """Refuse a choice among the data's own acquisitions that none of them meets."""
        check_donors(params.target, donors)

    def plan(
        self, sample: Sample, params: AcquisitionParams, rng: np.random.Generator, context: Context
    ) -> Drawing | Skip:
        """Draw a whole acquisition that differs from the sample's own.

        Explicit targets change the named parameters and keep the others.
        """
        if sample.intensity_range is None:
            return Skip("the sample carries no intensity range; ingest it again")
        donors = candidates(params.target, sample, rng, context)
        own, subject = sample.acquisition, sample.subject_id
        donors = [d for d in donors if d.subject_id != subject and not alike(d.acquisition, own, PARAMETERS)]
        if not donors:
            return Skip("no target acquisition differs from the sample's own")
        chosen = donors[int(rng.integers(len(donors)))]
        target, vocabulary = chosen.acquisition, _vocabulary(context)
        unseen = vocabulary.unseen(target) if vocabulary else {}
        if unseen and vocabulary:
            known = known_part(params.target, vocabulary, target)
            if known is None:
                return Skip(f"the generator never saw the target's {'; '.join(unseen.values())}")
            target = known
            if alike(target, own, PARAMETERS):
                return Skip("what the generator knows of the target does not differ from the sample's own")
        plan: dict[str, Any] = {"acquisition": paintable(target, own).to_dict()}
        if params.method == "local_contrast" and vocabulary:
            strange = _strange_source(own, vocabulary)
            if strange:
                shown = known_part(params.target, vocabulary, own)
                if shown is None:
                    return Skip(f"the generator never saw the source's {'; '.join(strange.values())}")
                plan["unseen_source"] = {name: shown.to_dict()[name] for name in strange}
        if unseen:
            plan["unseen"] = {name: chosen.acquisition.to_dict()[name] for name in unseen}
        if params.target.protocols is not None:
            plan["protocol"] = chosen.subject_id
            return Drawing(plan)
        return Drawing(plan, (chosen.subject_id,) if chosen.subject_id else ())

    def apply(
        self,
        samples: Sequence[Sample],
        plans: Sequence[Plan],
        models: Mapping[str, Model],
        params: AcquisitionParams,
        sampler: Sampler,
    ) -> list[Sample]:
        """Render each sample under its plan's acquisition, however little of it an inversion keeps.

        Raises:
            CheckpointError: the generator was made for other channels or ranges.
        """
        return [made for made, _ in _rendered(samples, plans, models["generator"], params, sampler)]

    def apply_measured(
        self,
        samples: Sequence[Sample],
        plans: Sequence[Plan],
        models: Mapping[str, Model],
        params: AcquisitionParams,
        sampler: Sampler,
    ) -> list[tuple[Sample, Mapping[str, float]]]:
        """The same, with the `round_trip` error of each row that was inverted.

        Raises:
            SkippedError: of a row, it is above `params.round_trip`.
        """
        found = _rendered(samples, plans, models["generator"], params, sampler)
        bound = ROUND_TRIP if params.round_trip is None else params.round_trip
        for error in (measured["round_trip"] for _, measured in found if measured):
            if not error <= bound:
                raise SkippedError(
                    f"inverted and made again under its own parameters, the row differs from itself by {error:.3g} of "
                    f"its standard deviation (params.round_trip allows {bound:g}): take more sampler.steps or less "
                    "strength"
                )
        return found

    def apart(self, models: Mapping[str, Model], params: AcquisitionParams) -> bool:
        """Where a method renders row by row, or its generator does."""
        generator = models["generator"]
        return params.method == "local_contrast" or (isinstance(generator, Generator) and generator.apart)

    def region(self, sample: Sample, plan: Plan) -> np.ndarray | None:
        """Contrast may change everywhere."""
        return None


def _rendered(
    samples: Sequence[Sample], plans: Sequence[Plan], generator: Model, params: AcquisitionParams, sampler: Sampler
) -> list[tuple[Sample, Mapping[str, float]]]:
    """Each sample under its plan's acquisition, and what was measured of it."""
    for channels, rule in {(s.channels, s.intensity_rule) for s in samples}:
        generator.check(channels, rule)
    targets = [Acquisition(**p.params["acquisition"]) for p in plans]
    x = np.stack([normalise(s) for s in samples])
    if params.method == "local_contrast":
        return [(_rerendered(generator, *row, params), {}) for row in zip(samples, x, plans, targets, strict=True)]
    assert isinstance(generator, Generator)  # every other method's diffuses: see `check`
    seeds = [p.seed for p in plans]
    guidance = Guidance(sampler.guidance, sampler.guidance_interval, sampler.guidance_rescale)
    settings: dict[str, Any] = {
        "solver": sampler.solver,
        "steps": sampler.steps,
        "strength": sampler.strength,
        "guidance": guidance,
    }
    measured: list[Mapping[str, float]] = [{} for _ in samples]
    if params.method == "inversion":
        sources = [s.acquisition for s in samples]
        y, lost = counterfactual.inversion(generator, x, sources, targets, **settings)
        measured = [{"round_trip": float(error)} for error in lost]
    elif params.method == "sdedit":
        y = counterfactual.sdedit(generator, x, targets, seeds, **settings)
    else:
        names = generator.spec.labels
        tissue = np.stack([tissue_index(s.label, s.labels, names, s.image) for s in samples])
        y = counterfactual.structure(generator, x, targets, seeds, tissue, **settings)
    made = [
        s.replace(image=denormalise(image, s), acquisition=target)
        for s, image, target in zip(samples, y, targets, strict=True)
    ]
    return list(zip(made, measured, strict=True))


def _rerendered(
    generator: Model, sample: Sample, x: np.ndarray, plan: Plan, target: Acquisition, params: AcquisitionParams
) -> Sample:
    """One row under its target; what the generator never saw of the source is shown to it as the plan says."""
    source = sample.acquisition.replace(**plan.params.get("unseen_source", {}))
    texture = TEXTURE if params.texture is None else params.texture
    spacing_mm = sample.spacing_mm[: sample.image.ndim - 1]
    assert isinstance(generator.network, LocalContrast)  # see `check`
    made = render(generator.network, x, spacing_mm, source, target, texture, sample.slab_end_mm)
    return sample.replace(image=denormalise(made.draw, sample), acquisition=target)


def _strange_source(own: Acquisition, vocabulary: Vocabulary) -> dict[str, str]:
    """What the network reads of a source and never met, with the reason; what is not stated, where training stated it.

    Another scanner's model is no reason: it does not read that.
    """
    strange = {n: why for n, why in vocabulary.unseen(own).items() if n not in ("model", "slice_thickness_mm")}
    for name in ("repetition_time_ms", "echo_time_ms", "flip_angle_deg"):
        if getattr(own, name) is None and vocabulary.maxima[name]:
            strange[name] = f"{name}, which is not stated (seen: up to {vocabulary.maxima[name]:g})"
    return strange


def _vocabulary(context: Context) -> Vocabulary | None:
    return context.specs["generator"].vocabulary if "generator" in context.specs else None
