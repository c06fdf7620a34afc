"""A run's accepted rows in; how far each is from the nearest training row, beside rows held out of training, out."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass

import numpy as np

from augengine.gates.copied import edited_region
from augengine.gates.real_rows import held_out
from augengine.gates.training_images import TrainingImages
from augengine.io.dataset import dataset_files
from augengine.io.shards import iter_samples
from augengine.records import Sample
from augengine.report.page.charts import scatter
from augengine.report.page.markup import Markup, element, join, table
from augengine.report.page.rows import Pixels, RunRows
from augengine.rng import derive

CLOSEST = 5
LOCAL = 0.5
"""An edit that changes a larger share of the frame is one of the whole image."""
LOW = 0.05
"""Share of the held-out rows that the told bound leaves below it."""


@dataclass(frozen=True)
class Audited:
    """A row, the voxels of the region that was compared, and the training row that is most like it there."""

    row_id: str
    voxels: int
    distance: float
    neighbour: str
    subject: str


@dataclass(frozen=True)
class CopyAudit:
    """What was found of a run; rows that cannot be compared are counted.

    Attributes:
        training: number of training rows.
        accepted: accepted rows, in what their edit changed.
        held_out: real rows of other splits, in their own lesions.
        too_small: rows of either kind whose region is too small or too flat to compare.
    """

    training: int
    accepted: tuple[Audited, ...]
    held_out: tuple[Audited, ...]
    too_small: int


def audit_copies(rows: RunRows, most: int) -> CopyAudit:
    """Compare at most so many accepted rows, and as many held-out ones, with the training rows of the run's data.

    Both are drawn by their ids. See `augengine.gates.copied.CopyDistance` for the distance.

    Raises:
        DataError: no training rows, or rows of several shapes.
    """
    training = TrainingImages.read(rows.data)
    edited, source = Pixels(rows.run.store), Pixels(rows.data)
    chosen = sorted((s for s in rows.kept if s.outcome == "accepted"), key=lambda s: derive(s.row_id))[:most]
    accepted, real = [], []
    for seen in sorted(chosen, key=lambda s: (s.spot.name, s.spot.group, s.spot.at)):
        if seen.parent_id in rows.sources:
            after = edited(seen.spot)
            before = source(rows.sources[seen.parent_id].spot)
            changed = (before.image != after.image).any(axis=0)
            # Of an edit of the whole image the body counts, as in the gate: air is nobody's.
            region = edited_region(before, after, None if changed.mean() > LOCAL else changed)
            accepted.append(_audited(training, after, region))
    drawn: list[tuple[int, str, Sample, np.ndarray]] = []
    for row in iter_samples(rows.data, dataset_files(rows.data)):
        case = held_out(row) if row.split not in (None, "train") else None
        if case is not None and case.region is not None:
            heapq.heappush(drawn, (-derive(row.sample_id), row.sample_id, row, case.region))
            if len(drawn) > most:
                heapq.heappop(drawn)
    real = [_audited(training, row, region) for _, _, row, region in sorted(drawn, key=lambda one: one[:2])]
    kept = [tuple(one for one in found if not math.isnan(one.distance)) for found in (accepted, real)]
    small = len(accepted) + len(real) - len(kept[0]) - len(kept[1])
    return CopyAudit(len(training.ids), kept[0], kept[1], small)


def _audited(training: TrainingImages, row: Sample, region: np.ndarray) -> Audited:
    found = training.nearest(row, region)
    neighbour = ("", "") if found.index < 0 else (training.ids[found.index], training.subjects[found.index])
    return Audited(row.sample_id, int(np.count_nonzero(region)), found.distance, *neighbour)


def copies(audit: CopyAudit | None) -> Markup:
    """The part of the page; what to ask for where nothing was compared."""
    title = element("h3", "Copy audit")
    if audit is None:
        return join(
            title, element("p", "Not audited: --audit-rows 50 compares rows with training rows.", class_="note")
        )
    if not audit.accepted:
        return join(title, element("p", "No accepted row could be compared with the training rows."))
    distances = [one.distance for one in audit.accepted]
    told = (
        f"{len(distances)} accepted rows, in what their edit changed, beside {audit.training} training rows of other "
        f"subjects: the closest is at {min(distances):.3f}, half at {np.median(distances):.3f} or less "
        "(0: a copy, 1: nothing alike)."
    )
    if audit.held_out:
        real = [one.distance for one in audit.held_out]
        bound = float(np.quantile(real, LOW))
        below = sum(d < bound for d in distances)
        told += (
            f" Of {len(real)} rows held out of training, in their lesions, the closest is at {min(real):.3f} and "
            f"{LOW:.0%} are closer than {bound:.3f}; so are {below} of the accepted rows."
        )
    else:
        told += " There is no held-out row with a lesion to say what is usual."
    told += f" {audit.too_small} rows were too small or flat to compare." if audit.too_small else ""
    points = [
        (math.log10(one.voxels), one.distance, group)
        for group, of in enumerate((audit.accepted, audit.held_out))
        for one in of
    ]
    key = element(
        "p", element("span", "accepted", class_="key group-0"), element("span", "held out", class_="key group-1")
    )
    chart = scatter("distance over size", points, "voxels of the region, power of ten", "distance")
    caption = element("figcaption", "Small regions resemble somebody's by chance: compare rows of one size.")
    closest: list[list[object]] = [
        [one.row_id, round(one.distance, 3), one.voxels, one.neighbour, one.subject]
        for one in sorted(audit.accepted, key=lambda one: (one.distance, one.row_id))[:CLOSEST]
    ]
    columns = ["closest rows", "distance", "voxels", "training row", "subject"]
    figure = element("div", element("figure", caption, chart), class_="figures")
    return join(title, element("p", told), key, figure, table(columns, closest))
