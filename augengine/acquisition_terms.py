"""Acquisition values as files state them in; one normal form of each, by which all comparisons are made, out.

A row keeps what its file states: that is evidence, and these tables may grow without any data being ingested again.
Whoever compares two values, or counts how many there are, does it here.

Sources. Manufacturers: the texts of (0008,0070) in GDCM's `gdcmEquipmentManufacturer.cxx` (Toshiba "must include
canon", "fuji and hitachi are the same now"), and what dcm2niix writes into sidecars (`nii_dicom_batch.cpp`). Models:
dcm2niix writes an underscore for every blank, and headers of Siemens' numaris X put "MAGNETOM" before the name. Field
strength: (0018,0087) is in tesla, older headers count gauss; Siemens states 1.494 and 2.8936 T. Scan options: the
defined terms of (0018,0022), with GE's `…_GEMS` and Siemens' `SFS` and `SAT1`; dcm2niix joins those of a header by
underscores.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

from augengine.records import ACQUISITION_CATEGORICAL, ACQUISITION_NUMERIC, Acquisition

Value = str | float

# Normal name, which is what most of the vendor's scanners write, to the words that a text of it begins with.
_MANUFACTURERS: dict[str, tuple[str, ...]] = {
    "GE MEDICAL SYSTEMS": ("ge", "g e", "gems", "gehc", "general electric"),
    "SIEMENS": ("siemens",),
    "Philips Medical Systems": ("philips",),
    "TOSHIBA": ("toshiba", "canon"),
    "Hitachi": ("hitachi", "fujifilm", "fuji"),
    "UIH": ("uih", "united imaging", "shanghai united imaging"),
    "Bruker": ("bruker",),
    "Hyperfine": ("hyperfine",),
    "Esaote": ("esaote",),
}
_NOMINAL_T = (
    *(0.055, 0.064, 0.2, 0.23, 0.3, 0.35, 0.4, 0.5, 0.55, 0.6, 0.7),
    *(1.0, 1.2, 1.5, 3.0, 4.0, 4.7, 7.0, 9.4, 10.5, 11.7),
)
_NOMINAL_TOLERANCE = 0.05  # 2.8936 T is a nominal 3 T
_LEAST_GAUSS = 100.0  # no scanner has so many tesla, and none so few gauss
_OPTION = re.compile(r"(?:[A-Z0-9]+_GEMS|PER|RG|CG|PPG|FC|PFF|PFP|SP|FS|CT|SFS|SAT[0-9]*)(?:_|$)")
_ROUNDING = 1e-5  # of headers' decimal strings and 32-bit numbers, relative
_SHOWN = 3
_FIELDS = (*ACQUISITION_CATEGORICAL, *ACQUISITION_NUMERIC)


@lru_cache(maxsize=4096)
def manufacturer(text: str) -> str:
    """The normal name of a manufacturer; one that the table does not know is itself, in capitals and single blanks.

    >>> manufacturer("GE"), manufacturer("Siemens Healthineers"), manufacturer("CANON_MEC"), manufacturer(" Acme  MR")
    ('GE MEDICAL SYSTEMS', 'SIEMENS', 'TOSHIBA', 'ACME MR')
    """
    words = _words(text)
    for name, beginnings in _MANUFACTURERS.items():
        if any(words == start or words.startswith(f"{start} ") for start in beginnings):
            return name
    return " ".join(text.split()).upper()


@lru_cache(maxsize=4096)
def model(text: str) -> str:
    """The normal name of a scanner model: small letters and digits alone, without Siemens' "MAGNETOM".

    >>> model("DISCOVERY_MR750") == model("Discovery MR750"), model("MAGNETOM Prisma Fit") == model("Prisma_fit")
    (True, True)
    >>> model("SIGNA HDx") == model("Signa HDxt")
    False
    """
    key = re.sub(r"[^\w+]|_", "", text.casefold())
    return key.removeprefix("magnetom") or key


def field_strength_t(value: float) -> float:
    """Nominal field strength in tesla; one that is near no nominal value is itself, to four digits.

    >>> field_strength_t(1.494), field_strength_t(2.8936), field_strength_t(15000), field_strength_t(2.35)
    (1.5, 3.0, 1.5, 2.35)
    """
    tesla = value / 10_000 if value >= _LEAST_GAUSS else value
    nearest = min(_NOMINAL_T, key=lambda nominal: abs(tesla - nominal) / nominal)
    return nearest if abs(tesla - nearest) <= _NOMINAL_TOLERANCE * nearest else float(f"{tesla:.4g}")


@lru_cache(maxsize=4096)
def scan_options(text: str) -> tuple[str, ...]:
    r"""Single options in capitals, in the order in which they are stated, each once.

    >>> scan_options("pfp\\ FS\\PFP"), scan_options("EDR_GEMS_FILTERED_GEMS_PFF")
    (('PFP', 'FS'), ('EDR_GEMS', 'FILTERED_GEMS', 'PFF'))
    """
    parts = (part for part in re.split(r"[\\|,;\s]+", text.upper()) if part)
    return tuple(dict.fromkeys(option for part in parts for option in _joined_options(part)))


def _joined_options(part: str) -> list[str]:
    """What dcm2niix joined by underscores; a text that is not made of known options alone stays whole."""
    found, place = [], 0
    while match := _OPTION.match(part, place):
        found.append(match.group().removesuffix("_"))
        place = match.end()
    return found if found and place == len(part) else [part]


def normal(name: str, value: Value) -> Value:
    """The normal form of one value of the acquisition field `name`; equal values have equal forms."""
    if name in ACQUISITION_NUMERIC:
        number = float(value)
        return field_strength_t(number) if name == "field_strength_t" else number
    text = str(value)
    if name == "scan_options":
        return "\\".join(sorted(scan_options(text)))
    return manufacturer(text) if name == "manufacturer" else model(text)


def shown(name: str, value: Value) -> str:
    """A value as a reader is shown it where several spellings are one: a text that `normal` takes back."""
    if name == "model":
        return " ".join(str(value).replace("_", " ").split())
    found = normal(name, value)
    return found if isinstance(found, str) else f"{found:g}"


def same(name: str, a: Value | None, b: Value | None) -> bool:
    """True if two values of a field say the same; numbers are compared up to the rounding of headers."""
    if a is None or b is None or a == b:
        return a == b
    x, y = normal(name, a), normal(name, b)
    return math.isclose(x, y, rel_tol=_ROUNDING) if isinstance(x, float) and isinstance(y, float) else x == y


def alike(a: Acquisition, b: Acquisition, names: Iterable[str] | None = None) -> bool:
    """True if two acquisitions say the same in every field, or in those named."""
    return all(same(name, getattr(a, name), getattr(b, name)) for name in names or _FIELDS)


def nearest(name: str, value: Value, found: Mapping[Value, int] | Iterable[Value]) -> str:
    """The values of `found` that are most like `value`, for a message; counts are told where there are any.

    >>> nearest("manufacturer", "GEE", {"GE": 4, "SIEMENS": 9})
    "'GE' (4), 'SIEMENS' (9)"
    """
    counts = dict(found) if isinstance(found, Mapping) else dict.fromkeys(found, 0)
    if not counts:
        return "none"
    ranked = sorted(counts, key=lambda other: (_distance(name, value, other), str(other)))
    shown_ = [f"{other!r} ({counts[other]})" if counts[other] else f"{other!r}" for other in ranked[:_SHOWN]]
    return ", ".join(shown_) + (", …" if len(ranked) > _SHOWN else "")


def _distance(name: str, value: Value, other: Value) -> float:
    if name in ACQUISITION_NUMERIC:
        return abs(float(normal(name, value)) - float(normal(name, other)))
    if name == "scan_options":
        a, b = set(scan_options(str(value))), set(scan_options(str(other)))
        return 1 - len(a & b) / max(len(a | b), 1)
    as_stated = str(value).casefold(), str(other).casefold()
    as_meant = str(normal(name, value)).casefold(), str(normal(name, other)).casefold()
    return 1 - max(difflib.SequenceMatcher(None, *pair).ratio() for pair in (as_stated, as_meant))


def _words(text: str) -> str:
    """Small letters and digits, single blanks between words."""
    return " ".join(re.findall(r"[a-z0-9]+", text.casefold()))
