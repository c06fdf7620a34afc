"""Phantom brain subjects in, folders in the layout of BraTS 2021 or 2023 out, as gzipped NIfTI."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Literal

import nibabel as nib
import numpy as np

from augengine.phantom.brain_cohort import BrainCohort
from augengine.records import Sample

Year = Literal[2021, 2023]
# Channel of the sample to suffix of the file; and the code of each label, by year.
SUFFIXES: dict[int, dict[str, str]] = {
    2021: {"t1": "_t1", "t1c": "_t1ce", "t2": "_t2", "flair": "_flair", "seg": "_seg"},
    2023: {"t1": "-t1n", "t1c": "-t1c", "t2": "-t2w", "flair": "-t2f", "seg": "-seg"},
}
CODES: dict[int, dict[str, int]] = {
    2021: {"necrosis": 1, "oedema": 2, "enhancing": 4},
    2023: {"necrosis": 1, "oedema": 2, "enhancing": 3},
}
SYNTHSEG = {"csf": 24, "grey_matter": 3, "white_matter": 2}
"""A code of SynthSeg for each tissue."""


def case_name(index: int, year: Year) -> str:
    """`BraTS2021_00000` or `BraTS-GLI-00000-000`."""
    return f"BraTS2021_{index:05d}" if year == 2021 else f"BraTS-GLI-{index:05d}-000"


def write_brats_subject(cohort: BrainCohort, index: int, folder: Path, year: Year = 2021) -> None:
    """Write the four channels and the mask of one subject. Subjects are independent.

    Of a cohort that labels tissues they stand in a file of their own, `…synthseg.nii.gz`, as SynthSeg would have named
    them; under the tumour it says white matter.
    """
    sample, name = cohort.scan(index), case_name(index, year)
    (folder / name).mkdir(parents=True, exist_ok=True)
    suffixes = SUFFIXES[year]
    for channel, image in zip(sample.channels, sample.image, strict=True):
        _save(folder / name / f"{name}{suffixes[channel]}.nii.gz", image.astype(np.int16), sample.affine)
    _save(folder / name / f"{name}{suffixes['seg']}.nii.gz", recoded(sample, CODES[year]), sample.affine)
    if cohort.labels == "tissue":
        tissue = recoded(sample, {**SYNTHSEG, **dict.fromkeys(CODES[year], SYNTHSEG["white_matter"])})
        _save(folder / name / f"{name}{suffixes['seg'][0]}synthseg.nii.gz", tissue, sample.affine)


def recoded(sample: Sample, codes: dict[str, int]) -> np.ndarray:
    """The sample's label uint8 (I, J, K) in other codes, by name; 0 where `codes` does not know one."""
    label = sample.label if sample.label is not None else np.zeros(sample.image.shape[1:], np.uint8)
    out = np.zeros_like(label)
    for name, code in sample.labels.items():
        out[label == code] = codes.get(name, 0)
    return out


def _save(path: Path, array: np.ndarray, affine: np.ndarray) -> None:
    """LPS storage as BraTS has it (first two axes reversed); no time stamp, so equal content gives equal bytes."""
    flipped = affine @ np.diag([-1.0, -1.0, 1.0, 1.0])
    flipped[:3, 3] = (affine @ [array.shape[0] - 1, array.shape[1] - 1, 0, 1])[:3]
    image = nib.Nifti1Image(np.ascontiguousarray(array[::-1, ::-1]), flipped)
    image.set_qform(flipped, code=1)
    image.set_sform(flipped, code=1)
    path.write_bytes(gzip.compress(image.to_bytes(), 4, mtime=0))
