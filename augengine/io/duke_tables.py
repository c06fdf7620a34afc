"""Duke's optional spreadsheets go in; decoded values by patient come out: the pre-contrast series, and cross-checks."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from augengine.acquisition_terms import same
from augengine.errors import ConfigError
from augengine.io.sources import pseudonym
from augengine.io.tables import records, table_rows
from augengine.records import Acquisition

# Column (without stray blanks and newlines) -> field; values are codes of the legend, bar TR and TE.
COLUMNS = {
    "Manufacturer": "manufacturer",
    "Manufacturer Model Name": "model",
    "Field Strength (Tesla)": "field_strength_t",
    "TR (Repetition Time)": "repetition_time_ms",
    "TE (Echo Time)": "echo_time_ms",
    "Slice Thickness": "slice_thickness_mm",
    "Flip Angle": "flip_angle_deg",
}
UNCODED = ("repetition_time_ms", "echo_time_ms")
RELATIVE_TOLERANCE = 0.01
BOX_COLUMNS = ("Start Row", "End Row", "Start Column", "End Column", "Start Slice", "End Slice")


@dataclass(frozen=True)
class Box:
    """A tumour box, 1-based and inclusive: rows, columns, slices."""

    start: tuple[int, int, int]
    end: tuple[int, int, int]

    def inside(self, shape: tuple[int, ...]) -> bool:
        """True if the box fits an image of `(columns, rows, slices)` voxels."""
        limits = (shape[1], shape[0], shape[2])
        return all(1 <= s <= e <= n for s, e, n in zip(self.start, self.end, limits, strict=True))


def clinical_by_patient(path: Path) -> dict[str, dict[str, str]]:
    """Acquisition fields as text by patient; header row 2 names, row 3 holds the code legend.

    Raises:
        ConfigError: a table without these rows or without the column `Patient ID`.
    """
    rows = [[cell.strip() for cell in row] for row in table_rows(path)]
    if len(rows) < 4 or "Patient ID" not in rows[1]:
        raise ConfigError(
            "row 2 of the clinical table must hold the column names, 'Patient ID' among them",
            where=str(path),
            next_step="use Clinical_and_Other_Features as downloaded",
        )
    legends = {name: legend(text) for name, text in zip(rows[1], rows[2], strict=False)}
    found: dict[str, dict[str, str]] = {}
    for row in records([rows[1], *rows[3:]]):
        values = {}
        for column, field in COLUMNS.items():
            text = row.get(column, "")
            if field not in UNCODED:
                text = legends.get(column, {}).get(text.removesuffix(".0"), text)
            if text:
                values[field] = text
        found[row["Patient ID"]] = values
    return found


def legend(text: str) -> dict[str, str]:
    """Code to value from a legend cell: entries `value=code` or `code=value`, told apart by the codes 0..n−1.

    >>> legend("GE MEDICAL SYSTEMS=0,\\n SIEMENS= 2 ")
    {'0': 'GE MEDICAL SYSTEMS', '2': 'SIEMENS'}
    """
    pairs = [tuple(part.strip() for part in entry.split("=")) for entry in re.split(r"[,;\n]", text) if "=" in entry]
    pairs = [pair for pair in pairs if len(pair) == 2]
    right = all(pair[1].isdecimal() for pair in pairs)
    left = all(pair[0].isdecimal() for pair in pairs)
    if right and left:
        right = {int(pair[1]) for pair in pairs} == set(range(len(pairs)))
    return {pair[1]: pair[0] for pair in pairs} if right else {pair[0]: pair[1] for pair in pairs}


def clinical_differences(stated: dict[str, str], acquisition: Acquisition) -> list[str]:
    """One note per field on which header and table disagree."""
    notes = []
    for field, text in stated.items():
        value = acquisition.to_dict()[field]
        match = re.match(r"[-+.\d]+", text)
        if value is None:
            continue
        if isinstance(value, str):
            agree = same(field, value, text)
        else:
            number = float(match.group()) if match else math.inf
            agree = same(field, value, number) or abs(number - value) <= RELATIVE_TOLERANCE * abs(value)
        if not agree:
            notes.append(f"clinical table differs: {field} is {value} in the header and {text} in the table")
    return notes


def boxes_by_patient(path: Path) -> dict[str, Box]:
    """Tumour boxes by patient.

    Raises:
        ConfigError: a missing column, or a cell that is no whole number.
    """
    found = {}
    for n, row in enumerate(records(table_rows(path)), 2):
        try:
            numbers = [int(float(row[name])) for name in BOX_COLUMNS]
            found[row["Patient ID"]] = Box((numbers[0], numbers[2], numbers[4]), (numbers[1], numbers[3], numbers[5]))
        except (KeyError, ValueError) as error:
            raise ConfigError(
                f"the table of boxes needs Patient ID, {', '.join(BOX_COLUMNS)}", found=str(error), where=f"{path}:{n}"
            ) from None
    return found


def pre_contrast_series(path: Path) -> dict[str, str]:
    """Patient to (pseudonym of) SeriesInstanceUID from the mapping table's `pre` rows.

    The UID is the folder part of `classic_path`, whichever way its slashes lean; the paths themselves are never
    followed.

    Raises:
        ConfigError: a missing column, or no `pre` row.
    """
    rows = records(table_rows(path))
    if not rows or not {"original_path_and_filename", "classic_path"} <= rows[0].keys():
        raise ConfigError(
            "the mapping table needs the columns original_path_and_filename and classic_path",
            where=str(path),
            next_step="use Breast-Cancer-MRI-filepath_filename-mapping as downloaded",
        )
    found: dict[str, str] = {}
    for row in rows:
        parts = PurePosixPath(row["original_path_and_filename"].replace("\\", "/")).parts
        classic = PurePosixPath(row.get("classic_path", "").replace("\\", "/"))
        if len(parts) >= 3 and parts[-2].lower() == "pre":
            found.setdefault(parts[-3], pseudonym(classic.parent.name, "", "series"))
    if not found:
        raise ConfigError("the mapping table must have rows of 'pre' images", found="none", where=str(path))
    return found
