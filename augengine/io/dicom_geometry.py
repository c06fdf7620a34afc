"""Positions of slices go in; their order and the straight, even line that they lie on come out.

Scanners round positions to one or two decimals, and some are a little off: a line is fitted through all of them, and
each slice may be off by what the stated decimals explain, or by a tenth of the distance between slices. A gap is no
rounding, and is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from augengine.errors import DataError
from augengine.io.dicom_frames import Frame

SAME_POSITION_MM = 0.01
EVEN = 0.1  # share of the distance between slices
MOST_ROUNDING = 0.25  # of that distance: beyond it, rounding hides which slice is which


@dataclass(frozen=True, eq=False)
class Line:
    """Slices on a line, LPS mm.

    Attributes:
        origin: of the first slice.
        step: from slice to slice.
        off_mm: how far the slice that fits worst is from its place.
        rounding_mm: of the stated positions.
    """

    origin: np.ndarray
    step: np.ndarray
    off_mm: float
    rounding_mm: float

    @property
    def step_mm(self) -> float:
        """Distance between slices."""
        return float(np.linalg.norm(self.step))


def normal(frame: Frame) -> np.ndarray:
    """Unit vector across the slice, LPS."""
    orientation = np.array(frame.orientation)
    return np.asarray(np.cross(orientation[:3], orientation[3:]))


def depths(frames: Sequence[Frame]) -> np.ndarray:
    """Positions along the normal of the first frame, mm."""
    return np.asarray(np.array([f.position for f in frames]) @ normal(frames[0]))


def rounding_mm(frames: Sequence[Frame]) -> float:
    """By how much the rounding of stated positions can move a slice against the next one, along the normal, mm."""
    digits = np.array([f.decimals for f in frames]).max(axis=0)
    return float(np.abs(normal(frames[0])) @ 10.0**-digits)


def same_position_mm(frames: Sequence[Frame]) -> float:
    """Slices that are closer than this lie at one position: far less than a slice is thick."""
    thickness = frames[0].acquisition.slice_thickness_mm or 0.0
    return max(SAME_POSITION_MM, 0.02 * thickness)


def fit_line(frames: Sequence[Frame]) -> Line:
    """The line through slices at different positions, sorted along the normal.

    Raises:
        DataError: fewer than two slices, a gap (with the positions beside it), uneven spacing, or a bend.
    """
    if len(frames) < 2:
        raise DataError("a volume needs at least two slices", found=f"{len(frames)} position")
    positions, depth = np.array([f.position for f in frames]), depths(frames)
    gaps = np.diff(depth)
    usual = float(np.median(gaps))
    if usual < SAME_POSITION_MM:
        raise DataError("a volume must hold one image per position", found=f"several at {depth[0]:.2f} mm")
    rounding = rounding_mm(frames)
    tolerance = max(EVEN * usual, min(1.01 * rounding, MOST_ROUNDING * usual), SAME_POSITION_MM)
    for n in np.flatnonzero(gaps > 1.5 * usual).tolist():
        raise _uneven(gaps[n], depth[n], depth[n + 1], usual)
    line = _through(positions, rounding, np.arange(len(frames)))
    off = _off(positions, line)
    if off.max() > 1e-6 * usual:
        near = off <= max(0.5 * tolerance, rounding, 2 * float(np.median(off)))
        if near.sum() >= 2 and not near.all():  # a few that are off must not bend the line of the others
            line = _through(positions, rounding, np.flatnonzero(near))
    along = (positions - line.origin) @ normal(frames[0]) - np.arange(len(frames)) * (line.step @ normal(frames[0]))
    step = float(line.step @ normal(frames[0]))
    worst = int(np.abs(gaps - step).argmax())
    if np.abs(along).max() > tolerance or abs(gaps[worst] - step) > tolerance:
        raise _uneven(gaps[worst], depth[worst], depth[worst + 1], step)
    off = _off(positions, line)
    if off.max() > max(EVEN * usual, 0.1, rounding):
        raise DataError("slices must lie in one line", found=f"{off.max():.2f} mm off")
    return Line(line.origin, line.step, float(off.max()), rounding)


def is_line(frames: Sequence[Frame]) -> bool:
    """True if slices in any order make a volume."""
    try:
        fit_line([frames[n] for n in np.argsort(depths(frames), kind="stable").tolist()])
    except DataError:
        return False
    return True


def _uneven(gap: float, before: float, after: float, usual: float) -> DataError:
    missing = round(gap / usual) - 1
    guess = f" (about {missing} missing)" if missing > 0 else ""
    return DataError(
        "slices must be evenly spaced",
        found=f"{gap:.2f} mm between {before:.2f} and {after:.2f} mm instead of {usual:.2f}{guess}",
        next_step="find the missing files of this series",
    )


def _through(positions: np.ndarray, rounding: float, which: np.ndarray) -> Line:
    """Least squares over some of the slices; exact where they lie on a line exactly."""
    count = len(positions)
    step = (positions[-1] - positions[0]) / (count - 1)
    line = Line(positions[0], step, 0.0, rounding)
    if len(which) == count and _off(positions, line).max() <= 1e-6 * line.step_mm:
        return line
    terms = np.stack([np.ones(len(which)), which], axis=1)
    (origin, step), *_ = np.linalg.lstsq(terms, positions[which], rcond=None)
    return Line(origin, step, 0.0, rounding)


def _off(positions: np.ndarray, line: Line) -> np.ndarray:
    """Largest component of the distance of each slice from its place, mm."""
    places = line.origin + np.arange(len(positions))[:, None] * line.step
    return np.asarray(np.abs(positions - places).max(axis=1))
