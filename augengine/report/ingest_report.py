"""What an ingest did in; a table of files, rows and reasons on the console out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.markup import escape
from rich.table import Table

from augengine.report.console import console

LINES = 12


def ledger_table(summary: Mapping[str, Any]) -> Table:
    """Files of each volume, its rows, and notes or the reason why it failed; failures first."""
    table = Table()
    for name in ("files", "subject", "split", "rows", "notes, or why it failed"):
        table.add_column(name, overflow="fold", justify="right" if name == "rows" else "left")
    ordered = sorted(summary["sources"], key=lambda s: s["reason"] is None)
    for source in ordered[:LINES]:
        failed = source["reason"] is not None
        text = f"{source['stage']}: {source['reason']}" if failed else "; ".join(source["notes"])
        cells = (source["entry"], source["subject_id"], source["split"] or "-", str(source["rows"]), text)
        table.add_row(*map(escape, cells), style="red" if failed else None)
    if len(ordered) > LINES:
        table.add_row(f"… and {len(ordered) - LINES} more", "", "", "", "")
    return table


def print_ledger(summary: Mapping[str, Any], uri: str) -> None:
    """The table, the counts, and where the shards are."""
    counts, found = summary["counts"], summary["found"]
    console.print(ledger_table(summary))
    console.print(
        f"{found['volumes']} volumes of {found['subjects']} subjects found = {counts['volumes']} ingested "
        f"({counts['samples']} samples) + {counts['failed']} failed; subjects by split: "
        + ", ".join(f"{name} {n}" for name, n in summary["subjects_by_split"].items())
    )
    console.print(f"units made {summary['made']}, already committed {summary['skipped']}; shards: {uri}")
