"""What every gate must keep, whichever it is: a number, always the same, of rows left alone, that a defect can move."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from augengine.contracts.base import Checks, must, own_code, without_global_randomness
from augengine.gates.base import Case, Gate, Tools, label_mask
from augengine.gates.defects import DEFECTS
from augengine.records import Sample


@dataclass(frozen=True)
class GateCase:
    """A gate with its options, opened, and the rows that it judges."""

    gate: Gate
    tools: Tools
    samples: Sequence[Sample]

    @cached_property
    def pairs(self) -> dict[str, Case]:
        """Each row as its own edit, brighter, with its lesion healed, moved or in the air, and with every defect."""
        found: dict[str, Case] = {}
        for n, sample in enumerate(self.samples):
            rng = np.random.Generator(np.random.Philox(n))
            region = _box(sample.label) if sample.label is not None and sample.label.any() else None
            same = {f"{n} itself": Case(sample, sample), f"{n} itself, in a region": Case(sample, sample, region)}
            found |= same
            for times in (1.2, 9):
                brighter = sample.replace(image=sample.image * np.float32(times))
                found |= {f"{n} {times} times brighter, {r is None}": Case(sample, brighter, r) for r in (None, region)}
            for name, defect in DEFECTS.items():
                for case in same.values():
                    if (planted := defect(case, rng)) is not None:
                        found[f"{n} {name}, {case.region is None}"] = planted
            found |= {f"{n} {name}": case for name, case in _lesions(sample).items()}
        return found

    @cached_property
    def values(self) -> dict[str, float]:
        """What the gate says of every pair; of one that it cannot measure, no number."""
        found = {}
        for name, case in self.pairs.items():
            try:
                found[name] = float(self.gate.value(case, self.tools))
            except Exception:  # a row that cannot be measured fails its gate, whatever the error is
                found[name] = math.nan
        return found


def measures(case: GateCase) -> None:
    """It is a finite number for some pair: a gate that never measures rejects every row."""
    if not any(math.isfinite(value) for value in case.values.values()):
        with own_code("the gate's value of a row beside itself"):
            case.gate.value(next(iter(case.pairs.values())), case.tools)
        must(
            False,
            "a gate gives a finite number for some of the rows that it is checked on",
            found=case.values,
            mend="measure, or check it on rows of yours by --rows",
        )


def can_fail(case: GateCase) -> None:
    """Some pair moves its value: a gate whose value is always the same can reject nothing."""
    found = {repr(value) for value in case.values.values()}
    must(
        len(found) > 1,
        "a gate's value depends on the row: some defect or change must move it",
        found=f"{found.pop()} for all of {len(case.values)} pairs, defects among them",
        mend="measure the image or label after the edit",
    )


def repeats(case: GateCase) -> None:
    """The same pair has the same value, and nothing is drawn from shared generators."""
    with without_global_randomness():
        again = GateCase(case.gate, case.tools, case.samples).values
    moved = [name for name, value in case.values.items() if repr(value) != repr(again[name])]
    must(
        not moved,
        "the same row has the same value each time",
        found=moved[:1],
        mend="draw nothing at random, and keep nothing between rows",
    )


def leaves_rows(case: GateCase) -> None:
    """It changes neither of the rows that it compares."""
    for name, pair in case.pairs.items():
        before = _arrays(pair)
        with suppress(Exception):  # as in `values`
            case.gate.value(pair, case.tools)
        must(
            _arrays(pair) == before,
            "a gate leaves the rows that it compares as they are",
            found=name,
            mend="copy arrays before changing them",
        )


CHECKS: Checks[GateCase] = {
    "it leaves the rows as they are": leaves_rows,
    "it measures some of the rows": measures,
    "the same row has the same value": repeats,
    "some defect moves its value": can_fail,
}


def _box(label: np.ndarray) -> np.ndarray:
    """bool (*): the first half of the smallest box around all that is labelled."""
    box, (first, *others) = np.zeros(label.shape, bool), np.nonzero(label)
    half = slice(first.min(), (first.min() + first.max()) // 2 + 1)
    box[(half, *(slice(places.min(), places.max() + 1) for places in others))] = True
    return box


def _lesions(sample: Sample) -> dict[str, Case]:
    """The lesion painted over by its host's median, or moved, in image and label; or its label sent into the air."""
    if sample.label is None or not (old := label_mask(sample, ("necrosis", "enhancing", "oedema", "lesion"))).any():
        return {}
    host = sample.labels.get("white_matter", 0)
    tissue = np.median(sample.image[:, sample.label == host], axis=1) if (sample.label == host).any() else 0
    image, label = sample.image.copy(), sample.label.copy()
    image[:, old] = np.reshape(tissue, (-1, 1))
    label[old] = host
    healed = sample.replace(image=image, label=label)
    moved_image, moved_label, new = image.copy(), label.copy(), np.flip(old, 0)
    moved_image[:, new] = np.flip(sample.image, 1)[:, new]
    moved_label[new] = np.flip(sample.label, 0)[new]
    moved = sample.replace(image=moved_image, label=moved_label)
    away = np.roll(np.where(old, sample.label, 0), np.array(old.shape) // 2, tuple(range(old.ndim)))
    in_air = healed.replace(label=np.where(away > 0, away, label).astype(np.uint8))
    return {
        "healed": Case(sample, healed, old),
        "moved": Case(sample, moved, old | new),
        "in air": Case(sample, in_air),
    }


def _arrays(case: Case) -> list[bytes]:
    pictures = [case.before.image, case.after.image, case.before.label, case.after.label]
    return [array.tobytes() for array in pictures if array is not None]
