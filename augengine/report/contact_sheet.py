"""Augmented shards in; a PNG with source, counterfactual, (true counterfactual) and difference out."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from augengine.errors import DataError
from augengine.intensity import normalise
from augengine.io.shards import iter_samples
from augengine.io.store import Store
from augengine.records import Acquisition, Sample

matplotlib.use("Agg")

Truth = Callable[[Sample], np.ndarray]
"""An edited sample to its true counterfactual, normalised, of the image's shape."""


def contact_sheet(
    data: Store,
    data_files: Sequence[str],
    out: Store,
    out_files: Sequence[str],
    *,
    truth: Truth | None = None,
    rows: int = 6,
) -> str:
    """Write `contact_sheet.png` into `out` and return its path; one output row per subject.

    Of each row the channel, and of a volume the slice, is shown that changed most.
    """
    chosen = _one_per_subject(iter_samples(out, out_files), rows)
    if not chosen:
        raise DataError("no accepted row to show", where=out.uri)
    sources = _find(iter_samples(data, data_files), {s.provenance.parent_id for s in chosen if s.provenance})
    titles = ["source", "counterfactual"]
    titles += ["true counterfactual", "counterfactual − truth"] if truth else []
    titles += ["counterfactual − source"]
    figure = Figure(figsize=(3.1 * len(titles), 3.5 * len(chosen)), layout="constrained")
    grid = figure.subplots(len(chosen), len(titles), squeeze=False)
    for axes, after in zip(grid, chosen, strict=True):
        assert after.provenance is not None
        before = sources[after.provenance.parent_id]
        x, y = normalise(before), normalise(after)
        true = truth(after) if truth else None
        place = most_changed(y - x)
        panels = [x, y, *([true, y - true] if true is not None else []), y - x]
        captions = [
            scan(before.acquisition),
            scan(after.acquisition),
            f"{before.sample_id}\n{named_place(before, place)}",
            "",
            "",
        ]
        for axis, title, panel, caption in zip(axes, titles, panels, captions, strict=False):
            difference = "−" in title
            low, high = (-1.0, 1.0) if difference else (-0.15, 1.15)
            colours = "RdBu_r" if difference else "gray"
            axis.imshow(upright(plane(panel, place)), cmap=colours, vmin=low, vmax=high, interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            axis.set_xlabel(caption, fontsize=7)
    for axis, title in zip(grid[0], titles, strict=True):
        axis.set_title(title, fontsize=11, weight="bold")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=80)
    out.write("contact_sheet.png", buffer.getvalue())
    return out.path("contact_sheet.png")


def most_changed(difference: np.ndarray) -> tuple[int, ...]:
    """Channel and, of a volume, slice along the last axis where (C, I, J) or (C, I, J, K) is farthest from 0."""
    total = np.abs(difference).sum(axis=(1, 2), dtype=np.float64)
    return tuple(int(n) for n in np.unravel_index(np.argmax(total), total.shape))


def plane(image: np.ndarray, place: tuple[int, ...]) -> np.ndarray:
    """The picture (I, J) at a place that `most_changed` gives."""
    return np.asarray(image[place[0]] if len(place) == 1 else image[place[0], :, :, place[1]])


def named_place(sample: Sample, place: tuple[int, ...]) -> str:
    """Channel and slice in words."""
    slices = f", slice {place[1]}" if len(place) > 1 else ""
    return f"{sample.channels[place[0]]}{slices}"


def _find(samples: Iterator[Sample], wanted: set[str]) -> dict[str, Sample]:
    found: dict[str, Sample] = {}
    for sample in samples:
        if sample.sample_id in wanted:
            found[sample.sample_id] = sample
            if len(found) == len(wanted):
                break
    return found


def upright(image: np.ndarray) -> np.ndarray:
    """A canonical slice `(R, A)` as rows from anterior to posterior and columns in radiological order."""
    return image.T[::-1, ::-1]


def scan(acquisition: Acquisition) -> str:
    """An acquisition in two short lines."""
    a = acquisition
    numbers = (("TR", a.repetition_time_ms), ("TE", a.echo_time_ms), ("FA", a.flip_angle_deg))
    field = f"{a.field_strength_t:g} T" if a.field_strength_t else None
    first = " ".join(v for v in (a.manufacturer, a.model, field) if v)
    return f"{first}\n{' '.join(f'{n} {v:.4g}' for n, v in numbers if v is not None)} {a.scan_options or ''}"


def _one_per_subject(samples: Iterator[Sample], rows: int) -> list[Sample]:
    found: dict[str, Sample] = {}
    seen: dict[str, int] = {}
    for sample in samples:
        n = seen[sample.subject_id] = seen.get(sample.subject_id, 0) + 1
        # The third slice of a subject shows more than its first, which is often at the rim.
        if n == 1 or n == 3:
            found[sample.subject_id] = sample
        if len(found) > rows and n > 3:
            break
    return list(found.values())[:rows]
