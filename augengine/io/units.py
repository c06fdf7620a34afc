"""Voxel sizes in mm go in; those that no scan has are refused, with the unit that was likely meant."""

from __future__ import annotations

import numpy as np

from augengine.errors import DataError

LIMITS_MM = (0.01, 100.0)


def check_spacing(sizes_mm: np.ndarray, unit: str, field: str, where: str | None) -> None:
    """Refuse a voxel size that speaks of another unit.

    Args:
        sizes_mm: voxel sizes after the stated unit was turned into mm.
        unit: as the header states it.
        field: of the header, that is to be mended.
        where: the file; None where others name it.

    Raises:
        DataError: a size below 0.01 mm or above 100 mm.
    """
    if sizes_mm.min() >= LIMITS_MM[0] and sizes_mm.max() <= LIMITS_MM[1]:
        return
    likely = "metres" if sizes_mm.max() < LIMITS_MM[0] else "micrometres" if sizes_mm.min() > 1 else "another unit"
    if unit in ("micron", "meter"):
        likely = "mm"
    raise DataError(
        f"voxels must measure {LIMITS_MM[0]:g} to {LIMITS_MM[1]:g} mm",
        found=", ".join(f"{s:g} mm" for s in sizes_mm),
        where=where,
        next_step=f"the header (unit: {unit}) likely means {likely}: mend {field}",
    )
