"""What every edit must keep, whichever it is: replay, independence of neighbours, geometry, label, declared region."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from augengine.contracts.base import Checks, must, own_code, without_global_randomness
from augengine.contracts.models import contrast_spec, tiny_bank, tiny_spec
from augengine.contracts.samples import GE, SAMPLES, SIEMENS
from augengine.diffusion.checkpoint import Model, untrained_model
from augengine.diffusion.spec import Kind
from augengine.edits.base import Donor, Plan, Skip
from augengine.edits.chain import Step, joined, parted, union
from augengine.errors import ContractError
from augengine.load import LoadedPolicy
from augengine.policy.spec import GateSpec
from augengine.records import Sample

# Of both vendors, so that every target has a candidate.
DONORS = (Donor("D1", SIEMENS), Donor("D2", GE), Donor("D3", GE.replace(echo_time_ms=2.6)))
GREY_LEVEL = 1.0
"""Of rounding: batched kernels differ in the last bits."""


@dataclass(frozen=True)
class EditCase:
    """The steps of a policy with untrained models by role, its gates, and rows of one shape that it edits."""

    steps: tuple[Step, ...]
    gates: Sequence[GateSpec]
    models: Mapping[str, Model]
    samples: Sequence[Sample] = SAMPLES

    def plan(self, sample: Sample, seed: int) -> Plan:
        """The plan of a row; each step plans on what the one before it made of this row."""
        row, plans = Plan(f"out-{sample.sample_id}", sample.sample_id, 0, 0, seed, {}), list[Plan]()
        for step in self.steps:
            plan = step.plan(sample, row, DONORS, {r: m.spec for r, m in self.models.items()})
            if isinstance(plan, Skip):
                raise ContractError(
                    "an edit serves the rows that it is checked on",
                    found=plan.reason,
                    next_step="let Params() serve slices with labels and two channels, or give rows of yours by --rows",
                )
            plans.append(plan)
            if step is not self.steps[-1]:
                (sample,) = step.apply([sample], [plan], self.models)
        return joined(row, self.steps, plans)

    @cached_property
    def plans(self) -> list[Plan]:
        """Of all rows."""
        return [self.plan(s, 7 + n) for n, s in enumerate(self.samples)]

    @cached_property
    def edited(self) -> list[Sample]:
        """The whole batch."""
        return self.apply(self.samples, self.plans)

    def apply(self, samples: Sequence[Sample], plans: Sequence[Plan]) -> list[Sample]:
        """All steps on a batch."""
        found = list(samples)
        for step, own in zip(self.steps, zip(*(parted(p, self.steps) for p in plans), strict=True), strict=True):
            found = step.apply(found, own, self.models)
        return found

    def judged(self, sample: Sample, plan: Plan) -> list[tuple[Sequence[GateSpec], Sample, Sample, Any]]:
        """Gates with what they judge: input, output and region of each step, then of the whole row, which is last."""
        source, found = sample, list[Any]()
        region: np.ndarray | None = np.zeros(sample.image.shape[1:], bool)
        for step, own in zip(self.steps, parted(plan, self.steps), strict=True):
            (after,) = step.apply([sample], [own], self.models)
            allowed = step.edit.region(sample, own)
            found.append((step.gates, sample, after, allowed))
            sample, region = after, union(region, allowed)
        return [*found, (self.gates, source, sample, region)]

    def region(self, sample: Sample, plan: Plan) -> np.ndarray | None:
        """What the whole row may change."""
        found: np.ndarray | None = self.judged(sample, plan)[-1][3]
        return found


def edit_case(
    loaded: LoadedPolicy,
    kinds: Sequence[str],
    samples: Sequence[Sample] = SAMPLES,
    changes: Callable[[Step], Mapping[str, Any]] = lambda step: {},
) -> EditCase:
    """A policy with an untrained model of the given kind for each of its roles, and samplers of two steps.

    Args:
        changes: parameters of a step in place of the policy's.
    """
    channels = samples[0].channels
    size, axes = samples[0].image.shape[1], samples[0].image.ndim - 1
    changes_contrast = any(getattr(step.params, "method", None) == "local_contrast" for step in loaded.steps)
    models: dict[str, Model] = {}
    for role, kind in zip(loaded.roles, kinds, strict=True):
        if kind == "lesion_bank":  # it holds lesions and no weights, so that there is none without them
            models[role] = tiny_bank(list(samples))
            continue
        of_kind: Kind = kind  # type: ignore[assignment]  # as the edit's MODELS say
        spec = tiny_spec(of_kind, channels=channels, size=size, axes=axes)
        if changes_contrast:
            spec = contrast_spec(channels, size)
        models[role] = untrained_model(spec, seed=1)
    steps = []
    for step in loaded.steps:
        params = type(step.params).model_validate({**step.params.model_dump(by_alias=True), **changes(step)})
        sampler = step.sampler.model_copy(update={"steps": 2, "strength": 0.5, "guidance": 1.5})
        steps.append(replace(step, params=params, sampler=sampler))
        steps[-1].check({role: model.spec for role, model in models.items()})
    return EditCase(tuple(steps), loaded.policy.gates, models, samples)


def replays(case: EditCase) -> None:
    """A plan that went through JSON makes the same bytes, and nothing is drawn that it does not hold."""
    texts = _texts(case.plans)
    again = [Plan.from_dict(json.loads(text)) for text in texts]
    with without_global_randomness():
        replayed = case.apply(case.samples, again)
    same = all(_bytes(a) == _bytes(b) for a, b in zip(case.edited, replayed, strict=True))
    must(
        same,
        "a plan that went through JSON makes the same row again",
        mend="draw in plan, and in apply from plan.seed alone; keep lists, numbers and texts in the plan",
    )


def ignores_neighbours(case: EditCase) -> None:
    """At one batch size no bit of a row depends on its place or its neighbours."""
    backward = case.apply(case.samples[::-1], case.plans[::-1])[::-1]
    padded = case.apply([case.samples[1]] * len(case.samples), [case.plans[1]] * len(case.samples))
    same = [a.image.tobytes() == b.image.tobytes() for a, b in zip(case.edited, backward, strict=True)]
    same.append(padded[0].image.tobytes() == case.edited[1].image.tobytes())
    must(
        all(same),
        "a row of a batch depends on its own sample and plan alone",
        mend="compute each row of apply by itself, or by operations that do not mix rows",
    )


def agrees_alone(case: EditCase) -> None:
    """A batch is, up to rounding, its rows one by one; where steps say that they compute rows apart, bit for bit."""
    level = 0.0 if all(step.apart(case.models) for step in case.steps) else GREY_LEVEL
    for sample, plan, after in zip(case.samples, case.plans, case.edited, strict=True):
        (alone,) = case.apply([sample], [plan])
        difference = float(np.abs(alone.image - after.image).max())
        label = np.array_equal(alone.label, after.label)  # type: ignore[arg-type]  # None equals None
        must(
            label and difference <= level,
            "a batch makes what its rows make alone",
            found=f"{difference:g} grey levels apart" + ("" if label else ", and another label map"),
            mend="compute each row of apply from its own sample and plan",
        )


def keeps_geometry(case: EditCase) -> None:
    """The source's arrays are left as they were; grid, channels, subject and split are the source's."""
    before = [(s.image.copy(), None if s.label is None else np.array(s.label)) for s in case.samples]
    for (image, label), sample, after in zip(before, case.samples, case.apply(case.samples, case.plans), strict=True):
        untouched = np.array_equal(image, sample.image) and (label is None or np.array_equal(label, sample.label))  # type: ignore[arg-type]
        must(
            untouched,
            "apply leaves the arrays that it is given as they are",
            mend="copy them before changing them; Sample.replace makes the new row",
        )
        for what in ("channels", "subject_id", "volume_id", "slice_index", "site", "split"):
            must(
                getattr(after, what) == getattr(sample, what),
                f"a row has the {what} of its source",
                found=getattr(after, what),
                mend="make the row by sample.replace(image=…, label=…)",
            )
        same_grid = after.image.shape == sample.image.shape and after.affine.tobytes() == sample.affine.tobytes()
        must(
            same_grid,
            "a row lies on the grid of its source",
            found=after.image.shape,
            mend="keep the image's shape and the affine",
        )
        must(
            bool(np.isfinite(after.image).all()),
            "an image is finite",
            mend="mend what makes values that are no numbers",
        )


def stays_in_region(case: EditCase) -> None:
    """Nothing changes outside the declared region, and a label that changed lies on pixels that did."""
    for sample, plan, after in zip(case.samples, case.plans, case.edited, strict=True):
        if sample.label is None:
            must(after.label is None, "a row without a label map gets none from an edit", mend="leave the label None")
            label = np.zeros(sample.image.shape[1:], bool)
        else:
            must(after.label is not None, "a row with a label map keeps one", mend="keep it or change it")
            assert after.label is not None
            kept = all(after.labels.get(name) == code for name, code in sample.labels.items())
            must(kept, "the source's labels keep their codes", found=dict(after.labels), mend="add new names only")
            codes = set(np.unique(after.label).tolist()) - {0, *after.labels.values()}
            must(not codes, "every code of the label map has a name", found=codes, mend="name it in labels")
            label = after.label != sample.label
        image, region = (after.image != sample.image).any(axis=0), case.region(sample, plan)
        if region is not None:
            must(
                region.dtype == bool and region.shape == image.shape,
                "a region is a bool mask of the image's shape",
                found=f"{region.dtype} {region.shape}",
                mend="return such a mask, or None for all voxels",
            )
            outside = int((image | label)[~region].sum())
            must(
                not outside,
                "nothing changes outside the region that the edit declares",
                found=f"{outside} voxels",
                mend="let region cover them, or leave them as they are",
            )
        if label.any():
            must(
                float(image[label].mean()) > 0.5,
                "a label changes where the image does",
                found=f"{image[label].mean():.2f} of the changed labels lie on changed pixels",
                mend="change image and label together, or leave the label",
            )


def plans_without_global_randomness(case: EditCase) -> None:
    """Planning draws from the generator that it is given: the same seed gives the same plan."""
    with without_global_randomness():
        twice = [_texts([case.plan(s, 7) for s in case.samples]) for _ in range(2)]
    must(twice[0] == twice[1], "the same seed gives the same plan", mend="draw from the rng that plan is given")


CHECKS: Checks[EditCase] = {
    "the same seed gives the same plan": plans_without_global_randomness,
    "sources stay as they are, and rows lie on their grid": keeps_geometry,
    "a plan that went through JSON makes the same bytes": replays,
    "neighbours and order change no bit": ignores_neighbours,
    "a batch makes what its rows make alone": agrees_alone,
    "nothing changes outside the declared region, nor a label without its pixels": stays_in_region,
}


def _texts(plans: Sequence[Plan]) -> list[str]:
    with own_code("JSON of a plan"):
        return [json.dumps(p.to_dict(), sort_keys=True, allow_nan=False) for p in plans]


def _bytes(sample: Sample) -> tuple[bytes, bytes | None]:
    return sample.image.tobytes(), None if sample.label is None else sample.label.tobytes()
