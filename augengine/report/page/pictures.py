"""A row and its source in; lossless pictures of them for a page out, as many as fit its size.

A picture is a PNG whose red and green are the high and low byte of the intensity and whose blue is the label's code;
slices of a volume stand below each other. The page decodes them, so that window, level and difference are exact.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image

from augengine.errors import DataError
from augengine.gates.base import LESION
from augengine.records import Acquisition, Sample
from augengine.report.contact_sheet import most_changed, scan, upright
from augengine.report.page.rows import Pixels, RunRows, Seen

MOST_CHARACTERS = 48 * 2**20
"""Of all pictures of a page; the last row that would exceed them is left out, and all after it."""
MOST_VOXELS = 12_000_000
"""Of all pictures of a page, before they are packed; the rows share them, each has one slice at least."""
STEPS = 65535


def choose(rows: RunRows, most: int) -> list[Seen]:
    """Rows to show: two accepted ones for each rejected one, of as many subjects as there are, in the order of ids."""
    shown: list[Seen] = []
    accepted, rejected = (_by_subject([s for s in rows.kept if s.outcome == o]) for o in ("accepted", "rejected"))
    while len(shown) < most and (accepted or rejected):
        third = len(shown) % 3 == 2
        shown.append((rejected if (third and rejected) or not accepted else accepted).pop(0))
    return sorted(shown, key=lambda seen: (seen.outcome, seen.row_id))


def _by_subject(rows: Sequence[Seen]) -> list[Seen]:
    """First one row of each subject, then a second one of each, …"""
    times: dict[str, int] = {}
    turns = []
    for seen in rows:
        times[seen.subject_id] = turn = times.get(seen.subject_id, 0) + 1
        turns.append((turn, seen.row_id, seen))
    return [seen for *_, seen in sorted(turns, key=lambda turn: turn[:2])]


def pictures(
    rows: RunRows, name: str, chosen: Sequence[Seen], voxels: int, characters: int
) -> Iterator[dict[str, Any]]:
    """What the page shows of each chosen row, as plain JSON; ends before `characters` are exceeded.

    Args:
        name: of the run.
        voxels: of a row, at most, unless a single slice has more.
        characters: of all pictures together.

    Raises:
        DataError: a row whose source is not in the data.
    """
    edited, source = Pixels(rows.run.store), Pixels(rows.data)
    found: dict[str, dict[str, Any]] = {}
    # In the order of the files, so that a row group is read once.
    for seen in sorted(chosen, key=lambda s: (s.spot.name, s.spot.group, s.spot.at)):
        if seen.parent_id not in rows.sources:
            raise DataError(
                "the source row is not in this data",
                found=seen.parent_id,
                where=rows.data.uri,
                next_step="give the folder that it came from by --data",
            )
        shown = _row(name, rows, seen, source(rows.sources[seen.parent_id].spot), edited(seen.spot), voxels)
        characters -= sum(len(c["source"]) + len(c["edited"]) for c in shown["channels"])
        if characters < 0:
            break
        found[seen.row_id] = shown
    yield from (found[seen.row_id] for seen in chosen if seen.row_id in found)


def _row(name: str, rows: RunRows, seen: Seen, before: Sample, after: Sample, voxels: int) -> dict[str, Any]:
    if before.image.shape != after.image.shape:
        raise DataError(
            "an edited row has the shape of its source",
            found=f"{after.image.shape} and {before.image.shape}",
            where=seen.row_id,
        )
    slices, x, y = _slices(before, after, voxels)
    labels = [None if s.label is None else _stack(s.label[None], slices)[0] for s in (before, after)]
    low, high = zip(*(after.intensity_range or before.intensity_range or ((None, None),) * len(x)), strict=True)
    volumes = rows.sources[seen.parent_id].volumes_ml
    return {
        "run": name,
        "id": seen.row_id,
        "outcome": seen.outcome,
        "reason": seen.reason,
        "policy": seen.policy,
        "subject": seen.subject_id,
        "source": seen.parent_id,
        "split": after.split,
        "scans": [_scan(before.acquisition), _scan(after.acquisition)],
        "gates": [dict(g) for g in seen.gates],
        "labels": {**before.labels, **after.labels},
        "lesions": [name for name in {**before.labels, **after.labels} if name in LESION],
        "changed_most": most_changed(np.nan_to_num(y - x))[0],
        "labelled": [label is not None for label in labels],
        "volumes": [[n, volumes.get(n), seen.volumes_ml.get(n)] for n in {**volumes, **seen.volumes_ml}],
        "slices": slices,
        "size": list(x.shape[2:]),
        "channels": [
            {"name": channel, "range": [low[n], high[n]], **_encoded(x[n], y[n], *labels)}
            for n, channel in enumerate(before.channels)
        ],
    }


def _slices(before: Sample, after: Sample, voxels: int) -> tuple[list[int | None], np.ndarray, np.ndarray]:
    """Slices to show (of a slice, its own number), and both images as (C, S, rows, columns)."""
    if before.image.ndim == 3:
        return [before.slice_index], _stack(before.image, [None]), _stack(after.image, [None])
    count = before.image.shape[-1]
    room = max(1, voxels // (2 * before.image[..., 0].size))
    slices: list[int | None] = [*range(count)]
    if room < count:  # evenly spread, the slice that changed most among them
        change = np.nan_to_num(after.image - before.image).__abs__().sum(0, keepdims=True)
        most = most_changed(change)[1]
        spread = np.linspace(0, count - 1, room).round().astype(int)
        spread[np.abs(spread - most).argmin()] = most
        slices = spread.tolist()
    return slices, _stack(before.image, slices), _stack(after.image, slices)


def _stack(image: np.ndarray, slices: Sequence[int | None]) -> np.ndarray:
    """(C, I, J) or (C, I, J, K) as (C, S, rows, columns), as the contact sheet shows them."""
    planes = [image] if image.ndim == 3 else [image[..., k] for k in slices]
    return np.stack([np.stack([upright(channel) for channel in plane]) for plane in planes], axis=1)


def _encoded(x: np.ndarray, y: np.ndarray, x_label: np.ndarray | None, y_label: np.ndarray | None) -> dict[str, Any]:
    """One channel: both pictures, and the values of code 0 and of the last code."""
    finite = [image[np.isfinite(image)] for image in (x, y)]
    values = np.concatenate(finite)
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
    high = high if high > low else low + 1
    return {
        "low": low,
        "high": high,
        "source": _png(x, x_label, low, high),
        "edited": _png(y, y_label, low, high),
        "no_numbers": int(x.size + y.size - values.size),
    }


def _png(image: np.ndarray, label: np.ndarray | None, low: float, high: float) -> str:
    """(S, rows, columns) as base64 of a PNG; values that are no numbers count as the lowest."""
    share = (np.nan_to_num(image.astype(np.float64), nan=low, posinf=high, neginf=low) - low) / (high - low)
    codes = np.rint(share * STEPS).astype(np.uint16)
    blue = np.zeros(image.shape, np.uint8) if label is None else label
    colours = np.stack([codes >> 8, codes & 255, blue], axis=-1).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(colours.reshape(-1, image.shape[2], 3)).save(buffer, "png", compress_level=6)
    return base64.b64encode(buffer.getvalue()).decode()


def _scan(acquisition: Acquisition) -> str:
    return " ".join(scan(acquisition).split())
