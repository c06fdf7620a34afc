"""What an ingest did goes in; a progress bar and a table of files, rows and reasons on the console come out."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

LINES = 60


class IngestBar:
    """Context manager and callback of `ingest`: one bar for headers, one for volumes."""

    def __init__(self) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self.progress = Progress(*columns, TextColumn("{task.fields[counts]}"), console=Console(stderr=True))
        self.tasks: dict[str, Any] = {}

    def __enter__(self) -> IngestBar:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()

    def __call__(self, stage: str, done: int, total: int, counts: Mapping[str, int]) -> None:
        """Move the bar of a stage."""
        if stage not in self.tasks:
            self.tasks[stage] = self.progress.add_task(stage, counts="")
        text = ", ".join(f"{n} {name}" for name, n in counts.items() if n)
        self.progress.update(self.tasks[stage], completed=done, total=total, counts=text)


def ledger_table(summary: Mapping[str, Any]) -> Table:
    """Files of each volume, its rows, and notes or the reason why it failed; failures first."""
    table = Table("files", "subject", "split", "rows", "notes, or why it failed")
    ordered = sorted(summary["sources"], key=lambda s: s["reason"] is None)
    for source in ordered[:LINES]:
        failed = source["reason"] is not None
        text = f"[red]{source['stage']}:[/red] {source['reason']}" if failed else "; ".join(source["notes"])
        table.add_row(source["entry"], source["subject_id"], source["split"] or "-", str(source["rows"]), text)
    if len(ordered) > LINES:
        table.add_row(f"… and {len(ordered) - LINES} more", "", "", "", "")
    return table


def print_ledger(summary: Mapping[str, Any], uri: str) -> None:
    """The table, the counts, and where the shards are."""
    counts, found = summary["counts"], summary["found"]
    console = Console()
    console.print(ledger_table(summary))
    console.print(
        f"{found['volumes']} volumes of {found['subjects']} subjects found = {counts['volumes']} ingested "
        f"({counts['samples']} samples) + {counts['failed']} failed; subjects by split: "
        + ", ".join(f"{name} {n}" for name, n in summary["subjects_by_split"].items())
    )
    console.print(f"{summary['made']} units made, {summary['skipped']} were there; shards in {uri}", soft_wrap=True)
