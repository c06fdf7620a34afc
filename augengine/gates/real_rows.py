"""Real rows in, pairs of them that a sound gate accepts out: what calibration measures instead of an edit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_dilation, gaussian_filter

from augengine import masks
from augengine.acquisition_terms import alike
from augengine.body import body_mask
from augengine.gates.base import LESION, Case, RealPair, label_mask, label_of
from augengine.intensity import denormalise, normalise
from augengine.io.dataset import dataset_files
from augengine.io.shards import check_schema, from_row, read_group, read_metadata
from augengine.io.store import Place, Store
from augengine.policy.spec import Select
from augengine.records import Acquisition, Sample
from augengine.rng import generator

BORDER_MM = 3.0


@dataclass(frozen=True)
class RealRow:
    """A real row, the next slice of its volume (None at the end), and a row of another subject and acquisition."""

    row: Sample
    following: Sample | None
    stranger: Sample | None

    def case(self, comparison: RealPair, lesion: Sequence[str] = LESION) -> Case | None:
        """The pair that a gate with this `comparison` must accept; None if the row has none.

        - itself: the row unchanged, for gates that compare a row's label with its own image.
        - recoloured: the row under the intensity part of classical augmentation, which keeps the anatomy.
        - neighbour: the next slice, for gates that compare two label maps: as alike as two anatomies can be.
        - stranger: a row that truly has another acquisition, for gates that look for the acquisition.
        - mirrored: the row itself, its lesion declared to have been on the other side: healthy tissue to the gate.
        - elsewhere: the row itself, its lesion declared to have been where neither that place nor its mirror image
          shows any, for gates that compare the two sides.
        - unseen: the row itself if it is not of the training split, for gates that compare with that.
        - held_out: the same, its lesion and its border declared to be what was painted.
        """
        row = self.row
        if comparison == "recoloured":
            return Case(row, recoloured(row)) if row.intensity_range else None
        if comparison == "neighbour":
            return Case(row, self.following) if self.following is not None else None
        if comparison == "stranger":
            return Case(row, self.stranger) if self.stranger is not None else None
        if comparison == "mirrored":
            return mirrored(row, lesion)
        if comparison == "elsewhere":
            return elsewhere(row, lesion)
        if comparison in ("unseen", "held_out") and row.split == "train":
            return None
        return held_out(row, lesion) if comparison == "held_out" else Case(row, row)


def recoloured(row: Sample) -> Sample:
    """Gamma, contrast, brightness, noise and blur as nnU-Net draws them (Isensee et al. 2021); background stays."""
    rng = generator("recoloured", row.sample_id)
    x = normalise(row)
    low, high = float(x.min()), float(x.max())
    unit = (x - low) / max(high - low, 1e-6)
    y = unit ** rng.uniform(0.7, 1.5) * rng.uniform(0.75, 1.25) * (high - low) + low
    if rng.random() < 0.3:
        y = np.stack([gaussian_filter(channel, rng.uniform(0.3, 0.7)) for channel in y])
    y = y + rng.normal(0, rng.uniform(0.0, 0.02), y.shape) * (x > low)
    return row.replace(image=denormalise(y.astype(np.float32), row))


def mirrored(row: Sample, lesion: Sequence[str]) -> Case | None:
    """The lesion's mirror image along the first axis, where no lesion is, as the place of a perfect removal."""
    if row.label is None:
        return None
    mask = label_mask(row, lesion)
    return _as_if_removed(row, lesion, mask, mask[::-1] & ~mask)


def elsewhere(row: Sample, lesion: Sequence[str]) -> Case | None:
    """The lesion's shape moved to where neither it nor its mirror image meets the lesion or leaves the body."""
    axis = masks.left_right_axis(row.affine, row.image.ndim - 1)
    if row.label is None or axis is None or not (mask := label_mask(row, lesion)).any():
        return None
    along = next(n for n in range(mask.ndim) if n != axis)
    body, taken = body_mask(row.image), binary_dilation(mask, iterations=2)
    for shift in sorted(range(-mask.shape[along] // 2, mask.shape[along] // 2), key=abs):
        place = np.roll(mask, shift, along)
        both = place | masks.mirror_image(place, row.image, axis)
        if not (both & taken).any() and body[both].all():
            return _as_if_removed(row, lesion, mask, place)
    return None


def held_out(row: Sample, lesion: Sequence[str] = LESION) -> Case | None:
    """A row whose region is its own lesion, and as much around it as edits of lesions change; None without a lesion."""
    if row.label is None or not (mask := label_mask(row, lesion)).any():
        return None
    return Case(row, row, masks.dilate(mask, BORDER_MM, row.spacing_mm[: mask.ndim]))


def _as_if_removed(row: Sample, lesion: Sequence[str], mask: np.ndarray, place: np.ndarray) -> Case | None:
    """The row with its lesion (`mask`) at `place` before, and nowhere after; the image stays."""
    if not place.any():
        return None
    codes = [code for name, code in row.labels.items() if name in lesion]
    healthy = np.where(mask, 0, label_of(row)).astype(np.uint8)
    before = row.replace(label=np.where(place, codes[0], healthy).astype(np.uint8))
    return Case(before, row.replace(label=healthy))


def read_real_rows(uri: Place, select: Select, rows: int) -> list[RealRow]:
    """`rows` real rows that a policy selects, evenly spread over the data; only their row groups are read."""
    store = Store.at(uri)
    places = list(_places(store, select))
    chosen = {places[n * len(places) // rows] for n in range(rows)} if len(places) > rows else set(places)
    found: list[tuple[Sample, Sample | None]] = []
    for name, group in sorted({place[:2] for place in chosen}):
        table = read_group(store.parquet(name), group)
        for index in sorted(i for n, g, i in chosen if (n, g) == (name, group)):
            row, following = (from_row(r) for r in table.slice(index, 2).to_pylist()), None
            first = next(row)
            following = next(row, None)
            found.append((first, following if _follows(first, following) else None))
    return [RealRow(row, following, _stranger(n, found)) for n, (row, following) in enumerate(found)]


def _places(store: Store, select: Select) -> Iterator[tuple[str, int, int]]:
    for name in dataset_files(store):
        file = store.parquet(name)
        check_schema(file, store.path(name))
        for group in range(file.num_row_groups):
            for index, row in enumerate(read_metadata(file, group)):
                kind = (row["split"], Acquisition(**row["acquisition"]), row["labelled"])
                if not row["synthetic"] and select.takes(*kind):
                    yield name, group, index


def _follows(row: Sample, other: Sample | None) -> bool:
    return (
        other is not None
        and other.volume_id == row.volume_id
        and row.slice_index is not None
        and other.slice_index == row.slice_index + 1
    )


def _stranger(n: int, rows: Sequence[tuple[Sample, Sample | None]]) -> Sample | None:
    row = rows[n][0]
    for other, _ in (*rows[n + 1 :], *rows[:n]):
        if other.subject_id != row.subject_id and not alike(other.acquisition, row.acquisition):
            return other
    return None
