"""Tissue names in, relaxation times and proton densities out; every value keeps its mark and its source.

Marks: "V" read at the source, "S" taken from a secondary table, "R" recalled, "E" engineering estimate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Mark = Literal["V", "S", "R", "E"]

SOURCES = {
    "rakow": "Rakow-Penner et al. 2006, J Magn Reson Imaging 23:87",
    "edden": "Edden et al. 2010, J Magn Reson Imaging 32:982",
    "ryu": "Ryu et al. 2014, J Korean Soc Magn Reson Med 18:1 (T2* at 3 T)",
    "liu": "Liu et al. 2018 (breast lesions at 3 T)",
    "bae": "Bae et al. 2024, Magn Reson Med (breast digital reference object)",
    "stanisz": "Stanisz et al. 2005, Magn Reson Med 54:507",
    "rooney": "Rooney et al. 2007, Magn Reson Med 57:308",
    "wright": "Wright et al. 2008, MAGMA 21:121",
    "pooled": "one of the works above",
    "estimate": "engineering estimate of this project",
    "recalled": "common textbook value, not looked up",
}


@dataclass(frozen=True)
class Value:
    """One tabulated number with how far it can be trusted (`mark`) and where it comes from (key of `SOURCES`)."""

    value: float
    mark: Mark
    source: str


def _v(value: float, mark: Mark, source: str | None = None) -> Value:
    return Value(value, mark, source or {"E": "estimate", "R": "recalled"}[mark])


@dataclass(frozen=True)
class Tissue:
    """Relaxation times in ms at 1.5 T and 3 T, and proton density relative to fat."""

    t1_15: Value
    t1_3: Value
    t2_15: Value
    t2_3: Value
    pd: Value
    t2_star_3: Value | None = None

    def t1_ms(self, field_strength_t: float) -> float:
        """T1 at a field strength; a power law through the two tabulated fields (Rooney 2007, eq. 1)."""
        return _power_law(self.t1_15.value, self.t1_3.value, field_strength_t)

    def t2_ms(self, field_strength_t: float) -> float:
        """T2 at a field strength."""
        return _power_law(self.t2_15.value, self.t2_3.value, field_strength_t)

    def t2_star_ms(self, field_strength_t: float) -> float:
        """T2*: the excess rate over 1/T2 grows with the field; without a tabulated T2* it equals 1/T2 at 3 T."""
        rate_3 = 1 / self.t2_star_3.value if self.t2_star_3 else 2 / self.t2_3.value
        excess = max(rate_3 - 1 / self.t2_3.value, 0.0) * field_strength_t / 3.0
        return 1 / (1 / self.t2_ms(field_strength_t) + excess)


def _power_law(at_15: float, at_3: float, field_strength_t: float) -> float:
    return float(at_15 * (field_strength_t / 1.5) ** math.log2(at_3 / at_15))


# Where a source is "pooled", the value was read at one of the works above, without a note of which one.
TISSUES: dict[str, Tissue] = {
    "fibroglandular": Tissue(
        t1_15=_v(1266, "S", "rakow"),
        t1_3=_v(1445, "S", "rakow"),
        t2_15=_v(57.5, "S", "rakow"),
        t2_3=_v(54.4, "S", "rakow"),
        pd=_v(0.8, "E"),
        t2_star_3=_v(22.4, "V", "ryu"),
    ),
    "fat": Tissue(
        t1_15=_v(296, "S", "rakow"),
        t1_3=_v(367, "S", "rakow"),
        t2_15=_v(53, "S", "rakow"),
        t2_3=_v(53, "S", "rakow"),
        pd=_v(1.0, "E"),
        t2_star_3=_v(36.4, "V", "ryu"),
    ),
    "muscle": Tissue(
        t1_15=_v(1008, "R"),
        t1_3=_v(1412, "V", "stanisz"),
        t2_15=_v(44, "R"),
        t2_3=_v(50, "V", "stanisz"),
        pd=_v(0.8, "E"),
        t2_star_3=_v(25, "E"),
    ),
    "skin": Tissue(
        t1_15=_v(740, "E"),
        t1_3=_v(850, "V", "pooled"),
        t2_15=_v(35, "E"),
        t2_3=_v(35, "E"),
        pd=_v(0.7, "E"),
        t2_star_3=_v(15, "E"),
    ),
    "cancer": Tissue(
        t1_15=_v(1315, "E"),
        t1_3=_v(1500, "V", "pooled"),
        t2_15=_v(83, "E"),
        t2_3=_v(83, "V", "pooled"),
        pd=_v(0.85, "E"),
        t2_star_3=_v(28, "E"),
    ),
    "benign": Tissue(
        t1_15=_v(1225, "E"),
        t1_3=_v(1400, "V", "pooled"),
        t2_15=_v(95, "E"),
        t2_3=_v(95, "V", "pooled"),
        pd=_v(0.85, "E"),
    ),
    "blood": Tissue(
        t1_15=_v(1441, "R"),
        t1_3=_v(1932, "R"),
        t2_15=_v(290, "R"),
        t2_3=_v(275, "R"),
        pd=_v(0.9, "E"),
        t2_star_3=_v(40, "E"),
    ),
    "lung": Tissue(
        t1_15=_v(1200, "E"),
        t1_3=_v(1300, "E"),
        t2_15=_v(40, "E"),
        t2_3=_v(35, "E"),
        pd=_v(0.2, "E"),
        t2_star_3=_v(0.8, "R"),
    ),
    "liver": Tissue(
        t1_15=_v(576, "R"),
        t1_3=_v(812, "R"),
        t2_15=_v(46, "R"),
        t2_3=_v(42, "R"),
        pd=_v(0.8, "E"),
        t2_star_3=_v(20, "E"),
    ),
    "bone": Tissue(
        t1_15=_v(600, "E"),
        t1_3=_v(700, "E"),
        t2_15=_v(1.5, "E"),
        t2_3=_v(1.5, "E"),
        pd=_v(0.2, "E"),
        t2_star_3=_v(0.6, "E"),
    ),
    "white_matter": Tissue(
        t1_15=_v(884, "S", "stanisz"),
        t1_3=_v(1084, "V", "stanisz"),
        t2_15=_v(72, "S", "stanisz"),
        t2_3=_v(69, "V", "stanisz"),
        pd=_v(0.70, "S", "pooled"),
    ),
    "grey_matter": Tissue(
        t1_15=_v(1124, "S", "stanisz"),
        t1_3=_v(1607, "S", "wright"),
        t2_15=_v(95, "S", "stanisz"),
        t2_3=_v(99, "V", "stanisz"),
        pd=_v(0.83, "S", "pooled"),
    ),
    "csf": Tissue(
        t1_15=_v(4300, "S", "rooney"),
        t1_3=_v(4300, "S", "rooney"),
        t2_15=_v(2000, "R"),
        t2_3=_v(2000, "R"),
        pd=_v(1.0, "E"),
    ),
    "oedema": Tissue(t1_15=_v(1200, "E"), t1_3=_v(1450, "E"), t2_15=_v(150, "E"), t2_3=_v(150, "E"), pd=_v(0.9, "E")),
    "tumour": Tissue(
        t1_15=_v(1300, "E"), t1_3=_v(1500, "V", "pooled"), t2_15=_v(90, "E"), t2_3=_v(90, "E"), pd=_v(0.88, "E")
    ),
    "necrosis": Tissue(
        t1_15=_v(2000, "E"), t1_3=_v(2300, "E"), t2_15=_v(250, "E"), t2_3=_v(250, "E"), pd=_v(0.95, "E")
    ),
}
