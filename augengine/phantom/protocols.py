"""The published scanner table of Duke-Breast-Cancer-MRI in, whole joint rows and single acquisitions out.

`duke_protocols.csv` holds aggregate counts only, no patient rows. Source: Saha et al. 2018, Br J Cancer 119:508;
TCIA collection Duke-Breast-Cancer-MRI, doi:10.7937/TCIA.e3sv-re93 (CC BY-NC 4.0).
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

import numpy as np

from augengine.acquisition_terms import manufacturer as normal_manufacturer
from augengine.acquisition_terms import scan_options
from augengine.errors import DataError
from augengine.records import Acquisition

GE = "GE MEDICAL SYSTEMS"
SIEMENS = "SIEMENS"
FAT_SATURATION_OPTIONS = frozenset({"FS", "SFS", "SAT_GEMS"})


@dataclass(frozen=True)
class Protocol:
    """One row of the joint table: `patients` of 922 were scanned so; ranges are (least, median, greatest)."""

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


@lru_cache(maxsize=1)
def duke_protocols() -> tuple[Protocol, ...]:
    """All 52 joint rows of the table (922 patients)."""
    text = resources.files("augengine.phantom").joinpath("duke_protocols.csv").read_text("utf-8")
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
        protocols: rows to draw from; all of `duke_protocols()` by default.

    Raises:
        DataError: no row is left to draw from.
    """
    wanted = manufacturer and normal_manufacturer(manufacturer)
    rows = [p for p in (protocols or duke_protocols()) if wanted in (None, normal_manufacturer(p.manufacturer))]
    if not rows:
        known = ", ".join(sorted({p.manufacturer for p in duke_protocols()}))
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
    """The same protocol with its fat-saturation options removed: an engineering variant, not a Duke row.

    Every Duke scan is fat-saturated, so fat and fibroglandular tissue never change order between real rows;
    this variant supplies the flip (without saturation, fat is the brighter one).
    """
    kept = [v for v in options(acquisition) if v not in FAT_SATURATION_OPTIONS]
    return acquisition.replace(scan_options="\\".join(kept) or None)
