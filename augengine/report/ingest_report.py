"""What an ingest did, or would do, in; tables of files, subjects, rows and reasons on the console out."""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from augengine.errors import RunError
from augengine.io.sources import Source, Unused
from augengine.pipeline.cluster import in_ray_job
from augengine.report.console import console
from augengine.told import tell

LINES = 12
NAMED = 20
_HIDDEN = "not in a cluster's log"


def ledger_table(summary: Mapping[str, Any], hidden: bool = False) -> Table:
    """Files of each volume (`hidden`: not their names), its rows, and notes or why it failed; failures first."""
    table = Table()
    for name in ("files", "subject", "split", "rows", "notes, or why it failed"):
        table.add_column(name, overflow="fold", justify="right" if name == "rows" else "left")
    ordered = sorted(summary["sources"], key=lambda s: s["reason"] is None)
    for source in ordered[:LINES]:
        failed = source["reason"] is not None
        text = f"{source['stage']}: {source['reason']}" if failed else "; ".join(source["notes"])
        cells = (
            _HIDDEN if hidden else source["entry"],
            source["subject_id"],
            source["split"] or "-",
            str(source["rows"]),
            text,
        )
        table.add_row(*map(escape, cells), style="red" if failed else None)
    if len(ordered) > LINES:
        table.add_row(f"… and {len(ordered) - LINES} more", "", "", "", "")
    return table


def print_ledger(summary: Mapping[str, Any], uri: str) -> None:
    """The table, the counts, and where the shards are."""
    counts, found = summary["counts"], summary["found"]
    tell(
        data=uri,
        found=found,
        counts=counts,
        subjects_by_split=summary["subjects_by_split"],
        files=summary["input_files"],
        units={"made": summary["made"], "there": summary["skipped"]},
    )
    console.print(ledger_table(summary, hidden=in_ray_job()))  # a cluster keeps its logs, and others read them
    console.print(
        f"{found['volumes']} volumes of {found['subjects']} subjects found = {counts['volumes']} ingested "
        f"({counts['samples']} samples) + {counts['failed']} failed; subjects by split: "
        + ", ".join(f"{name} {n}" for name, n in summary["subjects_by_split"].items())
    )
    _print_files(summary["input_files"])
    _print_notes([note for source in summary["sources"] for note in source["notes"]])
    print_hint(summary["hint"])
    console.print(f"units made {summary['made']}, already committed {summary['skipped']}; shards: {uri}")


def print_preview(sources: Sequence[Source], splits: Mapping[str, str], files: Mapping[str, Any]) -> None:
    """Which volumes would be one subject, at which site and in which split; subjects of several volumes first.

    In a cluster's log without paths, which may name a patient.
    """
    by_subject: dict[str, list[Source]] = defaultdict(list)
    for source in sources:
        by_subject[source.subject_id].append(source)
    table = Table()
    for name in ("subject", "site", "split", "volumes", "paths, or why not"):
        table.add_column(name, overflow="fold", justify="right" if name == "volumes" else "left")
    ordered = sorted(by_subject.items(), key=lambda item: (-len(item[1]), item[0]))
    for subject, group in ordered[:LINES]:
        sites = ", ".join(sorted({s.site or "-" for s in group}))
        paths = [(_HIDDEN if in_ray_job() else s.entry, s.error) for s in group]
        texts = [f"{path}: {error}" if error else path for path, error in paths]
        shown = texts[:3] + ([f"… and {len(texts) - 3} more"] if len(texts) > 3 else [])
        cells = (subject, sites, splits.get(subject, "-"), str(len(group)), "\n".join(shown))
        table.add_row(*map(escape, cells))
    if len(ordered) > LINES:
        table.add_row(f"… and {len(ordered) - LINES} more", "", "", "", "")
    console.print(table)
    failed = sum(s.error is not None for s in sources)
    console.print(f"{len(sources)} volumes of {len(by_subject)} subjects, {failed} of them cannot be used")
    _print_files(files)


def _print_notes(notes: Sequence[str]) -> None:
    """How many volumes have which notes; those that differ in numbers alone are one line."""
    kinds: dict[str, list[str]] = defaultdict(list)
    for note in notes:
        kinds[re.sub(r"\d+(\.\d+)?", "…", note)].append(note)
    for kind, same in sorted(kinds.items(), key=lambda item: -len(item[1]))[:LINES]:
        text = same[0] if len(set(same)) == 1 else kind
        console.print(f"  {len(same)} volume{'s' * (len(same) > 1)}: {escape(text)}")


def print_hint(hint: str | None) -> None:
    """What the user should know, if there is anything; in a cluster's log without patterns made of patients' names."""
    if hint is not None:
        hint = re.sub(r"--subject '[^']*'", "--subject REGEX", hint, count=1) if in_ray_job() else hint
        console.print(f"note: {escape(hint)}", style="yellow")


def print_unused(unused: Sequence[Unused], file: Path | None = None) -> None:
    """Files that no volume uses, with reasons; all of them go to `file`, if one is given.

    Raises:
        RunError: the file cannot be written.
    """
    for item in () if in_ray_job() else unused[:NAMED]:
        count = f" ({item.files} files)" if item.files > 1 else ""
        console.print(f"  not used: {escape(item.path)}{count}: {escape(item.reason)}")
    if len(unused) > NAMED and not in_ray_job():
        console.print(f"  … and {len(unused) - NAMED} more; --unused FILE writes all of them")
    if file is not None:
        try:
            with file.open("w", newline="", encoding="utf-8", errors="surrogateescape") as out:
                rows = csv.writer(out, delimiter="\t")
                rows.writerow(("path", "files", "reason"))
                rows.writerows((item.path, item.files, item.reason) for item in unused)
        except OSError as error:
            raise RunError("cannot write the list of files", found=error.strerror, where=str(file)) from None


def _print_files(files: Mapping[str, Any]) -> None:
    unused = files["unused"]
    reasons = "; ".join(f"{n} {why}" for why, n in unused.items())
    console.print(
        f"{files['found']} files found = {files['used']} used + {files['failed']} of failed volumes + "
        f"{sum(unused.values())} not used" + (f" ({reasons})" if unused else "")
    )
