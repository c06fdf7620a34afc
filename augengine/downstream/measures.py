"""Stored predictions and stored truths in, one value per patient, class and metric out."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from augengine.downstream.protocols import BACKGROUND, Protocol
from augengine.errors import DataError
from augengine.io.store import Place, Store
from augengine.masks import components
from augengine.metrics.lesionwise import RULES, lesion_wise, together
from augengine.metrics.overlap import dice
from augengine.metrics.surface import hd95_of_stacks_mm

SCORES = "scores"
SCORE_SCHEMA = pa.schema(
    [("subject_id", pa.string()), ("metric", pa.string()), ("class", pa.string()), ("score", pa.float64())]
)
LESION_RULE = RULES["GLI"]
# How surfaces are measured; part of what a stored score is known by, so that no table mixes two ways.
SURFACES = "open ends"


class MeasureWorker:
    """Measures the predictions of one segmenter on one chunk of subjects."""

    def __init__(self, out: Place, protocol: Protocol) -> None:
        self.out, self.protocol = Store.at(out), protocol

    def __call__(self, spec: dict[str, Any]) -> dict[str, pa.Table]:
        """Rows of `SCORE_SCHEMA`; a class that a patient does not have, or the segmenter not predict, is not scored."""
        found, truth = (self.out.parquet(spec[name]).read().to_pylist() for name in ("predictions", "truth"))
        by_id = {row["sample_id"]: row for row in found}
        classes = found[0].get("classes") if found else None  # older predictions are of all classes
        patients: dict[str, list[dict[tuple[str, str], float]]] = {}
        for subject, predicted, true, spacing_mm, stacks in _volumes(by_id, truth):
            prediction = largest_parts(predicted, stacks) if self.protocol.largest_component else predicted
            patients.setdefault(subject, []).append(
                scores(prediction, true, spacing_mm, self.protocol, stacks, classes)
            )
        rows = [
            {"subject_id": subject, "metric": metric, "class": name, "score": float(np.mean(values))}
            for subject, volumes in patients.items()
            for metric, name in volumes[0]
            if (values := [v for scored in volumes if not np.isnan(v := scored[metric, name])])
        ]
        return {SCORES: pa.Table.from_pylist(rows, schema=SCORE_SCHEMA)}


def _volumes(
    found: Mapping[str, Mapping[str, Any]], truth: list[dict[str, Any]]
) -> Iterator[tuple[str, np.ndarray, np.ndarray, tuple[float, ...], tuple[slice, ...]]]:
    """Subject, predicted and true class map (I, J, K), spacing and stacks of each volume; its slices stand in order."""
    volumes: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in truth:
        if row["sample_id"] not in found:
            raise DataError(
                "every true class map has a prediction",
                found="none",
                where=row["sample_id"],
                next_step="delete the folder `predictions` and run the same command again",
            )
        volumes.setdefault((row["subject_id"], row["volume_id"]), []).append(row)
    for (subject, _), rows in sorted(volumes.items()):
        rows.sort(key=lambda row: row["slice_index"] or 0)
        pair = (np.stack([_map(r) for r in some], -1) for some in ([found[r["sample_id"]] for r in rows], rows))
        prediction, true = (volume[..., 0] if volume.ndim == 4 else volume for volume in pair)
        yield subject, prediction, true, tuple(rows[0]["spacing_mm"]), _stacks([row["slice_index"] for row in rows])


def largest_parts(prediction: np.ndarray, stacks: Sequence[slice] = (slice(None),)) -> np.ndarray:
    """A class map (I, J, K) of uint8 bits with the largest connected part of each class alone, diagonals included.

    Parts of two `stacks`, runs of K whose slices lie beside each other, are not connected; of equal ones the first
    counts.
    """
    out = np.zeros_like(prediction)
    for n in range(8):
        parts = [(stack, components(prediction[..., stack] >> n & 1 == 1) == 1) for stack in stacks]
        stack, largest = max(parts, key=lambda part: np.count_nonzero(part[1]))
        out[..., stack] |= largest.astype(np.uint8) << n
    return out


def _stacks(indices: Sequence[int | None]) -> tuple[slice, ...]:
    """The parts of a volume whose slices lie beside each other; untested slices part it.

    >>> _stacks([3, 4, 5, 9])
    (slice(0, 3, None), slice(3, 4, None))
    """
    if indices[0] is None:
        return (slice(None),)
    cuts = [n for n in range(1, len(indices)) if indices[n] != (indices[n - 1] or 0) + 1]
    return tuple(slice(start, stop) for start, stop in pairwise([0, *cuts, len(indices)]))


def _map(row: Mapping[str, Any]) -> np.ndarray:
    return np.frombuffer(row["map"], np.uint8).reshape(row["map_shape"])


def scores(
    prediction: np.ndarray,
    truth: np.ndarray,
    spacing_mm: tuple[float, ...],
    protocol: Protocol,
    stacks: Sequence[slice] = (slice(None),),
    predicted: Collection[str] | None = None,
) -> dict[tuple[str, str], float]:
    """Every metric of a protocol for every class, of class maps (I, J, K) as uint8 bits.

    `accuracy` is the share of a class's voxels that were found, as in paper 004's Table 3, and knows the background.
    Dice, HD95 and accuracy of a class that is not in the truth are NaN whatever was predicted, so that every arm is
    scored on the same patients; HD95 of one that was not found is the diagonal of the field of view.

    So is every metric of a class that is not among `predicted` (None: all are), and of the background with it.

    Surfaces and lesions know what lies beside what: `stacks` are the runs of K whose slices do, each with open ends
    (`augengine.metrics.surface`); a run of one slice has contours in its plane, and lesions end where a run does.
    """
    out: dict[tuple[str, str], float] = {}
    masks = {name: (prediction >> n & 1 == 1, truth >> n & 1 == 1) for n, name in enumerate(protocol.classes)}
    with_background = {BACKGROUND: (prediction == 0, truth == 0), **masks} if protocol.exclusive else masks
    diagonal_mm = float(np.linalg.norm(np.multiply(truth.shape, spacing_mm)))
    for metric in protocol.metrics:
        for name, (a, b) in (with_background if metric == "accuracy" else masks).items():
            known = predicted is None or set(masks if name == BACKGROUND else [name]) <= set(predicted)
            if not known or (metric in ("dice", "hd95_mm", "accuracy") and not b.any()):
                out[metric, name] = np.nan
            elif metric == "accuracy":
                out[metric, name] = float(a[b].mean())
            elif metric == "dice":
                out[metric, name] = dice(a, b)
            elif metric == "hd95_mm":
                pairs = [(a[..., stack], b[..., stack]) for stack in stacks]
                out[metric, name] = min(hd95_of_stacks_mm(pairs, spacing_mm), diagonal_mm)
            else:
                wise = together([lesion_wise(a[..., k], b[..., k], spacing_mm, LESION_RULE) for k in stacks])
                values = {"lesion_dice": wise.dice, "lesion_hd95_mm": wise.hd95_mm}
                out[metric, name] = values.get(metric, float(wise.false_positives))
    return out
