"""An NRRD file goes in, an array, its RAS+ affine and its header come out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nrrd
import numpy as np

from augengine.errors import DataError
from augengine.geometry import check_affine

SUFFIXES = (".nrrd", ".nhdr")
# World axes of the file's space, as signs against RAS+.
SPACES = {
    "left-posterior-superior": (-1, -1, 1),
    "lps": (-1, -1, 1),
    "right-anterior-superior": (1, 1, 1),
    "ras": (1, 1, 1),
    "left-anterior-superior": (-1, 1, 1),
    "las": (-1, 1, 1),
}


def read_nrrd(path: Path) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """The array (`(I, J, K)`, or `(layers, I, J, K)` of a layered segmentation), affine and header.

    Raises:
        DataError: damaged file, unknown or missing space, or missing directions.
    """
    try:
        data, header = nrrd.read(str(path))
    except FileNotFoundError:
        raise DataError("this file is missing", where=str(path)) from None
    except Exception as error:  # pynrrd, zlib and numpy raise many unrelated classes for damaged files
        raise DataError("this NRRD file is damaged", found=type(error).__name__, where=str(path)) from None
    space = str(header.get("space", "")).lower()
    if space not in SPACES:
        raise DataError(
            f"the NRRD space must be one of {', '.join(s for s in SPACES if '-' in s)}", found=space or "none",
            where=str(path),
        )  # fmt: skip
    if "space directions" not in header or "space origin" not in header:
        raise DataError("an NRRD file must state space directions and origin", where=str(path))
    directions = np.array([row for row in np.asarray(header["space directions"], float) if np.isfinite(row).all()])
    if directions.shape != (3, 3) or data.ndim not in (3, 4):
        raise DataError("one file must hold one 3D volume", found=f"shape {data.shape}", where=str(path))
    affine = np.eye(4)
    affine[:3, :3] = directions.T
    affine[:3, 3] = header["space origin"]
    return data, check_affine(np.diag([*SPACES[space], 1.0]) @ affine, str(path)), header
