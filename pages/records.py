"""The name of a benchmark in; its recorded figures out, and the line that says where they come from."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks/results"


@dataclass(frozen=True)
class Record:
    """One file of `benchmarks/results`.

    Attributes:
        figures: what was measured; of files without a head (the fuzzer's counts) the whole content.
        command, date, commit, machine: how, when and where; empty where the file does not say.
    """

    name: str
    figures: Any
    command: str
    date: str
    commit: str
    machine: str

    @property
    def source(self) -> str:
        """One line of Markdown for a page below `docs/results`: the file, the command, the day and the machine."""
        return f"{self.link}{_how(self.command, self.date, self.commit, self.machine)}."

    @property
    def link(self) -> str:
        """A link to the file, for a page below `docs/results`."""
        return f"[`{self.name}.json`](../../benchmarks/results/{self.name}.json)"


def record(name: str) -> Record:
    """The record of a benchmark.

    Raises:
        FileNotFoundError: there is no such record.
    """
    value = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    figures = value.get("figures", value)
    return Record(name, figures, *_head(value))


def part_of(name: str, part: str) -> Record:
    """One part of a record whose parts may have been made by commands of their own (`made_by`)."""
    whole = record(name)
    figures = whole.figures[part]
    head = (
        _head(figures["made_by"]) if "made_by" in figures else (whole.command, whole.date, whole.commit, whole.machine)
    )
    return Record(name, figures, *head)


def names() -> list[str]:
    """All records, sorted."""
    return sorted(path.stem for path in RESULTS.glob("*.json"))


def _head(value: dict[str, Any]) -> tuple[str, str, str, str]:
    machine = value.get("machine") or {}
    place = f"{machine['cores']} cores of {machine['cpu']}" if machine else ""
    return value.get("command", ""), value.get("date", ""), value.get("commit", ""), place


def _how(command: str, date: str, commit: str, machine: str) -> str:
    parts = [f"`{command}`" if command else "the file names no command", f"on {date}" if date else ""]
    details = ", ".join(text for text in (f"commit {commit}" if commit else "", machine) if text)
    return f": {' '.join(part for part in parts if part)}{f' ({details})' if details else ''}"
