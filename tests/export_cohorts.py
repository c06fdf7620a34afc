"""Small cohorts for the export tests: real shards with three splits and a run of augmented rows made from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from augengine.export.run import Exported, export
from augengine.export.target import Target
from augengine.io.dataset import write_dataset
from augengine.io.shards import to_table
from augengine.io.store import Store
from augengine.pipeline.units import INLINE
from augengine.records import Acquisition, Provenance, Sample
from augengine.rng import digest
from augengine.selection import Request

OBLIQUE = np.eye(4)
OBLIQUE[:3, :3] = Rotation.from_rotvec([0.21, -0.13, 0.31]).as_matrix() * [0.8, 1.1, 3.3]
OBLIQUE[:3, 3] = (-61.7, 40.3, -23.9)
LABELS = {"necrosis": 1, "oedema": 2, "enhancing": 4}
SPLITS = ("train", "train", "train", "val", "test")
SCANNED = Acquisition("SIEMENS", "Skyra", 3.0, "PFP\\SFS", 10.0, 3.0, 2.5, 5.5)


def volume(subject: int, *, shape: Sequence[int] = (20, 16, 5), **changes: Any) -> Sample:
    """A head of two channels in air of exactly 0, with a lesion of three labels, on an oblique grid of unlike axes."""
    rng = np.random.default_rng([3, subject])
    at = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij"))
    head, away = (
        np.linalg.norm(at, axis=0) < 0.95,
        np.linalg.norm(at - np.reshape((0.2, -0.1, 0.0), (3, 1, 1, 1)), axis=0),
    )
    label = np.zeros(shape, np.uint8)
    for name, radius in {"oedema": 0.6, "enhancing": 0.4, "necrosis": 0.2}.items():
        label[away < radius] = LABELS[name]
    image = np.stack([100.0 + 40 * label + rng.integers(0, 20, shape), 300.0 - 30 * label + rng.integers(0, 20, shape)])
    values: dict[str, Any] = {
        "image": (image * head).astype(np.float32),
        "affine": OBLIQUE,
        "channels": ("t1", "flair"),
        "subject_id": f"S{subject:03d}",
        "volume_id": f"S{subject:03d}",
        "label": label * head,
        "labels": LABELS,
        "acquisition": SCANNED,
        "split": SPLITS[subject % len(SPLITS)],
    }
    return Sample(**{**values, **changes})


def slices(sample: Sample) -> list[Sample]:
    """A volume cut along its last axis."""
    found = []
    for k in range(sample.image.shape[-1]):
        affine = sample.affine.copy()
        affine[:3, 3] += k * affine[:3, 2]
        label = None if sample.label is None else np.ascontiguousarray(sample.label[..., k])
        image = np.ascontiguousarray(sample.image[..., k])
        found.append(sample.replace(image=image, label=label, affine=affine, slice_index=k))
    return found


def augmented(
    sample: Sample,
    replicate: int = 0,
    *,
    params: Mapping[str, Any] | None = None,
    donors: Sequence[str] = (),
    models: Mapping[str, str] | None = None,
    confidence: bool = False,
    **changes: Any,
) -> Sample:
    """A row as a policy would make it: other values everywhere, air included, and another echo time."""
    output_id = digest("test", sample.sample_id, replicate, length=24)
    plan = {
        "output_id": output_id,
        "sample_id": sample.sample_id,
        "replicate": replicate,
        "attempt": 0,
        "seed": replicate,
        "params": dict(params or {"echo_time_ms": 4.0}),
        "donors": list(donors),
    }
    provenance = Provenance(output_id, sample.sample_id, "recolour", "d" * 32, "acquisition", plan, dict(models or {}))
    made = sample.replace(
        image=(400.0 - sample.image).astype(np.float32),
        acquisition=sample.acquisition.replace(echo_time_ms=4.0),
        provenance=provenance,
    )
    if confidence:
        made = made.replace(label=made.label, label_confidence=np.where(made.label == 2, 50, 200).astype(np.uint8))
    return made.replace(**changes) if changes else made


def cohort(
    folder: Any, samples: Sequence[Sample], made: Sequence[Sample] = (), per_file: int = 4
) -> tuple[Store, Store]:
    """Real rows as `folder/data` and augmented ones as `folder/run`."""
    stores = []
    for name, kind, rows in (("data", "samples", samples), ("run", "accepted", made)):
        tables = [to_table(rows[n : n + per_file]) for n in range(0, len(rows), per_file)]
        stores.append(write_dataset(str(folder / name), tables, kind=kind))
    return stores[0], stores[1]


def slice_cohort(folder: Any) -> tuple[Store, Store]:
    """Five subjects of slices, and an augmented row of every training slice."""
    samples = [s for subject in range(5) for s in slices(volume(subject))]
    return cohort(folder, samples, [augmented(s) for s in samples if s.split == "train"])


def volume_cohort(folder: Any) -> tuple[Store, Store]:
    """Five subjects, and an augmented row of every one for training."""
    samples = [volume(subject) for subject in range(5)]
    return cohort(folder, samples, [augmented(s) for s in samples if s.split == "train"], per_file=2)


def exported(target: Target, stores: tuple[Store, Store], out: Any, **options: Any) -> Exported:
    """Write an export of a cohort in this process."""
    asked = {key: options.pop(key) for key in list(options) if key in Request.__dataclass_fields__}
    asked.setdefault("splits", ("train", "val", "test"))
    real, run = stores
    request = Request(real=(real,), augmented=(run,) if has_rows(run) else (), **asked)
    return export(target, request, Store(str(out)), actors=INLINE, **options)


def has_rows(store: Store) -> bool:
    """False for the run of a cohort without augmented rows."""
    return bool(store.names("accepted"))
