"""A CSV, TSV or XLSX table goes in, rows of stripped text come out."""

from __future__ import annotations

import csv
from pathlib import Path

import openpyxl

from augengine.errors import ConfigError


def table_rows(path: Path) -> list[list[str]]:
    """All rows; empty cells are empty text. A table that is missing or damaged is a `ConfigError`."""
    try:
        if path.suffix.lower() == ".xlsx":
            sheet = openpyxl.load_workbook(path, read_only=True, data_only=True).active
            return [["" if v is None else str(v).strip() for v in row] for row in sheet.iter_rows(values_only=True)]
        tab = "\t" if path.suffix.lower() == ".tsv" else ","
        with path.open(newline="", encoding="utf-8-sig") as file:
            return [[cell.strip() for cell in row] for row in csv.reader(file, delimiter=tab)]
    except FileNotFoundError:
        raise ConfigError("no such table", where=str(path), next_step="check the path") from None
    except Exception as error:  # openpyxl raises many unrelated classes for damaged files
        raise ConfigError("this table cannot be read", found=type(error).__name__, where=str(path)) from None


def records(rows: list[list[str]], header_row: int = 0) -> list[dict[str, str]]:
    """Rows below the header as mappings by column name."""
    names = rows[header_row] if len(rows) > header_row else []
    return [dict(zip(names, row, strict=False)) for row in rows[header_row + 1 :] if any(row)]
