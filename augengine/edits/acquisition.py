"""Counterfactual acquisition: the same anatomy as another scanner and protocol would have shown it.

Source: "Counterfactual Simulation of Acquisition Parameters via Conditional Diffusion Model" (MIDL 2025) for
`sdedit`; `inversion` and `structure` are described in `augengine.diffusion.counterfactual`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from augengine.diffusion import counterfactual
from augengine.diffusion.checkpoint import Generator
from augengine.diffusion.guidance import Guidance
from augengine.diffusion.spec import ModelSpec
from augengine.diffusion.tissue import tissue_index
from augengine.edits.base import Context, Donor, Drawing, Plan, Skip
from augengine.errors import CheckpointError, ConfigError
from augengine.intensity import denormalise, normalise
from augengine.phantom.protocols import duke_protocols
from augengine.policy.spec import Sampler, Where, check_where, matches
from augengine.records import Acquisition, Sample
from augengine.yaml_config import Strict, unset


class Empirical(Strict):
    """Whole rows of a joint table, drawn as often as they occur, since parameters are never independent.

    `samples`: the training subjects of the data at hand. `duke_protocols`: the published counts of the Duke
    collection, for the `strict` protocol in which no target comes from the data.
    """

    source: Literal["samples", "duke_protocols"] = Field(alias="from", default="samples")
    where: Where = Field(default_factory=dict)
    _check = field_validator("where")(check_where)


class Target(Strict):
    """Where the new acquisition comes from: exactly one of the three.

    Attributes:
        empirical: a row of a joint table.
        explicit: parameters that are changed; the others stay as scanned.
        protocols: whole acquisitions by name, which the row's plan states; what a protocol leaves out is unknown.
    """

    empirical: Empirical | None = None
    explicit: list[dict[str, str | float]] | None = Field(default=None, min_length=1)
    protocols: dict[str, dict[str, str | float]] | None = Field(default=None, min_length=1, exclude_if=unset)

    @model_validator(mode="after")
    def _one(self) -> Target:
        if sum(given is not None for given in (self.empirical, self.explicit, self.protocols)) != 1:
            raise ValueError("give exactly one of 'empirical', 'explicit' and 'protocols'")
        for row in (*(self.explicit or ()), *(self.protocols or {}).values()):
            check_where(dict(row))
        return self


class AcquisitionParams(Strict):
    """Parameters of the edit in a policy file."""

    method: Literal["structure", "inversion", "sdedit"] = "structure"
    target: Target


class AcquisitionEdit:
    """Keeps anatomy, label and geometry; changes contrast, noise and the acquisition record."""

    name: ClassVar[str] = "acquisition"
    Params: ClassVar[type[Strict]] = AcquisitionParams
    MODELS: ClassVar[Mapping[str, tuple[str, ...]]] = {"generator": ("acquisition",)}

    def check(self, params: AcquisitionParams, sampler: Sampler, specs: Mapping[str, ModelSpec]) -> None:
        """`structure` needs a generator with a structure input, `inversion` the solver ddim."""
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

    def plan(
        self, sample: Sample, params: AcquisitionParams, rng: np.random.Generator, context: Context
    ) -> Drawing | Skip:
        """Draw a whole acquisition that differs from the sample's own.

        Explicit targets change the named parameters and keep the others.
        """
        if sample.intensity_range is None:
            return Skip("the sample carries no intensity range; ingest it again")
        donors = _candidates(params.target, sample, rng, context)
        donors = [d for d in donors if d.acquisition != sample.acquisition and d.subject_id != sample.subject_id]
        if not donors:
            return Skip("no target acquisition differs from the sample's own")
        chosen = donors[int(rng.integers(len(donors)))]
        plan: dict[str, Any] = {"acquisition": chosen.acquisition.to_dict()}
        if params.target.protocols is not None:
            plan["protocol"] = chosen.subject_id
            return Drawing(plan)
        return Drawing(plan, (chosen.subject_id,) if chosen.subject_id else ())

    def apply(
        self,
        samples: Sequence[Sample],
        plans: Sequence[Plan],
        models: Mapping[str, Generator],
        params: AcquisitionParams,
        sampler: Sampler,
    ) -> list[Sample]:
        """Render each sample under its plan's acquisition.

        Raises:
            CheckpointError: the generator was made for other channels or ranges.
        """
        generator = models["generator"]
        for channels, rule in {(s.channels, s.intensity_rule) for s in samples}:
            generator.check(channels, rule)
        targets = [Acquisition(**p.params["acquisition"]) for p in plans]
        x = np.stack([normalise(s) for s in samples])
        seeds = [p.seed for p in plans]
        guidance = Guidance(sampler.guidance, sampler.guidance_interval, sampler.guidance_rescale)
        settings: dict[str, Any] = {
            "solver": sampler.solver, "steps": sampler.steps, "strength": sampler.strength, "guidance": guidance,
        }  # fmt: skip
        if params.method == "inversion":
            sources = [s.acquisition for s in samples]
            y = counterfactual.inversion(generator, x, sources, targets, **settings)
        elif params.method == "sdedit":
            y = counterfactual.sdedit(generator, x, targets, seeds, **settings)
        else:
            names = generator.spec.labels
            tissue = np.stack([tissue_index(s.label, s.labels, names, s.image) for s in samples])
            y = counterfactual.structure(generator, x, targets, seeds, tissue, **settings)
        return [
            s.replace(image=denormalise(image, s), acquisition=target)
            for s, image, target in zip(samples, y, targets, strict=True)
        ]

    def region(self, sample: Sample, plan: Plan) -> np.ndarray | None:
        """Contrast may change everywhere."""
        return None


def _candidates(target: Target, sample: Sample, rng: np.random.Generator, context: Context) -> list[Donor]:
    """Acquisitions to choose from with equal chance; a frequent row stands there as often as it was seen."""
    if target.explicit is not None:
        return [Donor("", sample.acquisition.replace(**row)) for row in target.explicit]
    if target.protocols is not None:  # named in a donor's place
        return [Donor(name, Acquisition(**row)) for name, row in target.protocols.items()]  # type: ignore[arg-type]
    assert target.empirical is not None
    if target.empirical.source == "samples":
        donors = list(context.donors)
    else:
        quantile = float(rng.random())
        rows = [Donor("", p.acquisition(quantile)) for p in duke_protocols()]
        donors = [row for row, p in zip(rows, duke_protocols(), strict=True) for _ in range(p.patients)]
    return [d for d in donors if matches(target.empirical.where, d.acquisition)]
