"""A table of breast-MRI protocols in, whole joint rows and single acquisitions out.

Two tables have the same columns. `plausible_protocols.csv` comes with the package and is invented. The other holds the
scanner settings of Duke-Breast-Cancer-MRI with how many of its 922 patients were scanned so (Saha et al. 2018, Br J
Cancer 119:508; TCIA doi:10.7937/TCIA.e3sv-re93); it is CC BY-NC 4.0, and therefore no part of the wheel: a checkout has
it in `licensed/`, and `AUGENGINE_DUKE_PROTOCOLS` names a copy elsewhere.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path

import numpy as np

from augengine.acquisition_terms import manufacturer as normal_manufacturer
from augengine.acquisition_terms import scan_options
from augengine.errors import DataError
from augengine.records import Acquisition

GE = "GE MEDICAL SYSTEMS"
SIEMENS = "SIEMENS"
DUKE_FILE = "AUGENGINE_DUKE_PROTOCOLS"
"""Environment variable that names the file of Duke's table."""
INVENTED = f"the package's invented ones, not Duke's; {DUKE_FILE}=FILE names a table of Duke's"
"""What is said of protocols where the package's own table stands for Duke's."""
_CHECKOUT = Path(__file__).resolve().parents[2] / "licensed" / "duke_protocols.csv"
FAT_SATURATION_OPTIONS = frozenset({"FS", "SFS", "SAT_GEMS"})


@dataclass(frozen=True)
class Protocol:
    """One row of a joint table: so many `patients` were scanned so; ranges are (least, median, greatest)."""

    manufacturer: str
    model: str
    field_strength_t: float
    scan_options: str
    flip_angle_deg: float
    slice_thickness_mm: float
    patients: int
    repetition_time_ms: tuple[float, float, float]
    echo_time_ms: tuple[float, float, float]

    def acquisition(self, quantile: float) -> Acquisition:
        """TR and TE at one shared quantile (0 to 1) of their ranges, since scanners couple the two."""
        return Acquisition(
            manufacturer=self.manufacturer,
            model=self.model,
            field_strength_t=self.field_strength_t,
            scan_options=self.scan_options,
            flip_angle_deg=self.flip_angle_deg,
            slice_thickness_mm=self.slice_thickness_mm,
            echo_time_ms=_at(self.echo_time_ms, quantile),
            repetition_time_ms=_at(self.repetition_time_ms, quantile),
        )


def _at(spread: tuple[float, float, float], quantile: float) -> float:
    return round(float(np.interp(quantile, (0.0, 0.5, 1.0), spread)), 3)


def duke_at_hand() -> bool:
    """True if Duke's table is here, or the user names it; that it can be read is found out on reading."""
    return bool(os.environ.get(DUKE_FILE)) or _CHECKOUT.is_file()


def duke_protocols() -> tuple[Protocol, ...]:
    """All 52 joint rows of Duke's table (922 patients).

    Raises:
        DataError: its file is not at hand, or no such table.
    """
    path = _duke_file()
    if not path.is_file():
        raise DataError(
            "the protocols of Duke-Breast-Cancer-MRI are CC BY-NC 4.0 and do not come with the package",
            found="no file",
            where=str(path) if os.environ.get(DUKE_FILE) else None,
            next_step=f"name a copy of licensed/duke_protocols.csv by {DUKE_FILE}, or take `table: plausible`",
        )
    return _read(str(path))


def plausible_protocols() -> tuple[Protocol, ...]:
    """The package's own rows, which are invented."""
    return _read("")


def protocols_at_hand() -> tuple[Protocol, ...]:
    """Duke's rows where their file is at hand, else the package's own."""
    return duke_protocols() if duke_at_hand() else plausible_protocols()


def _duke_file() -> Path:
    return Path(os.environ.get(DUKE_FILE) or _CHECKOUT)


@lru_cache(maxsize=4)
def _read(path: str) -> tuple[Protocol, ...]:
    """The rows of a file; of the package's own if `path` is empty."""
    own = resources.files("augengine.phantom").joinpath("plausible_protocols.csv")
    try:
        return _rows(Path(path).read_text("utf-8") if path else own.read_text("utf-8"))
    except (OSError, UnicodeError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            "a table of protocols has the columns of licensed/duke_protocols.csv",
            found=f"{type(error).__name__}: {error}".splitlines()[0],
            where=path,
            next_step=f"give that file by {DUKE_FILE}",
        ) from None


def _rows(text: str) -> tuple[Protocol, ...]:
    rows = csv.DictReader(line for line in text.splitlines() if not line.startswith("#"))
    return tuple(
        Protocol(
            manufacturer=row["manufacturer"],
            model=row["model"],
            field_strength_t=float(row["b0_t"]),
            scan_options=row["scan_options"],
            flip_angle_deg=float(row["flip_deg"]),
            slice_thickness_mm=float(row["slice_mm"]),
            patients=int(row["n"]),
            repetition_time_ms=(float(row["tr_min"]), float(row["tr_med"]), float(row["tr_max"])),
            echo_time_ms=(float(row["te_min"]), float(row["te_med"]), float(row["te_max"])),
        )
        for row in rows
    )


def draw_protocol(
    rng: np.random.Generator, *, manufacturer: str | None = None, protocols: Sequence[Protocol] | None = None
) -> Acquisition:
    """One acquisition: a whole row drawn by its number of patients, then one quantile for TR and TE.

    Args:
        rng: source of randomness.
        manufacturer: draw among the rows of this manufacturer only.
        protocols: rows to draw from; all that are at hand by default.

    Raises:
        DataError: no row is left to draw from.
    """
    wanted = manufacturer and normal_manufacturer(manufacturer)
    table = protocols or protocols_at_hand()
    rows = [p for p in table if wanted in (None, normal_manufacturer(p.manufacturer))]
    if not rows:
        known = ", ".join(sorted({p.manufacturer for p in table}))
        raise DataError("no protocol of this manufacturer", found=manufacturer, next_step=f"known: {known}")
    weights = np.array([p.patients for p in rows], np.float64)
    row = rows[int(rng.choice(len(rows), p=weights / weights.sum()))]
    return row.acquisition(float(rng.random()))


def options(acquisition: Acquisition) -> tuple[str, ...]:
    """The values of the DICOM attribute ScanOptions in capitals, in header order."""
    return scan_options(acquisition.scan_options or "")


def is_fat_saturated(acquisition: Acquisition) -> bool:
    """True if the scan options name a fat-saturation pulse (FS, SFS, SAT_GEMS)."""
    return not FAT_SATURATION_OPTIONS.isdisjoint(options(acquisition))


def without_fat_saturation(acquisition: Acquisition) -> Acquisition:
    """The same protocol with its fat-saturation options removed: an engineering variant, not a row of a table.

    Every scan of both tables is fat-saturated, so fat and fibroglandular tissue never change order between real rows;
    this variant supplies the flip (without saturation, fat is the brighter one).
    """
    kept = [v for v in options(acquisition) if v not in FAT_SATURATION_OPTIONS]
    return acquisition.replace(scan_options="\\".join(kept) or None)
