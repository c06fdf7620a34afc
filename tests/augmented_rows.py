"""A small real data set, and runs of augmented rows made from it, for tests of what reads them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from builders import GE, SIEMENS, slice_sample, write_samples

from augengine.diffusion.checkpoint import save_model, subject_hash, untrained
from augengine.io.store import Store
from augengine.records import Provenance, Sample

SPLITS = {1: "train", 2: "train", 3: "train", 4: "train", 5: "val", 6: "test"}
SLICES = 4
CODES = {"fat": 2, "gland": 5, "cyst": 9}
NAMES = tuple(CODES)


def real_rows(**changes: Any) -> list[Sample]:
    """Six subjects of four slices; code 9 stands in the odd slices alone."""
    return [real_row(subject, n, **changes) for subject in SPLITS for n in range(SLICES)]


def real_row(subject: int, n: int, **changes: Any) -> Sample:
    """One slice: halves of codes 2 and 5, and in the odd slices a corner of code 9."""
    label = np.full((32, 32), 2, np.uint8)
    label[:, 16:] = 5
    label[:4] = 0
    if n % 2:
        label[10:13, 20:25] = 9
    values: dict[str, Any] = {"split": SPLITS[subject], "label": label, "labels": CODES}
    return slice_sample(subject, n, **{**values, **changes})


def made_row(
    subject: int,
    n: int,
    replicate: int = 0,
    *,
    policy: str = "removal",
    models: dict[str, str] | None = None,
    donors: Sequence[str] = (),
    **changes: Any,
) -> Sample:
    """An augmented row of a slice: its image is 7 brighter for each replicate, and its gate says 0.1 times that."""
    source = real_row(subject, n, **changes)
    provenance = Provenance(
        output_id=f"made-{policy}-{subject}-{n}-{replicate}",
        parent_id=source.sample_id,
        policy=policy,
        policy_digest=f"{policy}-digest",
        edit=policy,
        models=models or {},
        plan={"params": {}, "replicate": replicate, "donors": list(donors)},
        gates=[{"name": "locality", "value": 0.1 * replicate, "min": None, "max": None, "passed": True}],
    )
    acquisition = GE if source.acquisition == SIEMENS else SIEMENS
    image = source.image + 7 * (replicate + 1)
    return source.replace(provenance=provenance, acquisition=acquisition, image=image)


def made_rows(replicates: int = 3, subjects: Sequence[int] = (1, 2, 3, 4), **options: Any) -> list[Sample]:
    """So many augmented rows for each slice of the subjects."""
    return [made_row(s, n, r, **options) for s in subjects for n in range(SLICES) for r in range(replicates)]


def write_model(folder: Path, spec: Any, trained_on: Sequence[int]) -> Any:
    """A checkpoint that names its training subjects; returns its description."""
    spec = spec.model_copy(update={"subject_hashes": tuple(sorted(subject_hash(f"S{n:03d}") for n in trained_on))})
    return save_model(Store(str(folder)), spec, untrained(spec, len(trained_on)).network.state_dict())


def write_run(folder: Path, rows: list[Sample], checkpoint: str | None = None, sha256: str = "") -> str:
    """Rows as a run that names the checkpoint it took."""
    uri = write_samples(folder, rows)
    if checkpoint:
        Store(uri).write_json("inputs.json", {"models": {"generator": {"ref": checkpoint, "sha256": sha256}}})
    return uri
