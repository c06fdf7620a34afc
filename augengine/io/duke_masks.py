"""Duke's breast and tissue masks (.seg.nrrd or .nii.gz) go in; a label on the image's grid comes out.

In `.seg.nrrd` the meaning of values and layers is read from the header (`SegmentN_Name`, `_LabelValue`,
`_Layer`), since some files are swapped or layered; only where the header names nothing, the data set's
convention holds (breast=1; vessels=1, dense=2). Vessels are no fibroglandular tissue.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from augengine.errors import DataError
from augengine.geometry import resample_labels, same_grid, spacing_mm
from augengine.io.files import read_volume
from augengine.io.labels import SCHEMES, mask_to_label
from augengine.io.nrrd import read_nrrd

# Words in a segment's name, in the order in which they are tried.
WORDS = {"vessels": ("vessel", "blood"), "dense": ("dense", "fgt", "fibro", "gland"), "breast": ("breast",)}
MASK_SUFFIXES = (".nrrd", ".nii", ".nii.gz")
MASK_FOLDER = re.compile("mask|segmentation", re.IGNORECASE)
PATIENT_NAME = re.compile(r"Breast_MRI_\d{3}")


def mask_files(folder: Path, names: Iterable[str]) -> dict[str, list[Path]]:
    """The masks among files below a folder by the patient in their names, or in those of the folders above them."""
    found: dict[str, list[Path]] = defaultdict(list)
    for name in names:
        above, _, file = name.rpartition("/")
        patients = PATIENT_NAME.findall(file) or PATIENT_NAME.findall(above)
        if patients and file.lower().endswith(MASK_SUFFIXES):
            found[patients[-1]].append(folder / name)  # the link itself, where it is one: its target lies elsewhere
    return found


def breast_label(
    paths: Sequence[Path], shape: Sequence[int], affine: np.ndarray, max_loss: float = 1.0
) -> tuple[np.ndarray, list[str]]:
    """`{fat: 1, fibroglandular: 2}` on the image's grid: the breast without dense tissue is fat.

    Args:
        max_loss: share of a tissue's volume that resampling may lose.

    Raises:
        DataError: damaged or unexpected files, no breast or dense mask, no overlap with the image, or more loss.
    """
    whole = [p for p in paths if not p.name.lower().endswith(".nrrd")]
    if whole:
        if len(paths) > 1:
            raise DataError(
                "a patient has one NIfTI mask, or masks as NRRD",
                found=f"{len(whole)} NIfTI and {len(paths) - len(whole)} NRRD files",
            )
        data, mask_affine, _ = read_volume(whole[0])
        return mask_to_label(data, mask_affine, shape, affine, SCHEMES["duke"])
    tissues: dict[str, np.ndarray] = {}
    notes: list[str] = []
    for path in paths:
        found, mask_affine, remarks = segments(path)
        notes += remarks
        for name, mask in found.items():
            if name == "vessels":  # no label of ours
                continue
            if not same_grid(mask.shape, mask_affine, shape, affine):
                mask, remark = _resampled(name, mask, mask_affine, shape, affine, max_loss)
                notes.append(remark)
            tissues[name] = mask | tissues[name] if name in tissues else mask
    for name in ("breast", "dense"):
        if name not in tissues or not tissues[name].any():
            raise DataError(
                f"a {name} mask that overlaps the image is needed", found=", ".join(sorted(tissues)) or "none"
            )
    label = np.zeros(tuple(shape), np.uint8)
    label[tissues["breast"]] = SCHEMES["duke"]["fat"]
    label[tissues["dense"]] = SCHEMES["duke"]["fibroglandular"]
    return label, notes


def _resampled(
    name: str, mask: np.ndarray, mask_affine: np.ndarray, shape: Sequence[int], affine: np.ndarray, max_loss: float
) -> tuple[np.ndarray, str]:
    """A mask on the image's grid, and what became of its volume."""
    moved = resample_labels(mask.view(np.uint8), mask_affine, shape, affine).view(bool)
    before = float(mask.sum()) * float(np.prod(spacing_mm(mask_affine)))
    after = float(moved.sum()) * float(np.prod(spacing_mm(affine)))
    remark = f"{name} mask resampled into the image grid by nearest neighbour: {before:.0f} mm³ became {after:.0f}"
    lost = 1 - after / before if before else 0.0
    if lost > max_loss:
        raise DataError(
            f"a mask may lose at most {max_loss:.0%} of its volume by resampling",
            found=f"{lost:.0%} of the {name} mask lost: {remark}",
            next_step="check that the mask belongs to this image, or raise --max-label-loss",
        )
    return moved, remark


def segments(path: Path) -> tuple[dict[str, np.ndarray], np.ndarray, list[str]]:
    """Masks (bool, `(I, J, K)`) by tissue (breast, dense, vessels), their affine, notes.

    Several segments of one tissue, such as left and right, are one mask. Slicer before 4.11 states neither value nor
    layer: each segment is a layer of its own, and a single one may be a plain array.
    """
    data, affine, header = read_nrrd(path)
    layers = data[None] if data.ndim == 3 else data
    numbers = sorted({int(m.group(1)) for key in header if (m := re.match(r"Segment(\d+)_Name", str(key)))})
    if not numbers:
        if data.ndim == 4:
            raise DataError("a layered mask must name its segments", found=f"shape {data.shape}", where=str(path))
        return _by_convention(path, data), affine, ["mask values by the data set's convention: the file names none"]
    old = not any(f"Segment{n}_{key}" in header for n in numbers for key in ("LabelValue", "Layer"))
    if old and len(layers) != len(numbers):
        raise DataError(
            "segments without stated values must have a layer each",
            found=f"{len(numbers)} segments in {len(layers)} layers",
            where=str(path),
        )
    found: dict[str, np.ndarray] = {}
    for place, number in enumerate(numbers):
        tissue = _tissue(header, number, len(numbers), path)
        if old:
            mask = layers[place] != 0
        else:
            layer = _integer(header, f"Segment{number}_Layer", path) if f"Segment{number}_Layer" in header else 0
            if layer >= len(layers):
                raise DataError("a segment's layer must be in the file", found=layer, where=str(path))
            mask = layers[layer] == _integer(header, f"Segment{number}_LabelValue", path)
        found[tissue] = found[tissue] | mask if tissue in found else mask
    remarks = ["masks of several segments of one tissue joined"] if len(found) < len(numbers) else []
    return found, affine, remarks


def _tissue(header: dict[str, Any], number: int, count: int, path: Path) -> str:
    name = str(header[f"Segment{number}_Name"]).lower()
    for tissue, words in WORDS.items():
        if any(word in name for word in words):
            return tissue
    if count == 1 and _is_breast_file(path):
        return "breast"
    raise DataError("a segment's name must tell breast, dense tissue or vessels", found=name, where=str(path))


def _by_convention(path: Path, data: np.ndarray) -> dict[str, np.ndarray]:
    if _is_breast_file(path):
        return {"breast": data > 0}
    return {"vessels": data == 1, "dense": data == 2}


def _is_breast_file(path: Path) -> bool:
    return re.search(r"_Breast\.(seg\.)?nrrd$", path.name, re.IGNORECASE) is not None


def _integer(header: dict[str, Any], key: str, path: Path) -> int:
    try:
        return int(str(header[key]).strip())
    except (KeyError, ValueError):
        raise DataError(f"the mask's header must state {key} as a whole number", where=str(path)) from None
