"""A row of a shard in, as plain values; what no row can state, in words, out.

A row that another tool wrote, or that was damaged before it was stored, holds anything that its columns' types allow.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from augengine.errors import DataError
from augengine.records import ACQUISITION_NUMERIC, LONGEST_MM, incredible

SPACING_MM = (1e-3, 1e3)
KINDS = ("<u1", "|u1", "<u2", "<i2", "<u4", "<i4", "<f2", "<f4", "<f8", "|i1", "uint16", "int16", "float32", "uint8")
_NEVER_NULL = (
    "sample_id",
    "subject_id",
    "volume_id",
    "synthetic",
    "channels",
    "image_dtype",
    "image_shape",
    "affine",
    "spacing_mm",
    "acquisition",
    "intensity_rule",
    "label_names",
    "label_codes",
)


def row_problem(row: Mapping[str, Any]) -> str | None:
    """The rule that a row breaks and what was found; None if it breaks none. Only columns that it has are looked at."""
    for name in _NEVER_NULL:
        if name in row and row[name] is None:
            return f"{name} must be stated; found none"
    for name in ("sample_id", "subject_id"):
        if row.get(name) == "":
            return f"{name} must be stated; found an empty text"
    for needed, look in _RULES:
        if all(name in row for name in needed) and (problem := look(row)) is not None:
            return problem
    return None


def check_row(row: Mapping[str, Any]) -> None:
    """Raises DataError for a row that breaks a rule, with its id."""
    if (problem := row_problem(row)) is not None:
        rule, _, found = problem.partition("; found ")
        raise DataError(rule, found=found or None, where=str(row.get("sample_id")))


def _acquisition(row: Mapping[str, Any]) -> str | None:
    for name in ACQUISITION_NUMERIC:
        if incredible(name, value := row["acquisition"].get(name)):
            return f"{name} must be a number that a scanner can have; found {value:g}"
    return None


def _geometry(row: Mapping[str, Any]) -> str | None:
    affine = np.array(row["affine"], np.float64).reshape(4, 4)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    low, high = SPACING_MM
    if not np.isfinite(affine).all() or not ((spacing >= low) & (spacing <= high)).all():
        return f"voxels must measure {low:g} to {high:g} mm; found {', '.join(f'{v:g}' for v in spacing)} mm"
    return None


def _labels(row: Mapping[str, Any]) -> str | None:
    names, codes = row["label_names"], row["label_codes"]
    if len(names) != len(codes) or None in names or None in codes:
        return f"every label must have a code; found {len(names)} names and {len(codes)} codes"
    if len(set(names)) != len(names) or len(set(codes)) != len(codes) or 0 in codes:
        return f"labels must have different names and codes of 1 to 255; found {dict(zip(names, codes, strict=True))}"
    return None


def _shape(row: Mapping[str, Any]) -> str | None:
    shape, channels = row["image_shape"], row["channels"]
    if len(shape) not in (3, 4) or None in shape or min(shape) < 1 or math.prod(shape) >= 2**34:
        return f"image_shape must be (channels, I, J) or (channels, I, J, K); found {shape}"
    if len(channels) != shape[0] or None in channels:
        return f"channels must name every channel; found {channels} for {shape[0]}"
    return None


def _ranges(row: Mapping[str, Any]) -> str | None:
    low, high = row["intensity_low"], row["intensity_high"]
    if low is None and high is None:
        return None
    pairs = list(zip(low or (), high or (), strict=False))
    if len(low or ()) != len(high or ()) or len(pairs) != len(row["channels"]):
        return f"intensity ranges must be one for each channel; found {low} and {high}"
    if any(a is None or b is None or not math.isfinite(a) or not math.isfinite(b) or a > b for a, b in pairs):
        return f"an intensity range must be two rising numbers; found {low} and {high}"
    return None


def _slab(row: Mapping[str, Any]) -> str | None:
    found = row["slab_end_mm"]
    if found is None or 0 <= found <= LONGEST_MM:
        return None
    return f"slab_end_mm must be 0 to {LONGEST_MM:g}; found {found:g}"


def _kind(row: Mapping[str, Any]) -> str | None:
    return None if row["image_dtype"] in KINDS else f"image_dtype must be a number's; found {row['image_dtype']!r}"


_RULES: Sequence[tuple[Sequence[str], Callable[[Mapping[str, Any]], str | None]]] = (
    (("acquisition",), _acquisition),
    (("affine",), _geometry),
    (("label_names", "label_codes"), _labels),
    (("image_shape", "channels"), _shape),
    (("intensity_low", "intensity_high", "channels"), _ranges),
    (("image_dtype",), _kind),
    (("slab_end_mm",), _slab),
)


class SeenIds:
    """Ids of rows, of which none may stand twice: their hashes, eight bytes each, which no other process knows."""

    def __init__(self) -> None:
        self._hashes = array("q")

    @property
    def count(self) -> int:
        """Rows whose id was taken note of."""
        return len(self._hashes)

    def add(self, sample_ids: Iterable[str | None]) -> None:
        """Take note of some."""
        self._hashes.extend(map(hash, sample_ids))

    def check(self, where: str) -> None:
        """Raises DataError where an id was seen twice."""
        hashes = np.frombuffer(self._hashes, np.int64) if self._hashes else np.empty(0, np.int64)
        twice = len(hashes) - len(np.unique(hashes))
        if twice:
            raise DataError(
                "a sample id may stand once in a data set",
                found=f"{twice} rows with an id that another one has",
                where=where,
                next_step="give each row an id of its own",
            )
