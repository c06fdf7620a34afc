"""Augmented shards in; a PNG with source, edited image, (true counterfactual) and difference out."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from textwrap import wrap

import matplotlib
import numpy as np
from matplotlib.figure import Figure, SubFigure
from matplotlib.image import AxesImage

from augengine.errors import DataError
from augengine.gates.base import LESION, label_mask
from augengine.intensity import normalise
from augengine.io.shards import iter_samples
from augengine.io.store import Store
from augengine.records import Acquisition, Sample
from augengine.report.page.markup import visible

matplotlib.use("Agg")

PANEL_INCH, STRIP_INCH, FOOT_INCH, DPI = 3.1, 3.9, 0.9, 80
LETTERS = 48
"""Of the captions' letters so many stand under a panel."""
GREY = (-0.15, 1.15)

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

    Of each row the channel, and of a volume the slice, is shown that changed most. Lesions are outlined.
    """
    chosen = _one_per_subject(iter_samples(out, out_files), rows)
    if not chosen:
        raise DataError("no accepted row to show", where=out.uri)
    sources = _find(iter_samples(data, data_files), {s.provenance.parent_id for s in chosen if s.provenance})
    pairs = [(sources[after.provenance.parent_id], after) for after in chosen if after.provenance]
    buffer = io.BytesIO()
    drawn(pairs, truth).savefig(buffer, format="png")
    out.write("contact_sheet.png", buffer.getvalue())
    return out.path("contact_sheet.png")


def drawn(pairs: Sequence[tuple[Sample, Sample]], truth: Truth | None = None) -> Figure:
    """The sheet of rows, each with its source before it: a strip for each row, and the scales at the foot."""
    titles = ["source", "edited", *(["true counterfactual", "edited − truth"] if truth else []), "edited − source"]
    size = (PANEL_INCH * len(titles), STRIP_INCH * len(pairs) + FOOT_INCH)
    figure = Figure(size, DPI, layout="constrained")
    strips = figure.subfigures(len(pairs) + 1, 1, height_ratios=[STRIP_INCH] * len(pairs) + [FOOT_INCH], squeeze=False)
    shown: tuple[AxesImage, AxesImage] | None = None
    outlined: dict[str, None] = {}
    for strip, (before, after) in zip(strips[:, 0], pairs, strict=False):
        shown = _strip(strip, titles, before, after, truth)
        outlined |= dict.fromkeys(name for s in (before, after) for name in _lesions(s))
    assert shown is not None, "a sheet has rows"
    _foot(strips[-1, 0], *shown, list(outlined))
    return figure


def _strip(
    strip: SubFigure, titles: Sequence[str], before: Sample, after: Sample, truth: Truth | None
) -> tuple[AxesImage, AxesImage]:
    """One row's pictures; returns one in grey and one of a difference."""
    x, y = normalise(before), normalise(after)
    true = truth(after) if truth else None
    place = most_changed(y - x)
    panels = [x, y, *([true, y - true] if true is not None else []), y - x]
    others = f" (of {', '.join(before.channels)})" if len(before.channels) > 1 else ""
    lines = [f"row {after.sample_id}", f"of {before.sample_id}: channel {named_place(before, place)}{others}"]
    width = LETTERS * len(titles)
    strip.suptitle("\n".join(_short(line, width, 1) for line in lines), x=0.01, ha="left", fontsize=8, parse_math=False)
    images = []
    for n, (axis, title, panel) in enumerate(zip(strip.subplots(1, len(titles)), titles, panels, strict=True)):
        (low, high), colours = ((-1.0, 1.0), "RdBu_r") if "−" in title else (GREY, "gray")
        images.append(axis.imshow(upright(plane(panel, place)), cmap=colours, vmin=low, vmax=high))
        axis.set(xticks=[], yticks=[])
        axis.set_title(title, fontsize=9, weight="bold")
        of = before if n == 0 else after
        if _lesions(of) and (mask := plane(label_mask(of, LESION)[None], (0, *place[1:]))).any():
            colour = "black" if "−" in title else "magenta"
            axis.contour(upright(mask), levels=[0.5], colors=[colour], linewidths=1.0)
        if n < 2:
            said = _short(" ".join(scan(of.acquisition).split()), LETTERS, 2)
            axis.set_xlabel(said, fontsize=7, parse_math=False)
    return images[0], images[-1]


def _foot(strip: SubFigure, grey: AxesImage, difference: AxesImage, outlined: Sequence[str]) -> None:
    """The two scales, and which labels are outlined."""
    left, right = strip.subplots(1, 2)
    for axis, image, said in (
        (left, grey, "intensity; 0 and 1: the source volume's own range"),
        (right, difference, "difference, in that range"),
    ):
        strip.colorbar(image, cax=axis, orientation="horizontal")
        axis.tick_params(labelsize=7)
        axis.set_xlabel(said, fontsize=7)
    names = ", ".join(outlined)
    said = _short(f"outlined: {names}" if names else "no lesion label is outlined", 2 * LETTERS, 1)
    strip.suptitle(said, x=0.01, ha="left", fontsize=8, parse_math=False)


def _lesions(sample: Sample) -> list[str]:
    """Names of lesions that a row's label map may hold."""
    return [name for name in sample.labels if name in LESION] if sample.label is not None else []


def _short(text: str, letters: int, lines: int) -> str:
    """Text broken into lines of so many letters at most; what does not fit is left out, which a mark says."""
    return "\n".join(wrap(visible(text), letters, max_lines=lines, placeholder=" …"))


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
