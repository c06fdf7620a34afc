"""One row before and after its edit in; a PNG of source, edited row and difference, one line per channel, out."""

from __future__ import annotations

import io

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from augengine.intensity import normalise
from augengine.records import Sample
from augengine.report.contact_sheet import most_changed, scan, upright

TITLES = ("source", "edited", "edited − source")


def before_after(before: Sample, after: Sample) -> bytes:
    """Draw a row beside its source, label outlines included; a volume shows its most changed slice.

    Returns:
        The PNG file.
    """
    x, y = normalise(before), normalise(after.replace(intensity_range=before.intensity_range))
    difference = y - x
    cut: tuple[int | slice, ...] = (slice(None), slice(None))
    if x.ndim == 4:
        cut = (*cut, most_changed(np.abs(difference).sum(0, keepdims=True))[1])
    labels = [None if s.label is None else s.label[cut] for s in (before, after)]
    figure = Figure(figsize=(9.6, 3.4 * len(x)), layout="constrained")
    grid = figure.subplots(len(x), 3, squeeze=False)
    for axes, name, *images in zip(grid, before.channels, x, y, difference, strict=True):
        for axis, image in zip(axes, images, strict=True):
            _show(axis, image[cut], signed=image is images[2])
        for axis, label in zip(axes, labels, strict=False):
            _outline(axis, label)
        axes[0].set_ylabel(name, fontsize=9)
    for axis, title in zip(grid[0], TITLES, strict=True):
        axis.set_title(title, fontsize=11, weight="bold")
    shown = f", slice {cut[2]}" if x.ndim == 4 else ""
    for axis, sample in zip(grid[-1], (before, after), strict=False):
        axis.set_xlabel(f"{sample.sample_id}{shown}\n{scan(sample.acquisition)}", fontsize=7)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=80)
    return buffer.getvalue()


def _show(axis: Axes, image: np.ndarray, signed: bool) -> None:
    colours, low, high = ("RdBu_r", -1.0, 1.0) if signed else ("gray", -0.15, 1.15)
    axis.imshow(upright(image), cmap=colours, vmin=low, vmax=high, interpolation="nearest")
    axis.set(xticks=[], yticks=[])


def _outline(axis: Axes, label: np.ndarray | None) -> None:
    if label is None:
        return
    for code in np.unique(label[label > 0]):
        axis.contour(upright(label == code), levels=[0.5], colors=[f"C{int(code) % 10}"], linewidths=0.7)
