"""Frames of one series go in; groups that may each be one volume come out.

A series may hold several images: echoes, phases, stacks, slabs. Tags that are equal or not divide it first; measured
values (TE, orientation, spacing) divide it only where they differ by more than rounding. What still lies at one
position is divided by the first tag that tells the images apart; if none does, it stays together and is refused when
its pixels differ.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from itertools import pairwise

import numpy as np

from augengine.errors import DataError
from augengine.io.dicom_frames import Frame
from augengine.io.dicom_geometry import depths, fit_line, is_line, same_position_mm

RELATIVE = 1e-3  # of TE, TI, flip angle, TR and pixel spacing
FLOORS = {"echo_time_ms": 1e-3, "inversion_time_ms": 1e-2, "flip_angle_deg": 1e-2, "repetition_time_ms": 1e-2}
ORIENTATION_RAD = 1e-3
SLAB_STEPS = 3  # a gap of so many slices is one between two slabs, if no image is missing
SLAB_SLICES = 3
Groups = list[list[Frame]]


def split_series(frames: Sequence[Frame]) -> list[tuple[list[Frame], str | None]]:
    """Groups of frames in a fixed order, each with a note on what is special about it, or None."""
    complete = _nothing_missing(frames)
    found: list[tuple[list[Frame], str | None]] = []
    for group in _by_tags(frames):
        if group[0].named or group[0].refusal:
            found.append((group, None))
            continue
        for stack in _by_values(group):
            for part in _by_position(stack):
                found += _slabs(part) if complete else [(part, None)]
    return sorted(found, key=lambda item: _rank(item[0]))


def same_value(a: float | None, b: float | None, relative: float, floor: float = 0.0) -> bool:
    """True for two values that differ by rounding alone, or two that are not stated."""
    if a is None or b is None:
        return a is b
    return abs(a - b) <= max(floor, relative * max(abs(a), abs(b)))


def _by_tags(frames: Iterable[Frame]) -> Groups:
    return _by(frames, lambda f: (f.patient, f.rows, f.columns, f.image_type, f.named, f.refusal))


def _by_values(frames: list[Frame]) -> Groups:
    groups = _by_orientation(frames)
    for value, floor in (
        (lambda f: f.spacing[0], 0.0),
        (lambda f: f.spacing[1], 0.0),
        (lambda f: f.acquisition.echo_time_ms, FLOORS["echo_time_ms"]),
        (lambda f: f.acquisition.inversion_time_ms, FLOORS["inversion_time_ms"]),
        (lambda f: f.acquisition.flip_angle_deg, FLOORS["flip_angle_deg"]),
    ):
        groups = [part for group in groups for part in _clusters(group, value, floor)]
    # Some scanners count slices where they should count stacks or phases: then every part has one slice.
    for tag in (lambda f: f.stack, lambda f: f.temporal):
        groups = [part for group in groups for part in _if_volumes(_by(group, tag), group)]
    return groups


def _by_orientation(frames: list[Frame]) -> Groups:
    groups: dict[tuple[float, ...], list[Frame]] = {}
    for frame in frames:
        at = frame.orientation or ()
        near = (o for o in groups if all(abs(a - b) <= ORIENTATION_RAD for a, b in zip(o, at, strict=True)))
        groups.setdefault(next(near, at), []).append(frame)
    return list(groups.values())


def _clusters(frames: list[Frame], value: Callable[[Frame], float | None], floor: float = 0.0) -> Groups:
    """Cut where sorted values leave a gap that is no rounding; frames that state none are apart."""
    silent = [f for f in frames if value(f) is None]
    stated = sorted((v, n) for n, f in enumerate(frames) if (v := value(f)) is not None)
    groups: Groups = [silent] if silent else []
    last: float | None = None
    for number, n in stated:
        if last is None or not same_value(last, number, RELATIVE, floor):
            groups.append([])
        groups[-1].append(frames[n])
        last = number
    return groups


def _if_volumes(groups: Groups, whole: list[Frame]) -> Groups:
    return groups if all(len(g) > 1 for g in groups) else [whole]


def _by_position(stack: list[Frame]) -> Groups:
    """Divide images that lie at one position, or between each other, by the first tag that tells them apart."""
    single = list({f.uid: f for f in stack}.values())  # copies of a file tell nothing
    places = _places(single)
    layers = max(Counter(places).values())
    ways = _ways(single, places)
    if layers == 1:
        ways = [_by(single, lambda f: f.acquisition_number)] if _interleaved(single) else []
    for groups in ways:
        if (len(groups) == layers or layers == 1) and _tells(groups):
            where = {f.uid: n for n, group in enumerate(groups) for f in group}
            return [[f for f in stack if where[f.uid] == n] for n in range(len(groups))]
    return [stack]


def _places(frames: list[Frame]) -> list[int]:
    """The number of each frame's position along the normal."""
    depth = depths(frames)
    order = np.argsort(depth, kind="stable")
    steps = np.concatenate([[0], np.diff(depth[order]) > same_position_mm(frames)])
    places = np.empty(len(frames), int)
    places[order] = np.cumsum(steps)
    return [int(place) for place in places]


def _ways(frames: list[Frame], places: list[int]) -> list[Groups]:
    tags: list[Callable[[Frame], Hashable]] = [
        lambda f: f.temporal,
        lambda f: f.acquisition_number,
        lambda f: f.trigger_ms,
        lambda f: f.echo,
        lambda f: f.moment,
    ]
    repetition = _clusters(frames, lambda f: f.acquisition.repetition_time_ms, FLOORS["repetition_time_ms"])
    return [
        repetition,
        *(_by(frames, tag) for tag in tags),
        _in_turn(frames, places, lambda f: f.moment),
        _in_turn(frames, places, lambda f: f.trigger_ms),
    ]


def _in_turn(frames: list[Frame], places: list[int], time: Callable[[Frame], float | None]) -> Groups:
    """The first image of every position in time, the second, …; nothing where one round begins before another ends."""
    times = [time(f) for f in frames]
    if any(t is None for t in times):
        return []
    at: dict[int, list[tuple[float, int]]] = defaultdict(list)
    for n, place in enumerate(places):
        at[place].append((times[n], n))  # type: ignore[arg-type]
    rounds: dict[int, list[tuple[float, int]]] = defaultdict(list)
    for images in at.values():
        for turn, image in enumerate(sorted(images)):
            rounds[turn].append(image)
    ends = [(min(r)[0], max(r)[0]) for _, r in sorted(rounds.items())]
    if any(later[0] <= earlier[1] for earlier, later in pairwise(ends)):
        return []
    return [[frames[n] for _, n in r] for _, r in sorted(rounds.items())]


def _tells(groups: Groups) -> bool:
    """True if each group has one image per position, and the longest is a volume."""
    if any(max(Counter(_places(g)).values()) > 1 for g in groups):
        return False
    return is_line(max(groups, key=len))


def _interleaved(frames: list[Frame]) -> bool:
    """True if acquisitions lie between each other, though each one alone leaves no gap: the second is another image.

    Two passes of one image lie between each other, too; but there each pass alone leaves every other slice out.
    """
    groups = _by(frames, lambda f: f.acquisition_number)
    if len(groups) < 2 or frames[0].acquisition_number is None or not all(is_line(g) for g in groups):
        return False
    spans = [(depths(g).min(), depths(g).max()) for g in groups]
    if any(b[0] >= a[1] or a[0] >= b[1] for a, b in pairwise(spans)):
        return False
    first = frames[0]
    covered = first.gap_mm or first.acquisition.slice_thickness_mm
    steps = [float(np.median(np.diff(np.sort(depths(g))))) for g in groups]
    return covered is not None and all(step <= 1.1 * abs(covered) for step in steps)


def _slabs(stack: list[Frame]) -> list[tuple[list[Frame], str | None]]:
    """Two or more blocks of slices with wide gaps between them, as of both breasts, where no image is missing."""
    order = np.argsort(depths(stack), kind="stable").tolist()
    depth = np.sort(depths(stack))
    gaps = np.diff(depth)
    usual = float(np.median(gaps)) if len(gaps) else 0.0
    if usual <= same_position_mm(stack):
        return [(stack, None)]
    cuts = np.flatnonzero(gaps > SLAB_STEPS * usual) + 1
    blocks = [[stack[n] for n in part] for part in np.split(order, cuts)]
    if len(blocks) == 1 or any(len(b) < SLAB_SLICES or not is_line(b) for b in blocks):
        return [(stack, None)]
    widest = f"{gaps.max():.2f} mm apart, and no image is missing between them"
    return [(b, f"one of {len(blocks)} slabs of its series; they are {widest}") for b in blocks]


def _nothing_missing(frames: Sequence[Frame]) -> bool:
    """True if the scanner's own numbers of a series run on without a gap."""
    if any(f.order is None for f in frames):
        return False
    if len({f.path for f in frames}) == 1:
        return True  # one multi-frame file is whole
    numbers = sorted({f.uid: f.order for f in frames}.values())  # type: ignore[type-var]
    return all(b - a == 1 for a, b in pairwise(numbers))  # type: ignore[operator]


def _rank(frames: list[Frame]) -> tuple[object, ...]:
    """A fixed order of groups, by what a reader of the headers would sort by."""
    first = min(frames, key=lambda f: (f.order or 0, str(f.path), f.index or 0))
    a = first.acquisition
    temporal = float(first.temporal) if first.temporal.isdecimal() else 0.0
    numbers = (
        temporal,
        a.echo_time_ms,
        a.inversion_time_ms,
        a.flip_angle_deg,
        a.repetition_time_ms,
        first.acquisition_number,
        first.moment,
        first.trigger_ms,
        first.order,
    )
    return (first.stack, *(-1.0 if n is None else n for n in numbers), str(first.path), first.index or 0)


def _by(frames: Iterable[Frame], key: Callable[[Frame], Hashable]) -> Groups:
    groups: dict[Hashable, list[Frame]] = defaultdict(list)
    for frame in frames:
        groups[key(frame)].append(frame)
    return list(groups.values())


def geometry_error(frames: Sequence[Frame]) -> str | None:
    """Why slices at different positions are no volume; None also where several lie at one: pixels must decide."""
    single = list({f.uid: f for f in frames}.values())
    if max(Counter(_places(single)).values()) > 1:
        return None
    try:
        fit_line([single[n] for n in np.argsort(depths(single), kind="stable").tolist()])
    except DataError as error:
        return str(error)
    return None
