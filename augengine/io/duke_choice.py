"""The stacks of one Duke patient go in; the pre-contrast one comes out, with the rule that found it, or the reason.

The dynamic study is the largest set of T1-weighted gradient-echo series with one protocol. A series called "pre" is
the pre-contrast one only if it shares that protocol: T2 and calibration scans are called so, too. Where none is, it is
the first of the dynamic study in time. Whatever could be a phase of it and is not quite like the others is refused
rather than passed over: a later phase would then be taken for it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from augengine.io.dicom_frames import Frame
from augengine.io.dicom_split import same_value
from augengine.io.dicom_stacks import Stack
from augengine.io.sources import pseudonym

PRE = re.compile(r"(?<![a-z])pre(?:[ -]*(?:con|gad|gd|c)[a-z]*)?(?![a-z])")
CALIBRATION = re.compile(r"(?<![a-z])(?:pre[ -]*scan|calib|shim|locali[sz]|loc(?![a-z])|scout|survey)")
LATER = re.compile(r"(?<![a-z])(?:ph *\d+|post|delay(?:ed)?|\d+(?:st|nd|rd|th) *pass)(?![a-z])|\+ *c(?![a-z])")
DERIVED = re.compile(r"(?<![a-z])(?:subs?|subtract[a-z]*|mip|minip|mpr|reformat[a-z]*)(?![a-z])|post *[-–] *pre")
FAT_SATURATION = re.compile(r"S?FS|FAT.*|SPI?A?IR", re.IGNORECASE)  # among ScanOptions
DERIVED_TYPES = ("SUB", "MIP", "MINIP", "MPR", "PROJECTION", "CSA", "REFORMATTED", "RESAMPLED")
# The dynamic protocols of all 922 patients have TR below 8 ms and TE below 5 ms (their table); a T2 has far more.
LONGEST_TR_MS, LONGEST_TE_MS = 50.0, 10.0
SAME_PROTOCOL = 0.01  # relative, of TR, TE and flip angle; as for the table of clinical data
NEARLY_SAME = 0.25
HALF_DAY_S, DAY_S = 43200.0, 86400.0
SHORTEST_PHASE_S = 1.0  # the fastest protocols of a breast take several

OTHER, LATER_PHASE, DERIVED_SERIES = (
    "another series, not of the dynamic study",
    "a later phase of the dynamic study",
    "a derived series (subtraction, projection or reformat)",
)


@dataclass(frozen=True)
class Choice:
    """What was found.

    Attributes:
        stack: the pre-contrast one, or None.
        rule: that found it, or the reason why none was.
        reasons: why each other stack is not used, in the order of the stacks given.
        notes: what is worth recording.
    """

    stack: Stack | None
    rule: str
    reasons: Sequence[str] = ()
    notes: Sequence[str] = field(default_factory=tuple)


def choose_pre_contrast(stacks: Sequence[Stack], series: str | None, mapped: bool) -> Choice:
    """The pre-contrast stack of one patient.

    Args:
        stacks: of MR images.
        series: pseudonym of the SeriesInstanceUID that the mapping table names for this patient.
        mapped: a mapping table was given, and nothing else is to decide.
    """
    dynamic, others = _dynamic(stacks)
    reasons = [_reason(s, dynamic) for s in stacks]
    if not stacks:
        return Choice(None, "no MR series in this patient's folder")
    if mapped:
        chosen = [s for s in stacks if series is not None and pseudonym(s.first.series, "", "series") == series]
        if not chosen:
            return Choice(None, "the mapping table must name a pre-contrast series that is in this patient's folder")
        return _only(chosen, "mapping table", reasons)
    named = [s for s in others + dynamic if _says(PRE, s) and not _says(LATER, s)]
    if len({s.first.series for s in named}) == 1:  # the name of a whole dynamic series is that of no phase
        named = named if len(named) == 1 else []
    if not dynamic:
        return _without_dynamic(stacks, named, reasons)
    inside = [s for s in named if s in dynamic]
    if inside:
        late = len(inside) == 1 and any(_before(s, inside[0]) for s in dynamic)
        notes = ["by the header's times another phase was acquired before it"] if late else []
        return _only(inside, "series description", reasons, notes)
    return _first_in_time(dynamic, [s for s in others if _alike(s, dynamic[0], NEARLY_SAME)], named, reasons)


def _dynamic(stacks: Sequence[Stack]) -> tuple[list[Stack], list[Stack]]:
    """The phases of the dynamic study, and the other stacks that might be T1-weighted gradient echoes."""
    candidates = [s for s in stacks if _t1_gradient_echo(s) and not is_derived(s) and not _says(CALIBRATION, s)]
    groups: list[list[Stack]] = []
    for stack in candidates:
        group = next((g for g in groups if _alike(stack, g[0], SAME_PROTOCOL)), None)
        if group is None:
            groups.append([stack])
        else:
            group.append(stack)
    sizes = sorted((len(g) for g in groups), reverse=True)
    largest = next((g for g in groups if len(g) == sizes[0] > 1), []) if sizes[:1] != sizes[1:2] else []
    return largest, [s for s in candidates if s not in largest]


def _first_in_time(dynamic: list[Stack], near: list[Stack], named: list[Stack], reasons: list[str]) -> Choice:
    doubtful = [s for s in near if s in named or any(_before(s, d) for d in dynamic) or s.error]
    if doubtful:
        return Choice(
            None,
            f"every phase of the dynamic study must have one protocol; series {_numbers(doubtful)} may be its "
            f"pre-contrast phase and differs a little; give --mapping",
        )
    if (step := _too_short(_seconds(dynamic))) is not None:
        return Choice(
            None,
            f"phases of a dynamic study lie seconds apart; by the header's times two lie {step:.3g} s apart, so times "
            f"were shifted or removed and the order of phases is not known; give --mapping",
        )
    first, rule = _earliest(dynamic)
    if len(first) > 1:
        return _only(first, rule, reasons)
    told = len({s.first.description for s in dynamic}) > 1
    if told and _says(LATER, first[0]):
        return Choice(
            None,
            f"the first phase of the dynamic study must be the pre-contrast one; series {_numbers(first)} is called "
            f"a later one; give --mapping",
        )
    return _only(first, rule, reasons)


def _without_dynamic(stacks: Sequence[Stack], named: list[Stack], reasons: list[str]) -> Choice:
    if named:
        return _only(named, "series description", reasons)
    only = len(stacks) == 1 and _t1_gradient_echo(stacks[0]) and not is_derived(stacks[0])
    if only and not _says(LATER, stacks[0]):
        return _only(list(stacks), "being the only series", reasons)
    return Choice(
        None,
        f"the pre-contrast series must be told by 'pre' in its description or by the time of two or more dynamic "
        f"series; found {len(stacks)} series without either; give --mapping",
    )


def _only(chosen: list[Stack], rule: str, reasons: list[str], notes: Sequence[str] = ()) -> Choice:
    if len(chosen) > 1:
        return Choice(
            None, f"one pre-contrast series is needed; found series {_numbers(chosen)} by {rule}; give --mapping"
        )
    return Choice(chosen[0], rule, reasons, notes)


def _earliest(dynamic: list[Stack]) -> tuple[list[Stack], str]:
    """The first phase and the rule; several where nothing tells them apart."""
    times, why = _seconds(dynamic), "the phases state no times"
    if times is not None:
        why = "the first phases state one time"
        first = [s for s, t in zip(dynamic, times, strict=True) if t == min(times)]
        if len(first) == 1:
            return first, "temporal order"
        dynamic = first
    ways: list[tuple[str, Callable[[Frame], float | None]]] = [
        ("trigger time", lambda f: f.trigger_ms),
        ("temporal position", lambda f: float(f.temporal or "nan")),
        ("acquisition number", lambda f: f.acquisition_number),
        ("series number", lambda f: f.series_number),
    ]
    for name, value in ways:
        values = [value(s.first) for s in dynamic]
        if any(v is None or v != v for v in values):
            continue
        lowest = min(v for v in values if v is not None)
        if values.count(lowest) == 1:
            return [dynamic[values.index(lowest)]], f"{name}, since {why}"
    return dynamic, "temporal order"


def _seconds(stacks: Sequence[Stack]) -> list[float] | None:
    """When each stack began; None unless all of them say. Midnight between phases of one stated day is bridged."""
    starts = [min((f.moment for f in s.frames if f.moment is not None), default=None) for s in stacks]
    if any(start is None for start in starts):
        return None
    times = [start for start in starts if start is not None]
    days = {f.day for s in stacks for f in s.frames}
    if None in days:  # without dates only the time of day counts
        times = [t % DAY_S for t in times]
    same_day = len(days) == 1 or None in days
    if same_day and max(times) - min(times) > HALF_DAY_S:
        times = [t + DAY_S if t % DAY_S < HALF_DAY_S else t for t in times]
    return times


def _too_short(times: Sequence[float] | None) -> float | None:
    """The shortest time between two phases of different times, if no scanner is that fast."""
    steps = [b - a for a, b in pairwise(sorted(set(times or ())))]
    return min(steps) if steps and min(steps) < SHORTEST_PHASE_S else None


def _before(a: Stack, b: Stack) -> bool:
    times = _seconds([a, b])
    return times is not None and times[0] < times[1]


def _t1_gradient_echo(stack: Stack) -> bool:
    a = stack.first.acquisition
    return (a.repetition_time_ms or 0) <= LONGEST_TR_MS and (a.echo_time_ms or 0) <= LONGEST_TE_MS


def is_derived(stack: Stack) -> bool:
    """True for subtractions, projections and reformats."""
    kind = [value.upper() for value in stack.first.image_type]
    secondary = kind[:2] == ["DERIVED", "SECONDARY"]
    return secondary or any(v.startswith(DERIVED_TYPES) for v in kind[2:]) or _says(DERIVED, stack)


def _alike(a: Stack, b: Stack, tolerance: float) -> bool:
    """True for two stacks of one protocol; of one that has an error, the number of slices need not fit.

    Other scan options may differ: only some scanners mark the later phases as such there.
    """
    x, y = a.first, b.first
    if (x.rows, x.columns, _fat_saturated(a)) != (y.rows, y.columns, _fat_saturated(b)):
        return False
    if tolerance <= SAME_PROTOCOL:
        whole = len(a.frames) == len(b.frames) or a.error is not None or b.error is not None
        if not (whole and _same(x.orientation, y.orientation, 0.0, 1e-3) and _same(x.spacing, y.spacing, 1e-3, 0.0)):
            return False
    names = ("repetition_time_ms", "echo_time_ms", "flip_angle_deg")
    return all(same_value(getattr(x.acquisition, n), getattr(y.acquisition, n), tolerance) for n in names)


def _fat_saturated(stack: Stack) -> bool:
    options = (stack.first.acquisition.scan_options or "").split("\\")
    return any(FAT_SATURATION.fullmatch(option) for option in options)


def _same(a: Sequence[float] | None, b: Sequence[float] | None, relative: float, floor: float) -> bool:
    if a is None or b is None:
        return a is b
    return all(same_value(x, y, relative, floor) for x, y in zip(a, b, strict=True))


def _says(words: re.Pattern[str], stack: Stack) -> bool:
    return words.search(stack.first.description.lower().replace("_", " ")) is not None


def _reason(stack: Stack, dynamic: Sequence[Stack]) -> str:
    if is_derived(stack):
        return DERIVED_SERIES
    return LATER_PHASE if stack in dynamic else OTHER


def _numbers(stacks: Sequence[Stack]) -> str:
    return ", ".join(f"{number:g}" for number in sorted(s.first.series_number for s in stacks))
