"""Duke's breast and tissue masks (.seg.nrrd or .nii.gz) go in; a label on the image's grid comes out.

In `.seg.nrrd` the meaning of values and layers is read from the header (`SegmentN_Name`, `_LabelValue`,
`_Layer`), since some files are swapped or layered; only where the header names nothing, the data set's
convention holds (breast=1; vessels=1, dense=2). Vessels are no fibroglandular tissue.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from augengine.errors import DataError
from augengine.geometry import resample_labels, same_grid
from augengine.io.files import read_volume
from augengine.io.labels import SCHEMES, mask_to_label
from augengine.io.nrrd import read_nrrd
from augengine.io.walk import visible_files

# Words in a segment's name, in the order in which they are tried.
WORDS = {"vessels": ("vessel", "blood"), "dense": ("dense", "fgt", "fibro", "gland"), "breast": ("breast",)}


def mask_files(folders: Sequence[Path]) -> dict[str, list[Path]]:
    """Mask files below some folders by the patient in their names."""
    found: dict[str, list[Path]] = defaultdict(list)
    suffixes = (".nrrd", ".nii", ".nii.gz")
    for path in [folder / p for folder in folders for p in visible_files(folder, suffixes=suffixes)]:
        match = re.search(r"Breast_MRI_\d{3}", path.name) or re.search(r"Breast_MRI_\d{3}", path.parent.name)
        if match:
            found[match.group()].append(path.resolve())
    return found


def breast_label(paths: Sequence[Path], shape: Sequence[int], affine: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """`{fat: 1, fibroglandular: 2}` on the image's grid: the breast without dense tissue is fat.

    Raises:
        DataError: damaged or unexpected files, no breast or dense mask, or no overlap with the image.
    """
    whole = [p for p in paths if not p.name.lower().endswith(".nrrd")]
    if whole:
        if len(whole) > 1:
            raise DataError("a patient has one NIfTI mask", found=f"{len(whole)} files")
        data, mask_affine, _ = read_volume(whole[0])
        return mask_to_label(data, mask_affine, shape, affine, SCHEMES["duke"])
    tissues: dict[str, np.ndarray] = {}
    notes: list[str] = []
    for path in paths:
        found, mask_affine, remarks = segments(path)
        notes += remarks
        for name, mask in found.items():
            if not same_grid(mask.shape, mask_affine, shape, affine):
                mask = resample_labels(mask, mask_affine, shape, affine)
                notes.append(f"{name} mask resampled into the image grid by nearest neighbour")
            tissues[name] = tissues.get(name, np.zeros(tuple(shape), bool)) | mask.astype(bool)
    for name in ("breast", "dense"):
        if name not in tissues or not tissues[name].any():
            raise DataError(
                f"a {name} mask that overlaps the image is needed", found=", ".join(sorted(tissues)) or "none"
            )
    codes = SCHEMES["duke"]
    label = np.where(tissues["breast"], codes["fat"], 0)
    return np.where(tissues["dense"], codes["fibroglandular"], label).astype(np.uint8), notes


def segments(path: Path) -> tuple[dict[str, np.ndarray], np.ndarray, list[str]]:
    """Masks `(I, J, K)` by tissue (breast, dense, vessels), their affine, notes."""
    data, affine, header = read_nrrd(path)
    layers = data[None] if data.ndim == 3 else data
    numbers = sorted({int(m.group(1)) for key in header if (m := re.match(r"Segment(\d+)_Name", str(key)))})
    if not numbers:
        if data.ndim == 4:
            raise DataError("a layered mask must name its segments", found=f"shape {data.shape}", where=str(path))
        return _by_convention(path, data), affine, ["mask values by the data set's convention: the file names none"]
    found: dict[str, np.ndarray] = {}
    for number in numbers:
        tissue = _tissue(header, number, len(numbers), path)
        value, layer = _integer(header, f"Segment{number}_LabelValue", path), 0
        if f"Segment{number}_Layer" in header:
            layer = _integer(header, f"Segment{number}_Layer", path)
        if layer >= len(layers):
            raise DataError("a segment's layer must be in the file", found=layer, where=str(path))
        found[tissue] = (layers[layer] == value).astype(np.uint8)
    return found, affine, []


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
        return {"breast": (data > 0).astype(np.uint8)}
    return {"vessels": (data == 1).astype(np.uint8), "dense": (data == 2).astype(np.uint8)}


def _is_breast_file(path: Path) -> bool:
    return re.search(r"_Breast\.(seg\.)?nrrd$", path.name, re.IGNORECASE) is not None


def _integer(header: dict[str, Any], key: str, path: Path) -> int:
    try:
        return int(str(header[key]).strip())
    except (KeyError, ValueError):
        raise DataError(f"the mask's header must state {key} as a whole number", where=str(path)) from None
