"""Synthetic labels in a donor's style against the same brain, with that lesion, rendered at the donor's site.

    python benchmarks/synthetic_style.py [--subjects 20]

Runs the policy `brats_synthetic_labels_acquisition` as a user's job would, on test subjects of the brain phantom.
Says what the gates did, how far the rows (accepted or not) are from the rendered truth, and whether the referee finds
the new lesion. Trains what is missing.
"""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from _generators import COHORTS, LESION, checkpoint, data, flags, model
from _lesions import TUMOUR, segmented
from _record import record

from augengine.edits.lesions import named
from augengine.intensity import normalise
from augengine.io.dataset import dataset_files, run_files, write_dataset
from augengine.io.shards import iter_samples, to_table
from augengine.io.store import Store
from augengine.load import LoadedPolicy, load_policy
from augengine.metrics.fidelity import fidelity
from augengine.metrics.overlap import dice
from augengine.phantom.brain import SITES
from augengine.pipeline.augment import augment
from augengine.pipeline.units import INLINE
from augengine.prepare import Preparation, prepare
from augengine.records import Sample
from augengine.report.comparison import Comparison, draw, intervals, target
from augengine.report.console import console, stage

POLICY = "brats_synthetic_labels_acquisition"
MODELS = {
    "synthetic_labels.prior": "label_ldm",
    "synthetic_labels.painter": "m3",
    "acquisition.generator": "acquisition",
}
MEASURES = {
    "rmse_brain": "RMSE brain",
    "rmse_lesion": "RMSE new lesion",
    "ssim_brain": "SSIM brain",
    "referee_dice": "referee Dice",
}
LEAST_TISSUE = 400


def main() -> None:
    """Make the rows, render their truth, compare, draw and record."""
    parser = flags(__doc__)
    parser.add_argument("--subjects", type=int, default=20, help="of the test split, two slices each")
    given = parser.parse_args()
    out = Path("runs/synthetic_style").resolve()
    shutil.rmtree(out, ignore_errors=True)
    chosen, source = _slices(given.root, given.subjects), str(out / "data")
    write_dataset(source, [to_table([*chosen, *_donors(given.root)])])
    values = load_policy(POLICY).to_dict()
    values["select"] = {"split": "test"}
    with stage("synthetic labels in a donor's style") as progress:
        summary = augment(
            LoadedPolicy.from_dict(values),
            source,
            str(out / "made"),
            {role: checkpoint(given.root, name) for role, name in MODELS.items()},
            actors=INLINE,
            progress=progress,
        )
    store, reasons = Store(str(out / "made")), Counter[str]()
    made = [s for kind in ("accepted", "rejected") for s in iter_samples(store, run_files(store, kind))]
    for name in run_files(store, "rejected"):
        for reason in store.parquet(name).read(columns=["reason"])["reason"].to_pylist():
            reasons.update(part.split(" = ")[0] for part in reason.split("; "))
    before = {s.sample_id: s for s in chosen}
    sources = [before[s.provenance.parent_id] for s in made if s.provenance]
    images = {
        "source": [normalise(s) for s in sources],
        "synthetic, donor's style": [normalise(s) for s in made],
        "rendered at the donor's site": [_truth(s) for s in made],
    }
    comparison = _compared(given.root, made, images)
    comparison.show()
    path = record("synthetic_style", {"counts": summary.counts, "rejected_by": dict(reasons), **comparison.to_dict()})
    path.with_suffix(".png").write_bytes(draw([comparison]))
    console.print(path)


def _slices(root: str, subjects: int) -> list[Sample]:
    """Two slices with much brain of each of the first test subjects."""
    store = Store(data(root, "brain"))
    own: dict[str, list[Sample]] = {}
    for sample in iter_samples(store, dataset_files(store)):
        if sample.split == "test" and sample.label is not None and np.count_nonzero(sample.label) >= LEAST_TISSUE:
            own.setdefault(sample.subject_id, []).append(sample)
    return [s for _, found in sorted(own.items())[:subjects] for s in found[len(found) // 3 :: len(found) // 3][:2]]


def _donors(root: str) -> list[Sample]:
    """One row of every training subject: how they were scanned is what the acquisition edit draws from."""
    store, found = Store(data(root, "brain")), {}
    for sample in iter_samples(store, dataset_files(store)):
        if sample.split == "train":
            found.setdefault(sample.subject_id, sample)
    return list(found.values())


def _truth(made: Sample) -> np.ndarray:
    """The row's slice (C, I, J) of the same subject, with the row's lesion, rendered at the row's site."""
    cohort = COHORTS["brain"]
    (site,) = (name for name, s in SITES.items() if s.acquisition == made.acquisition)
    assert made.label is not None  # every row of this policy has one
    label = np.zeros((*made.label.shape, cohort.slices), np.uint8)
    lesion = named(made, LESION)
    label[..., made.slice_index] = np.where(lesion, made.label, 0)
    volume = prepare(cohort.truth(made.subject_id, site=site, lesion=label), Preparation())
    return next(normalise(s) for s in volume if s.slice_index == made.slice_index)


def _compared(root: str, made: list[Sample], images: dict[str, list[np.ndarray]]) -> Comparison:
    referee, subjects = model(root, "referee"), [s.subject_id for s in made]
    truths = images["rendered at the donor's site"]
    found: dict[str, dict[str, list[float]]] = {}
    for name, shown in images.items():
        values: dict[str, list[Any]] = {m: [] for m in MEASURES}
        for sample, image, true, labels in zip(made, shown, truths, segmented(referee, np.stack(shown)), strict=True):
            lesion = named(sample, LESION)
            assert sample.label is not None  # every row of this policy
            measured = fidelity(image, true, {"brain": sample.label > 0, "lesion": lesion})
            measured["referee_dice"] = dice(labels == TUMOUR, lesion)
            for m in MEASURES:
                values[m].append(measured[m] if np.isfinite(measured[m]) else np.nan)
        found[name] = values
    source, ours, rendered = found
    targets = (
        target("RMSE brain, synthetic / source", found[ours]["rmse_brain"], found[source]["rmse_brain"], subjects, 1.0),
        target(
            "referee Dice, synthetic / rendered",
            found[ours]["referee_dice"],
            found[rendered]["referee_dice"],
            subjects,
            0.8,
            at_most=False,
        ),
    )
    picks = np.unique(np.linspace(0, len(made) - 1, 4).round().astype(int))
    pictures = {
        f"{name}, {channel}": [image[p][c] for p in picks]
        for c, channel in enumerate(made[0].channels)
        if channel in ("t1c", "flair")
        for name, image in images.items()
    }
    pictures["label"] = [np.where(named(made[p], LESION), made[p].label, 0) for p in picks]
    return Comparison(
        f"{len(made)} rows of {len(set(subjects))} test subjects",
        MEASURES,
        intervals(found, subjects),
        targets,
        {},
        pictures,
    )


if __name__ == "__main__":
    main()
