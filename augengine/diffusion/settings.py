"""How a scan was made in; what its signal depends on, as numbers that a learner can interpolate, out.

A repetition time or a flip angle that training never held then lies between those that it did hold: what it does to a
tissue depends on the tissue's T1 alone, and which voxel is which tissue is for the learner to find.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from augengine.acquisition_terms import same
from augengine.diffusion.conditions import Vocabulary
from augengine.phantom.physics import fat_phasor, spoiled_gradient_echo
from augengine.records import Acquisition

# Fat, glandular tissue and white matter, muscle and grey matter, fluid at 1.5 to 3 T, ms.
T1_MS = (380.0, 950.0, 1350.0, 3000.0)
_TR_MS, _TE_MS, _FLIP_DEG, _FIELD_T = 20.0, 4.0, 15.0, 3.0
_HABITS = ("manufacturer", "echo_time_ms", "field_strength_t", "scan_options")
_NUMBERS = 9
_CHANGES = len(T1_MS) + 1
# How far apart two settings are in one parameter, relative to a factor of e in the repetition time.
_APART = {"manufacturer": 4.0, "scan_options": 4.0, "field_strength_t": 2.0, "model": 0.5}


def width(vocabulary: Vocabulary) -> int:
    """Length of `condition`."""
    described = _NUMBERS + vocabulary.widths["manufacturer"] + vocabulary.widths["scan_options"]
    return 2 * described + _CHANGES


def condition(source: Acquisition, target: Acquisition, vocabulary: Vocabulary) -> np.ndarray:
    """float32 (`width`,): how the source and the target were made, and how the signal of four T1 changes between them.

    The scanner's model is not among them: a scanner that training never held could not be served. Of vendor, echo time,
    field and options only what changes is: what both have says nothing but which scanner it is, and one with other
    habits could not be served either. What an acquisition does not state is 0, with a flag.
    """
    alike = [name for name in _HABITS if same(name, getattr(source, name), getattr(target, name))]
    source, target = (a.replace(**dict.fromkeys(alike)) for a in (source, target))
    parts = [_described(source, vocabulary), _described(target, vocabulary), _changes(source, target)]
    return np.concatenate(parts).astype(np.float32)


def same_vendor(a: Acquisition, b: Acquisition) -> bool:
    """True if both state one manufacturer, or neither does."""
    return same("manufacturer", a.manufacturer, b.manufacturer)


def distance(a: Acquisition, b: Acquisition) -> float:
    """How differently two scans were made; 0 where they say the same, below 1 for neighbours of one vendor."""
    total = sum(apart for name, apart in _APART.items() if not same(name, getattr(a, name), getattr(b, name)))
    for name in ("repetition_time_ms", "flip_angle_deg", "echo_time_ms"):
        x, y = getattr(a, name), getattr(b, name)
        total += abs(math.log(x / y)) if x and y else float(bool(x) != bool(y))
    return total


def _described(acquisition: Acquisition, vocabulary: Vocabulary) -> list[float]:
    tr, te, flip = acquisition.repetition_time_ms, acquisition.echo_time_ms, acquisition.flip_angle_deg
    field = acquisition.field_strength_t
    phase = fat_phasor(te, field) if te and field else 0j
    numbers = [
        float(bool(tr)),
        math.log(tr / _TR_MS) if tr else 0.0,
        float(bool(te)),
        (te or 0.0) / _TE_MS,
        float(bool(flip)),
        math.log(flip / _FLIP_DEG) if flip else 0.0,
        (field or 0.0) / _FIELD_T,
        phase.real,
        phase.imag,
    ]
    encoded = vocabulary.encode([acquisition]).features[0]
    widths, start = vocabulary.widths, 0
    for name, wide in widths.items():
        if name in ("manufacturer", "scan_options"):
            numbers += encoded[start : start + wide].tolist()
        start += wide
    return numbers


def _changes(source: Acquisition, target: Acquisition) -> Sequence[float]:
    """Logarithm of the signal's ratio for every T1, without their mean, which is a gain; 0 where one is not known."""
    both = [(a.repetition_time_ms, a.flip_angle_deg) for a in (source, target)]
    if not all(tr and flip for tr, flip in both):
        return [0.0] * _CHANGES
    signals = [
        spoiled_gradient_echo(
            1.0, np.array(T1_MS), np.inf, repetition_time_ms=tr or 0.0, echo_time_ms=0.0, flip_angle_deg=flip or 0.0
        )
        for tr, flip in both
    ]
    ratio = np.log(signals[1] / signals[0])
    return [1.0, *(ratio - ratio.mean()).tolist()]
