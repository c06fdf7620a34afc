"""Values of a mask as a file stores them go in; whole codes that the stated labels name, as uint8, come out."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from augengine.errors import DataError


def check_codes(
    mask: np.ndarray, labels: Mapping[str, int], slope: float = 1.0, inter: float = 0.0
) -> tuple[np.ndarray, list[str]]:
    """The mask as uint8, and notes.

    A value is the nearest code if it lies within half a stored step of it: an editor that loads a mask as floating
    point and saves it under its old integer header stores multiples of a slope, so that 4 reads as 4.0000002 and 1 as
    1.0039. Floats are rounded within a few steps of their own precision, of float32 at best. NaN is background.

    Args:
        mask: numbers as stored, any shape.
        slope, inter: value = slope * stored + inter.

    Raises:
        DataError: fractions (a map of probabilities, or an interpolated mask), infinities, or codes without a name.
    """
    if mask.dtype.kind == "b":
        mask = mask.view(np.uint8)
    if mask.dtype.kind not in "iuf":
        raise DataError("a mask holds numbers", found=str(mask.dtype))
    mask = mask.astype(mask.dtype.newbyteorder("="), copy=False)
    stored = np.unique(mask)
    empty = np.isnan(stored) if mask.dtype.kind == "f" else np.zeros(stored.shape, bool)
    values = np.where(empty, 0.0, slope * stored.astype(np.float64) + inter)
    codes = np.rint(np.where(np.isfinite(values), values, 0.0))
    # From a step of 1 on, a stored value no longer tells which of two codes was meant.
    step = abs(slope) if mask.dtype.kind in "iu" and abs(slope) < 1 else 0.0
    precision = np.finfo(np.float32 if mask.dtype.kind in "iu" else mask.dtype).eps
    rounding = 4 * max(float(precision), float(np.finfo(np.float32).eps))
    # A tiny surplus: the slope itself is a rounded float32.
    tolerance = step / 2 * 1.001 + rounding * np.maximum(1, np.abs(codes))
    fractions = ~(np.abs(values - codes) <= tolerance)
    if fractions.any():
        raise DataError(
            "a mask must hold whole codes",
            found=f"value(s) {[float(f'{v:.6g}') for v in values[fractions][:4]]}",
            next_step="threshold a map of probabilities, or resample the mask by nearest neighbour, first",
        )
    unknown = sorted({int(c) for c in codes} - {0, *labels.values()})
    if unknown:
        names = ", ".join(f"{n}={c}" for n, c in labels.items())
        raise DataError(
            f"mask codes must be those of the stated labels ({names})",
            found=f"code(s) {unknown[:8]}",
            next_step="state the right scheme with --labels",
        )
    notes = ["mask: NaN was taken as background"] if empty.any() else []
    if (values != codes).any():
        notes.append("mask: values off by rounding were taken as the nearest code")
    return _translated(mask, stored, codes.astype(np.uint8)), notes


def _translated(mask: np.ndarray, stored: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Every stored value replaced by its code; small integers look it up in a table."""
    if mask.dtype.kind in "iu" and mask.dtype.itemsize <= 2:
        unsigned = np.dtype(f"u{mask.dtype.itemsize}")
        table = np.zeros(np.iinfo(unsigned).max + 1, np.uint8)
        table[stored.view(unsigned)] = codes
        return np.asarray(table[mask.view(unsigned)])
    return np.asarray(codes[np.searchsorted(stored, mask)])
