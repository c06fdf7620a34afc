"""Training rows in; the same number of rows, each lesion pasted into another row of them, out.

Copy and paste with Poisson blending (Pérez et al. 2003) is the cheapest way to show lesions in new places, so a
generator has to beat it. A row without a lesion is repeated as it is: the share of rows with lesions stays.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from scipy.ndimage import binary_dilation

from augengine import __version__
from augengine.gates import body_mask
from augengine.intensity import denormalise, normalise
from augengine.masks import bounding_box
from augengine.records import Provenance, Sample
from augengine.report.classical_fills import poisson_paste
from augengine.rng import digest

TRIES = 60
MARGIN_VOXELS = 2
LEAST_IN_BODY = 0.95
NEAR_ROWS = 8
"""Recipients are drawn from so many rows of the most similar slice index."""
JITTER = 0.15
"""Largest way from the lesion's own place, relative to the body's extent; later tries go anywhere."""


def pasted(rows: Sequence[Sample], lesion: Sequence[str], copies: int, rng: np.random.Generator) -> Iterator[Sample]:
    """`copies` rows for each row: its lesion in a row without one, if there is one of the same shape and channels.

    Args:
        rows: labelled, of one domain's training subjects.
        lesion: labels that are pasted.
        rng: draws recipients and places.
    """
    healthy = [row for row in rows if not lesion_of(row, lesion).any()]
    for copy in range(copies):
        for row in rows:
            recipient, where = row, None
            if lesion_of(row, lesion).any():
                alike = [r for r in healthy if _alike(r, row)] or [r for r in rows if r is not row and _alike(r, row)]
                alike.sort(key=lambda r: abs((r.slice_index or 0) - (row.slice_index or 0)))
                recipient = alike[int(rng.integers(min(NEAR_ROWS, len(alike))))] if alike else row
                where = place(row, recipient, lesion, rng)
            made = recipient if where is None else paste_lesion(row, recipient, lesion, where)
            plan = {
                "params": {"lesion_of": row.sample_id, "shift_voxels": where},
                "donors": [row.subject_id],
                "replicate": copy,
            }
            output_id = digest("pasted", row.sample_id, recipient.sample_id, copy, length=24)
            yield made.replace(
                provenance=Provenance(
                    output_id=output_id,
                    parent_id=recipient.sample_id,
                    policy="pasted",
                    policy_digest=digest("pasted", 1),
                    edit="pasted",
                    plan=plan,
                    engine_version=__version__,
                )
            )


def lesion_of(row: Sample, lesion: Sequence[str]) -> np.ndarray:
    """bool (*): where a row has any of the labels; nowhere without a label map."""
    codes = [row.labels[name] for name in lesion if name in row.labels]
    return np.zeros(row.image.shape[1:], bool) if row.label is None else np.isin(row.label, codes)


def place(donor: Sample, recipient: Sample, lesion: Sequence[str], rng: np.random.Generator) -> list[int] | None:
    """A shift in voxels that brings the donor's lesion into the recipient's body, beside its lesion; None: nowhere.

    Bodies are laid upon each other by their centres, and the lesion is moved a little from there: anywhere in the frame
    would mostly be outside the organ. Only if it fits nowhere near is it tried anywhere.
    """
    mask = lesion_of(donor, lesion)
    body, taken = body_mask(recipient.image), lesion_of(recipient, lesion)
    box = bounding_box(mask, [0] * mask.ndim)
    shape, piece = np.array(mask.shape), mask[box]
    starts, most = np.array([part.start for part in box]), shape - np.array(piece.shape)
    if not body.any():
        return None
    centre, extent = _middle(body)
    home = starts + centre - _middle(body_mask(donor.image))[0]
    for attempt in range(TRIES):
        if attempt < TRIES // 2:
            corner = np.rint(home + rng.uniform(-JITTER, JITTER, len(home)) * extent).astype(int).clip(0, most)
        else:
            corner = rng.integers(0, most + 1)
        there = tuple(slice(c, c + side) for c, side in zip(corner, piece.shape, strict=True))
        if body[there][piece].mean() >= LEAST_IN_BODY and not taken[there][piece].any():
            return [int(step) for step in corner - starts]
    return None


def paste_lesion(donor: Sample, recipient: Sample, lesion: Sequence[str], shift_voxels: Sequence[int]) -> Sample:
    """The recipient with the donor's lesion, moved by whole voxels and blended by its gradients; labels by name."""
    mask = _moved(lesion_of(donor, lesion), shift_voxels)
    source = np.stack([_moved(channel, shift_voxels) for channel in normalise(donor)])
    near = bounding_box(mask, [MARGIN_VOXELS + 1] * mask.ndim)
    blend = np.zeros_like(mask)
    blend[bounding_box(mask, [MARGIN_VOXELS] * mask.ndim)] = True
    blend &= body_mask(recipient.image) & _moved(np.ones_like(mask), shift_voxels) & _grown(mask)
    image = normalise(recipient)
    image[(slice(None), *near)] = poisson_paste(image[(slice(None), *near)], blend[near], source[(slice(None), *near)])
    assert donor.label is not None  # it has a lesion
    label = np.zeros(mask.shape, np.uint8) if recipient.label is None else recipient.label.copy()
    codes = dict(recipient.labels)
    moved = _moved(donor.label, shift_voxels)
    for name in (name for name in lesion if name in donor.labels):
        code = codes.setdefault(name, max(codes.values(), default=0) + 1)
        label[(moved == donor.labels[name]) & mask] = code
    return recipient.replace(image=denormalise(np.asarray(image, np.float32), recipient), label=label, labels=codes)


def _alike(a: Sample, b: Sample) -> bool:
    return (a.image.shape, a.channels) == (b.image.shape, b.channels)


def _middle(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centre and extent in voxels of the box around a mask."""
    if not mask.any():
        return np.array(mask.shape) / 2, np.array(mask.shape)
    box = bounding_box(mask, [0] * mask.ndim)
    return (
        np.array([(part.start + part.stop) / 2 for part in box]),
        np.array([part.stop - part.start for part in box]),
    )


def _moved(array: np.ndarray, shift: Sequence[int]) -> np.ndarray:
    """An array (*) moved by whole voxels; what comes in from beyond the edge is 0."""
    out = np.zeros_like(array)
    pairs = [
        (slice(max(-s, 0), n - max(s, 0)), slice(max(s, 0), n + min(s, 0)))
        for s, n in zip(shift, array.shape, strict=True)
    ]
    out[tuple(to for _, to in pairs)] = array[tuple(start for start, _ in pairs)]
    return out


def _grown(mask: np.ndarray) -> np.ndarray:
    grown: np.ndarray = binary_dilation(mask, iterations=MARGIN_VOXELS)
    return grown
