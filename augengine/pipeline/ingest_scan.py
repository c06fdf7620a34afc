"""Entries of a folder go in; the volumes that their headers show, and the files that no volume uses, come out.

Headers are read by workers, or in this process; no pixels are. What cannot be scanned becomes a volume with an error.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from augengine.errors import AugengineError, DataError
from augengine.io.sources import Entry, Listing, Reader, Source, Unused, pseudonym
from augengine.rng import canonical_json

Progress = Callable[[str, int, int, Mapping[str, int]], None]


def scan(
    reader: Reader, listing: Listing, inline: bool, progress: Progress | None
) -> tuple[list[Source], list[Unused]]:
    """Volumes and unused files of all entries, each in the order of their names."""
    sources: list[Source] = []
    unused: list[Unused] = []
    for n, found in enumerate(_scanned(reader, listing.entries, inline), 1):
        sources += [Source.from_json(s) for s in found["sources"]]
        unused += [Unused(**u) for u in found["unused"]]
        if progress:
            progress("headers", n, len(listing.entries), {"volumes": len(sources)})
    return sorted(sources, key=lambda s: (s.volume_id, s.entry)), sorted(unused, key=lambda u: u.path)


def _scanned(reader: Reader, entries: Sequence[Entry], inline: bool) -> Iterator[dict[str, Any]]:
    if inline:
        yield from (scan_entry(reader, entry) for entry in entries)
        return
    import ray

    items = [{"entry": json.dumps(entry)} for entry in entries]
    dataset = ray.data.from_items(items, override_num_blocks=min(len(items), 200)).map(_scan_row, fn_args=(reader,))
    for row in dataset.iter_rows():
        yield json.loads(row["found"])


def _scan_row(row: dict[str, Any], reader: Reader) -> dict[str, str]:
    return {"found": json.dumps(scan_entry(reader, json.loads(row["entry"])))}


def scan_entry(reader: Reader, entry: Entry) -> dict[str, Any]:
    """`sources` and `unused` of one entry as JSON; an entry that cannot be scanned is one source with an error.

    A file of the entry that the reader neither used nor named is a fault of the reader, and fails the entry.
    """
    try:
        found = reader.scan(entry)
        used = {file for source in found.sources for file in source.files}
        passed_over = len(set(reader.files(entry)) - used) - sum(item.files for item in found.unused)
        if passed_over:
            raise DataError("every file must be used or named", found=f"{passed_over} of this folder are neither")
        return {
            "sources": [s.to_json() for s in found.sources],
            "unused": [dataclasses.asdict(u) for u in found.unused],
        }
    except Exception as error:  # one bad folder must not stop the others; it is listed with its reason
        subject = pseudonym(canonical_json(entry), reader.options.pseudonym_key)
        where = str(entry.get("folder") or entry.get("entry"))
        failed = Source(subject, subject, where, {"files": reader.files(entry)})
        text = reason(error, Source(subject, subject, where), reader.root)
        return {"sources": [dataclasses.replace(failed, error=text).to_json()], "unused": []}


def reason(error: Exception, source: Source, root: Path) -> str:
    """What went wrong, without paths and file names: they may name a patient.

    The project's own errors keep places apart from their text (`where`); others are searched for names.
    """
    if isinstance(error, AugengineError):
        return str(type(error)(error.rule, found=error.found, next_step=error.next_step))
    text = f"{type(error).__name__}: {error}"
    names = {str(root), *root.parts, *Path(source.entry).parts, *re.findall(r"[^\"'/\\]+", canonical_json(source.spec))}
    for name in sorted((n for n in names if len(n) > 2), key=len, reverse=True):
        text = text.replace(name, "…")
    return text
