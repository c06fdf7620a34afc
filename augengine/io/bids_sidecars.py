"""An image's name and the JSON sidecars of its data set go in; the acquisition that they state comes out (ms, T).

BIDS' inheritance principle: a sidecar applies to every image below its folder whose name has its suffix and all of its
entities; where several state a value, the nearest one wins. Values that cannot be what they claim to be are left out
with a note, never guessed.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from augengine.errors import DataError
from augengine.io.bids_names import BidsName
from augengine.records import CREDIBLE, Acquisition


@dataclass(frozen=True)
class Number:
    """A number of a sidecar: the field it fills, the factor to that field's unit, and its own unit."""

    field: str
    factor: float
    unit: str

    @property
    def largest(self) -> float:
        """The largest credible value, in its own unit."""
        return CREDIBLE[self.field] / self.factor


# BIDS counts seconds, we count milliseconds. Keys of one field stand in the order of preference: of anatomy BIDS wants
# RepetitionTimeExcitation, which is DICOM (0018,0080).
NUMBERS = {
    "RepetitionTimeExcitation": Number("repetition_time_ms", 1000, "s"),
    "RepetitionTime": Number("repetition_time_ms", 1000, "s"),
    "EchoTime": Number("echo_time_ms", 1000, "s"),
    "InversionTime": Number("inversion_time_ms", 1000, "s"),
    "FlipAngle": Number("flip_angle_deg", 1, "degrees"),
    "MagneticFieldStrength": Number("field_strength_t", 1, "T"),
    "SliceThickness": Number("slice_thickness_mm", 1, "mm"),
}
TEXTS = {"Manufacturer": "manufacturer", "ManufacturersModelName": "model", "ScanOptions": "scan_options"}
USED = {*NUMBERS, *TEXTS}
NO_MAGNITUDE = {"P": "phase", "PHASE": "phase", "PHASE MAP": "phase", "I": "imaginary", "IMAGINARY": "imaginary"}
Levels = list[list[str]]


class SidecarIndex:
    """All sidecars of a data set by folder and suffix; `images` tell which sidecars are an image's own."""

    def __init__(self, names: Iterable[BidsName], images: Iterable[BidsName]) -> None:
        self._found: dict[tuple[str, str], list[BidsName]] = defaultdict(list)
        self._own = {(_folder(image), image.stem) for image in images}
        for name in names:
            if name.source is None:
                self._found[_folder(name), name.suffix].append(name)

    def levels(self, image: BidsName) -> tuple[Levels, list[str]]:
        """Paths of the sidecars that apply to an image, by folder from the root on, the most general first; notes.

        `sub-1_T1w.json` applies to `sub-1_ce-x_T1w.nii`, too. Where both images lie there, each with a sidecar of its
        own name, each has its own, as the validator of BIDS has it.
        """
        folders = _folder(image).split("/")
        levels, notes = [], []
        for depth in range(len(folders) + 1):
            here = self._found.get(("/".join(folders[:depth]), image.suffix), [])
            fits = [s for s in here if s.entities.items() <= image.entities.items()]
            of_others = [s for s in fits if s.stem != image.stem and (_folder(s), s.stem) in self._own]
            if any(s.stem == image.stem for s in fits):
                fits = [s for s in fits if s not in of_others]
            elif of_others:
                notes.append("the sidecar of another image applies, since it has none of its own")
            if fits:
                levels.append([s.path for s in sorted(fits, key=lambda s: (len(s.entities), s.path))])
        return levels, notes


def read_sidecars(root: Path, levels: Levels, lost: Collection[str] = ()) -> tuple[dict[str, Any], list[str]]:
    """What the sidecars of an image state together, and notes.

    Args:
        root: folder of the data set.
        levels: of `SidecarIndex`.
        lost: sidecars whose content is elsewhere (links that lead nowhere).

    Raises:
        DataError: a sidecar that cannot be read or is no mapping.
    """
    values: dict[str, Any] = {}
    notes: list[str] = []
    for level in levels:
        if len(level) > 1:
            notes.append("several sidecars of one folder apply, which BIDS forbids; the most specific one was taken")
        by_size: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for path in level:
            if path in lost:
                notes.append("a sidecar is a link that leads nowhere; what it states is unknown")
            else:
                by_size[_entities(path)].append(_read(root / path, notes))
        for _, equals in sorted(by_size.items()):
            for key in sorted({key for found in equals for key in found}):
                stated = [found[key] for found in equals if key in found]
                if all(value == stated[0] for value in stated):
                    values[key] = stated[0]
                else:
                    values.pop(key, None)
                    if key in USED:
                        notes.append(f"two equally specific sidecars disagree on {key}; it was left out")
    return values, notes


def acquisition(values: Mapping[str, Any]) -> tuple[Acquisition, list[str]]:
    """The acquisition that a sidecar's values state, and a note for every value that cannot be used."""
    fields: dict[str, Any] = {}
    notes: list[str] = []
    for key, number in NUMBERS.items():
        value, problem = _number(values.get(key), number)
        if problem:
            notes.append(f"{key} {problem}; it was left out (state it with --set {number.field}=...)")
        if value is None:
            continue
        value = round(value * number.factor, 6)
        if fields.setdefault(number.field, value) != value:
            notes.append(f"RepetitionTimeExcitation and {key} differ; the former was taken, as BIDS asks of anatomy")
    if "repetition_time_ms" not in fields and "RepetitionTimePreparation" in values:
        notes.append("RepetitionTimePreparation alone is no repetition time; none was taken")
    for key, field in TEXTS.items():
        text, problem = _text(values.get(key))
        if problem:
            notes.append(f"{key} {problem}; it was left out")
        elif text:
            fields[field] = text
    return Acquisition(**fields), notes


def no_magnitude(values: Mapping[str, Any]) -> str | None:
    """`phase` or `imaginary`, if the sidecar says that the image is one; None if it is (or may be) a magnitude."""
    stated = [values.get("ComplexImageComponent"), *_list(values.get("ImageType"))]
    words = [word.strip().upper() for word in stated if isinstance(word, str)]
    if any(word in ("M", "MAGNITUDE") for word in words):
        return None
    return next((NO_MAGNITUDE[word] for word in words if word in NO_MAGNITUDE), None)


def _number(value: Any, number: Number) -> tuple[float | None, str | None]:
    """The value if it is usable; else why it is not (None for a value that nobody stated)."""
    if isinstance(value, list) and value and all(item == value[0] for item in value):
        value = value[0]
    if value is None or value in ("", "n/a"):
        return None, None
    if isinstance(value, list):
        return None, f"is a list of {len(value)} values, and an image has one"
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None, "is not a number"
    if not 1e-6 <= value * number.factor <= number.largest * number.factor:
        return None, f"is {value:g}, where a value above 0 and up to {number.largest:g} {number.unit} is credible"
    return float(value), None


def _text(value: Any) -> tuple[str, str | None]:
    parts = _list(value)
    if not all(isinstance(part, str | int | float) and not isinstance(part, bool) for part in parts):
        return "", "is not text"
    texts = [str(part).strip() for part in parts]
    return "\\".join(text for text in texts if text and text != "n/a"), None


def _list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _folder(name: BidsName) -> str:
    return name.path.rpartition("/")[0]


def _entities(path: str) -> int:
    return path.rpartition("/")[2].count("_")


def _read(path: Path, notes: list[str]) -> dict[str, Any]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        """A mapping without the keys that the text states twice, with different values."""
        found: dict[str, Any] = {}
        twice = {key for key, value in pairs if found.setdefault(key, value) != value}
        notes.extend(f"a sidecar states {key} twice; it was left out" for key in sorted(twice & USED))
        return {key: value for key, value in found.items() if key not in twice}

    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=once)
    except OSError as error:
        raise DataError("a JSON sidecar cannot be read", found=error.strerror) from None
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise DataError("a JSON sidecar must hold a mapping of names to values", next_step="mend or remove the file")
    return values
