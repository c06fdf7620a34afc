"""What a sidecar of dcm2niix says of a Philips image in; the factor to display values, and a note, out.

Philips stores whole numbers with two slopes: display values are stored · RescaleSlope + RescaleIntercept, as DICOM
(PS3.3, C.11.1) and every reader of it have them; floating-point values are those divided by RescaleSlope and the
private scale slope (2005,100E), which differ from scan to scan. dcm2niix 1.0.20260724 writes floating-point values
where the private tag is there and display values where anonymisation took it away (`-p n`: display values always). Here
all are display values: they are what is left without the tag.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from augengine.errors import DataError

FLAG = "UsePhilipsFloatNotDisplayScaling"
_SLOPES = ("PhilipsRescaleSlope", "PhilipsScaleSlope")


def display_factor(values: Mapping[str, Any]) -> tuple[float, str | None]:
    """What voxels are multiplied by to be display values, and what was done; 1 where they are.

    Raises:
        DataError: floating-point values whose slopes are not stated.
    """
    if not values.get(FLAG):
        known = FLAG in values or "philips" not in str(values.get("Manufacturer", "")).lower()
        return 1.0, None if known else (
            "Philips: no sidecar says whether these are display or floating-point values; scans may differ by a factor"
        )
    factor = 1.0
    for name in _SLOPES:
        slope = values.get(name)
        if isinstance(slope, bool) or not isinstance(slope, int | float) or not slope > 0:
            raise DataError(
                f"Philips' floating-point values ({FLAG}) become display values by {' and '.join(_SLOPES)}",
                found=f"{name} {slope!r}",
                next_step="convert anew with dcm2niix -p n, which writes display values",
            )
        factor *= slope
    return factor, f"Philips: floating-point values times {factor:.6g} are display values, as DICOM's are"


def own_sidecar(image: Path) -> Path | None:
    """The JSON file of an image's name beside it, if it says how Philips' values are scaled."""
    name = image.name
    ending = next((end for end in (".nii.gz", ".nii") if name.lower().endswith(end)), None)
    if ending is None:
        return None
    path = image.with_name(name[: -len(ending)] + ".json")
    try:
        return path if FLAG.encode() in path.read_bytes() else None
    except OSError:
        return None


def read_sidecar(path: Path) -> dict[str, Any]:
    """Its values. Raises DataError for a file that is no mapping."""
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise DataError("a JSON sidecar must hold a mapping of names to values", next_step="mend or remove the file")
    return values
