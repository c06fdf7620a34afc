"""A CSV, TSV or XLSX table goes in, rows of stripped text come out."""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from augengine.errors import ConfigError

MOST_CELLS, MOST_BYTES = 10**6, 2**27
"""Of a table; bytes as they are unpacked."""


def table_rows(path: Path) -> list[list[str]]:
    """All rows; empty cells are empty text. A table that is missing, damaged or too large is a `ConfigError`."""
    where = str(path)
    try:
        if path.suffix.lower() == ".xlsx":
            _check_bytes(_unpacked_bytes(path), where)
            import openpyxl  # slow to import

            sheet = openpyxl.load_workbook(path, read_only=True, data_only=True).active
            rows = _counted(sheet.iter_rows(values_only=True), where)
            return [["" if v is None else str(v).strip() for v in row] for row in rows]
        tab = "\t" if path.suffix.lower() == ".tsv" else ","
        _check_bytes(path.stat().st_size, where)
        with path.open(newline="", encoding="utf-8-sig") as file:
            found = [[cell.strip() for cell in row] for row in _counted(csv.reader(file, delimiter=tab), where)]
        if any("\0" in cell for row in found for cell in row):
            raise ConfigError("a table holds text", found="a zero byte", where=where)
        return found
    except ConfigError:
        raise
    except FileNotFoundError:
        raise ConfigError("no such table", where=str(path), next_step="check the path") from None
    except Exception as error:  # openpyxl raises many unrelated classes for damaged files
        raise ConfigError("this table cannot be read", found=type(error).__name__, where=str(path)) from None


def _unpacked_bytes(path: Path) -> int:
    with zipfile.ZipFile(path) as archive:
        return sum(part.file_size for part in archive.infolist())


def _check_bytes(size: int, where: str) -> None:
    if size > MOST_BYTES:
        raise ConfigError(f"a table has at most {MOST_BYTES >> 20} MiB", found=f"{size >> 20} MiB", where=where)


def _counted(rows: Iterable[Sequence[Any]], where: str) -> Iterator[Sequence[Any]]:
    """The rows, as long as they are not too many: a sheet may declare a million of empty ones."""
    cells = 0
    for row in rows:
        cells += max(1, len(row))
        if cells > MOST_CELLS:
            raise ConfigError(
                f"a table has at most {MOST_CELLS} cells", where=where, next_step="delete empty rows and columns"
            )
        yield row


def records(rows: list[list[str]], header_row: int = 0) -> list[dict[str, str]]:
    """Rows below the header as mappings by column name."""
    names = rows[header_row] if len(rows) > header_row else []
    return [dict(zip(names, row, strict=False)) for row in rows[header_row + 1 :] if any(row)]
