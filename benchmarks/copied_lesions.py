"""Recall of the gate `copy_distance` on copies of training lesions, and its false rejects on held-out ones: phantoms.

    python benchmarks/copied_lesions.py

Lesions of training rows, and 3 mm around them, are pasted into held-out rows of the brain phantom, at another place and
in several disguises. The bound is proposed on the lesions of one half of the held-out subjects, and everything is
measured on the other half's rows.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable

import numpy as np
from _record import record
from scipy.ndimage import affine_transform, gaussian_filter

from augengine import masks
from augengine.gates.base import LESION, Case, label_mask
from augengine.gates.calibration import FALSE_REJECTS, propose
from augengine.gates.copied import edited_region
from augengine.gates.real_rows import BORDER_MM, held_out
from augengine.gates.training_images import TrainingImages
from augengine.io.dataset import dataset_files
from augengine.io.shards import iter_samples
from augengine.io.store import Store
from augengine.phantom.brain_cohort import BrainCohort
from augengine.pipeline.phantom import shard_cohort
from augengine.pipeline.units import INLINE
from augengine.policy.spec import GateSpec
from augengine.prepare import Preparation
from augengine.records import Sample
from augengine.rng import derive, generator

COHORT = BrainCohort(subjects=40, seed=5, matrix=64, slices=12, labels="tissue")
LEAST_VOXELS = 40
"""Of the lesions that are copied."""
Paint = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""A donor's and its host's values (C, N) in, what is painted out."""
PAINTS: dict[str, Paint] = {
    "moved": lambda donor, host: donor,
    "moved, contrast × 0.6": lambda donor, host: 0.6 * donor + 0.4 * donor.mean(axis=1, keepdims=True),
    "moved, a tenth the host's own": lambda donor, host: 0.9 * donor + 0.1 * host,
    "moved, 30 % the host's own": lambda donor, host: 0.7 * donor + 0.3 * host,
}
MATRICES = {
    "smoothed by 1 voxel": np.eye(2),
    "turned by 10°": np.array([[np.cos(0.1745), -np.sin(0.1745)], [np.sin(0.1745), np.cos(0.1745)]]),
    "15 % larger": np.eye(2) / 1.15,
    "mirrored": np.diag([-1.0, 1.0]),
}


def main() -> None:
    """Plant, measure and record."""
    with tempfile.TemporaryDirectory() as out:
        shard_cohort(COHORT, out, Preparation(drop_end_slices=2), actors=INLINE)
        store = Store(out)
        rows = [row for row in iter_samples(store, dataset_files(store)) if label_mask(row, LESION).any()]
        training = TrainingImages.read(store)
    donors = [r for r in rows if r.split == "train" and np.count_nonzero(label_mask(r, LESION)) >= LEAST_VOXELS]
    unseen = [(row, case) for row in rows if (case := held_out(row)) is not None]
    fit, test = ([(r, c) for r, c in unseen if derive("copies", r.subject_id) % 2 == half] for half in (0, 1))
    real = [_values([c for _, c in half], training) for half in (fit, test)]
    spec = propose(GateSpec(name="copy_distance", min=0.0), real[0], FALSE_REJECTS)
    assert spec.min is not None
    planted = {kind: _values([copied(row, donors, kind) for row, _ in test], training) for kind in (*PAINTS, *MATRICES)}
    figures = {
        "training_rows": len(training.ids),
        "bound": spec.min,
        "held_out": {"rows": len(real[1]), "least": min(real[1]), "median": float(np.median(real[1]))},
        "false_rejects": float(np.mean([v < spec.min for v in real[1]])),
        "copies": {
            kind: {
                "rows": len(found),
                "median": float(np.median(found)),
                "recall": float(np.mean([v < spec.min for v in found])),
            }
            for kind, found in planted.items()
        },
    }
    print(json.dumps(figures, indent=1, ensure_ascii=False))
    print(record("copied_lesions", figures))


def copied(host: Sample, donors: list[Sample], kind: str) -> Case:
    """A host with a donor's lesion somewhere else."""
    random = generator("copied", host.sample_id)
    donor = donors[int(random.integers(len(donors)))]
    mask = masks.dilate(label_mask(donor, LESION), BORDER_MM, donor.spacing_mm[:2])
    image = donor.image
    if kind in MATRICES:
        matrix, middle = MATRICES[kind], masks.centre(mask)
        start = middle - matrix @ middle
        if kind.startswith("smoothed"):
            image = np.stack([gaussian_filter(channel, 1.0) for channel in image])
        image = np.stack([affine_transform(channel, matrix, start, order=1) for channel in image])
        mask = affine_transform(mask.astype(np.float32), matrix, start, order=1) > 0.5
    places = np.argwhere(mask)
    room = [(-low, size - 1 - high) for low, high, size in zip(places.min(0), places.max(0), mask.shape, strict=True)]
    target = places + [int(random.integers(max(low, -8), min(high, 8) + 1)) for low, high in room]
    made = host.image.copy()
    there = (slice(None), *target.T)
    made[there] = PAINTS.get(kind, PAINTS["moved"])(image[(slice(None), *places.T)], host.image[there])
    return Case(host, host.replace(image=made.astype(np.float32)), np.ones(mask.shape, bool))


def _values(cases: list[Case], training: TrainingImages) -> list[float]:
    found = [training.nearest(c.after, edited_region(c.before, c.after, c.region)).distance for c in cases]
    return [value for value in found if np.isfinite(value)]


if __name__ == "__main__":
    main()
