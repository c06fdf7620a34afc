"""Flat slices of patients with and without a lesion, real and augmented, told apart by their one value."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from training_cases import samples_of, write_rows

from augengine.records import Provenance, Sample

ILL, HEALTHY, MADE = 10, 20, 30
"""Real rows with and without a lesion, numbered from 0 on; augmented rows, all with one, from 100 on."""


def row(number: int, *, ill: bool, augmented: bool = False) -> Sample:
    """A flat slice whose normalised value is its number."""
    sample = samples_of()[0]
    made = Provenance(f"made-{number}", f"S{number}", "policy", "0", "edit", {}) if augmented else None
    label = np.full((16, 16), sample.labels["core"] if ill else 0, np.uint8)
    return sample.replace(
        image=np.full((1, 16, 16), number, np.float32),
        subject_id=f"S{number}",
        volume_id=f"S{number}",
        slice_index=0,
        split="train",
        provenance=made,
        label=label,
    )


def write_balanced(folder: Path) -> list[str]:
    """Folders of the real and of the augmented rows."""
    real = [row(n, ill=n < ILL) for n in range(ILL + HEALTHY)]
    made = [row(100 + n, ill=True, augmented=True) for n in range(MADE)]
    return [write_rows(folder / "real", real), write_rows(folder / "made", made)]
