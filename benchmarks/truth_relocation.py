"""Tumour relocation against the same brain with the lesion rendered in its new place, on held-out phantom subjects.

The edit plans as a user's would (about the mirror image, turned and resized; every model to the same place, with the
margin of its kind); the truth renders the finished label map in the same anatomy with the same noise. The baselines get
the edit's masks: the old place filled by the mean, the lesion's pixels pasted in the new one, with and without Poisson
blending.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from _generators import COHORTS, LESION, Row, batches, model, rows
from _lesions import TUMOUR, seeds, segmented

from augengine import masks, rng
from augengine.diffusion.checkpoint import Generator, untrained
from augengine.edits.base import Context, Plan, Skip
from augengine.edits.lesions import named, voxel_mm
from augengine.edits.tumor_relocation import Relocation, RelocationParams, Scene, TumorRelocationEdit, mirrored
from augengine.intensity import normalise
from augengine.metrics.fidelity import fidelity, texture_ratio
from augengine.metrics.overlap import dice
from augengine.metrics.removal import tumor_residual
from augengine.phantom.brain_cohort import BrainCohort
from augengine.policy.spec import Sampler
from augengine.prepare import Preparation, prepare
from augengine.records import Sample
from augengine.report.classical_fills import mean_fill, paste, poisson_paste
from augengine.report.comparison import Comparison, Target, best, estimate, intervals, target
from augengine.report.console import stage

PARAMS = RelocationParams(
    labels=LESION, margin_mm=3, mirror="always", shift_mm=(0, 20), rotation_deg=(-20, 20), scale=(0.8, 1.2)
)
SAMPLER = Sampler(solver="ddim", steps=25)
GUIDANCE = 3.0  # of generators that know "unhealthy" only, as in augengine/policies/brats_tumor_relocation_paper.yaml
GENERATORS, PASTES = ("m3", "pcf_unet"), ("copy–paste", "copy–paste, Poisson")
REAL, TRUTH = "source, its own lesion", "truth"
DICE_OF_REAL = 0.8
CONTEXT_PX = 2  # beyond the lesion, carried along: gradients at its edge need them
MEASURES = {
    "rmse_new": "RMSE new lesion",
    "ssim_new": "SSIM",
    "texture_ratio": "texture ratio",
    "referee_dice": "referee Dice",
    "rmse_margin": "RMSE beside it",
    "rmse_old": "RMSE old place",
    "changed_outside": "max |Δ| outside",
    "old_residual": "residual, old place",
    "psnr_db_new": "PSNR dB",
    "rmse_outside": "RMSE outside",
}


@dataclass(frozen=True)
class Case:
    """A row with its plan, what the plan makes of it, and the rendered truth (C, I, J), normalised alike."""

    row: Row
    plan: Plan
    scene: Scene
    truth: np.ndarray

    @property
    def lesion(self) -> np.ndarray:
        """bool (I, J): every lesion of the finished label map."""
        return np.isin(self.scene.label, [self.scene.labels[name] for name in LESION])


def measure(given: argparse.Namespace) -> list[Comparison]:
    """Plan, render, edit and compare with the targets."""
    cohort, referee = COHORTS["brain"], model(given.root, "referee")
    names = given.generators or (GENERATORS[:1] if given.quick else GENERATORS)
    generators = {name: model(given.root, name) for name in names}
    chosen = list(
        rows(given.root, "brain", "test", with_truth=False, per_subject=1 if given.quick else 4, min_lesion=20)
    )
    chosen = chosen[:3] if given.quick else chosen
    cases, skipped = _cases(cohort, chosen, generators["m3"])
    subjects = [c.row.sample.subject_id for c in cases]
    images = {
        REAL: [c.row.image for c in cases],
        **{name: [_pasted(c, blended=name != PASTES[0]) for c in cases] for name in PASTES},
    }
    with stage("relocation") as report:
        models = {**generators, "m3, untrained": untrained(generators["m3"], seed=1)}
        for n, (name, generator) in enumerate(models.items()):
            report(n, len(models), {"method": name})
            images[name] = _relocated(cases, generator)
    images[TRUTH] = [c.truth for c in cases]
    found = {name: _measured(referee, cases, after, own=name == REAL) for name, after in images.items()}
    found[TRUTH].pop("changed_outside")  # the lesion that was there reached beyond its mask
    table = intervals(found, subjects)
    pasted = best(found, PASTES, "rmse_new", subjects)
    targets = (
        target(
            "referee Dice on new lesions, m3 / on real ones",
            found["m3"]["referee_dice"],
            found[REAL]["referee_dice"],
            subjects,
            DICE_OF_REAL,
            at_most=False,
        ),
        target(
            "referee Dice on new lesions, m3 / on rendered ones",
            found["m3"]["referee_dice"],
            found[TRUTH]["referee_dice"],
            subjects,
            DICE_OF_REAL,
            at_most=False,
        ),
        target(
            f"RMSE of the new lesion, m3 / {pasted}", found["m3"]["rmse_new"], found[pasted]["rmse_new"], subjects, 1.0
        ),
        Target("largest change outside old and new place, m3", max(found["m3"]["changed_outside"]), 0.0, True),
    )
    picks = np.unique(np.linspace(0, len(cases) - 1, 4).round().astype(int))
    figures = {
        "skipped_plans": skipped,
        "own_lesion_rendered_from_its_label": {
            name: estimate(value) for name, value in intervals({"": _redrawn(cohort, chosen)}, _ids(chosen))[""].items()
        },
    }
    return [
        Comparison(
            f"Tumour relocation, {len(cases)} slices of {len(set(subjects))} test subjects",
            MEASURES,
            table,
            targets,
            figures,
            {name: [after[p][-1] for p in picks] for name, after in images.items()},
        )
    ]


def _ids(chosen: Sequence[Row]) -> list[str]:
    return [r.sample.subject_id for r in chosen]


def _cases(cohort: BrainCohort, chosen: Sequence[Row], generator: Generator) -> tuple[list[Case], int]:
    """The rows that have a plan, each with its truth, and the number of those that have none."""
    planned: dict[str, list[tuple[Row, Plan, Scene]]] = {}
    skipped = 0
    for row, seed in zip(chosen, seeds(list(chosen)), strict=True):
        sample, plan = row.sample, _plan(row.sample, seed, generator)
        if plan is None:
            skipped += 1
            continue
        scene = Relocation.model_validate(plan.params).scene(sample)
        planned.setdefault(sample.subject_id, []).append((row, plan, scene))
    cases = []
    for made in planned.values():
        truths = _rendered(cohort, [r.sample for r, _, _ in made], [s.label for _, _, s in made])
        cases += [Case(*each, truth) for each, truth in zip(made, truths, strict=True)]
    return cases, skipped


def _plan(sample: Sample, seed: int, generator: Generator) -> Plan | None:
    """Where the lesion goes, which depends on the sample alone, and how far `generator` paints beyond it."""
    context = Context(specs={"generator": generator.spec})
    drawing = TumorRelocationEdit().plan(sample, PARAMS, rng.generator("relocation", sample.sample_id), context)
    return None if isinstance(drawing, Skip) else Plan("", sample.sample_id, 0, 0, seed, drawing.params)


def _rendered(cohort: BrainCohort, samples: Sequence[Sample], labels: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Slices (C, I, J) of one subject with the lesions that the label maps (I, J) have; slices do not mix."""
    first = samples[0]
    label = np.zeros((*first.image.shape[1:], cohort.slices), np.uint8)
    for sample, plane in zip(samples, labels, strict=True):
        label[..., sample.slice_index] = plane
    volume = prepare(cohort.truth(first.subject_id, lesion=label, shared_noise=True), Preparation())
    by_slice = {t.slice_index: t.replace(intensity_range=first.intensity_range) for t in volume}
    return [normalise(by_slice[s.slice_index]) for s in samples]


def _redrawn(cohort: BrainCohort, chosen: Sequence[Row]) -> dict[str, list[float]]:
    """The scan's own lesion, rendered from its label map: what the truth itself leaves open."""
    by_subject: dict[str, list[Row]] = {}
    for row in chosen:
        by_subject.setdefault(row.sample.subject_id, []).append(row)
    out: dict[str, list[float]] = {}
    for part in by_subject.values():
        labels = [r.sample.label for r in part if r.sample.label is not None]
        for row, image in zip(part, _rendered(cohort, [r.sample for r in part], labels), strict=True):
            for name, value in fidelity(image, row.image, {"lesion": row.lesion}).items():
                out.setdefault(name, []).append(value)
    return out


def _relocated(cases: Sequence[Case], generator: Generator) -> list[np.ndarray]:
    edit, out, sampler = TumorRelocationEdit(), [], SAMPLER
    if generator.spec.kind == "counterfactual":
        sampler = SAMPLER.model_copy(update={"guidance": GUIDANCE})
    for part in batches(list(cases), 8):
        samples = [c.row.sample for c in part]
        plans = [p for c in part if (p := _plan(c.row.sample, c.plan.seed, generator))]
        out += [normalise(s) for s in edit.apply(samples, plans, {"generator": generator}, PARAMS, sampler)]
    return out


def _pasted(case: Case, blended: bool) -> np.ndarray:
    """The lesion's own pixels in its new place, the old one filled by the mean."""
    healed = mean_fill(case.row.image, case.row.brain & ~case.row.lesion, case.scene.old)
    source, new = _carried(case, healed), case.scene.lesion
    return poisson_paste(healed, new, source) if blended else paste(healed, new, source)


def _carried(case: Case, elsewhere: np.ndarray) -> np.ndarray:
    """The row's image (C, I, J) moved as the plan moves the lesion; `elsewhere` where no pixel comes to lie."""
    sample, relocation = case.row.sample, Relocation.model_validate(case.plan.params)
    motion, spacing, lesion = masks.Motion(**relocation.motion), voxel_mm(sample), relocation.healing.lesion(sample)
    origin = masks.centre(lesion)
    goal = origin if motion.mirrored_axis is None else mirrored(sample, origin, motion.mirrored_axis)
    taken = masks.dilate(lesion, CONTEXT_PX * max(spacing), spacing)
    # `place` carries bytes: every pixel's coordinates plus 1 say where what arrives came from.
    planes = [np.where(taken, axis + 1, 0).astype(np.uint8) for axis in np.indices(lesion.shape)]
    came = [masks.place(p, origin.tolist(), goal.tolist(), lesion.shape, motion, spacing)[0] for p in planes]
    moved = case.row.image[(slice(None), *(c.astype(int) - 1 for c in came))]
    return np.where(came[0] > 0, moved, elsewhere)


def _measured(
    referee: Generator, cases: Sequence[Case], after: Sequence[np.ndarray], own: bool
) -> dict[str, list[float]]:
    """Every measure, one value per case; of the source (`own`) the referee's Dice alone, with its own lesion."""
    values: dict[str, list[float]] = {}
    for case, image, labels in zip(cases, after, segmented(referee, np.stack(after)), strict=True):
        tumour, scene = labels == TUMOUR, case.scene
        if own:
            values.setdefault("referee_dice", []).append(dice(tumour, named(case.row.sample, LESION)))
            continue
        outside = ~(scene.old | scene.new)
        old = scene.old & ~case.lesion & case.row.brain
        shown = {
            "new": scene.lesion,
            "margin": scene.new & ~case.lesion & case.row.brain,
            "old": old,
            "outside": outside & case.row.brain,
        }
        measured = {
            **fidelity(image, case.truth, shown),
            "texture_ratio": texture_ratio(image, case.truth, scene.lesion),
            "changed_outside": float(np.abs(image - case.row.image)[:, outside].max()),
            "referee_dice": dice(tumour, case.lesion),
            "old_residual": tumor_residual(tumour, old),
        }
        for name, value in measured.items():
            values.setdefault(name, []).append(value if np.isfinite(value) else np.nan)
    return values
