"""Phantom rows in; time to write and to read their shards with checksums and without, side by side, out.

    python benchmarks/checksum_cost.py

With: as augengine writes and reads (checksums of pages and footer, verified). Without: the same Parquet settings and
the file's sha256 for its name and record, as before there were checksums. Times are CPU seconds of this process, which
other work on the machine changes little; the two take turns, and the ratio is the median over the rounds. The bound is
1.1 for writing and for reading samples. `verify_ms` is what a command that goes on spends on each committed shard.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from _record import record
from rich.console import Console
from rich.table import Table

from augengine.io import shards
from augengine.io.parts import write_part
from augengine.io.shards import from_row, read_group, to_table
from augengine.io.store import Store
from augengine.io.verify import damaged
from augengine.phantom.cohort import Cohort
from augengine.prepare import Preparation, prepare

BOUND = 1.1


def main() -> int:
    """Take turns, print the table, write the record; 1 if a ratio exceeds the bound."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--rounds", type=int, default=21)
    flags.add_argument("--rows", type=int, default=64, help="slices of 224 x 224; as many voxels in volumes")
    given = flags.parse_args()
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, table in _tables(given.rows).items():
            figures[name] = _compared(table, Path(folder) / name.split()[0], given.rounds)
    shown = Table("rows", "step", "without, ms", "with, ms", "with / without")
    for name, steps in figures.items():
        for step, row in steps.items():
            if isinstance(row, dict):
                shown.add_row(name, step, f"{row['without_ms']:.1f}", f"{row['with_ms']:.1f}", f"{row['ratio']:.3f}")
    Console().print(shown)
    record("checksum_cost", {"rounds": given.rounds, "bound": BOUND, "rows": figures})
    bounded = [row["ratio"] for steps in figures.values() for step, row in steps.items() if step in ("write", "read")]
    return int(max(bounded) > BOUND)


def _tables(rows: int) -> dict[str, pa.Table]:
    cohort = Cohort(subjects=4, matrix=224, slices=max(1, rows // 4))
    scans = [cohort.scan(n) for n in range(4)]
    slices = [row for scan in scans for row in prepare(scan, Preparation(size=224))]
    volumes = [row for scan in scans for row in prepare(scan, Preparation(slices=False, size=224))]
    return {f"slices ({len(slices)})": to_table(slices), f"volumes ({len(volumes)})": to_table(volumes)}


def _compared(table: pa.Table, folder: Path, rounds: int) -> dict[str, Any]:
    folder.mkdir()
    store = Store(str(folder))
    part = write_part(store, "samples", "u", table)
    bare = folder / "bare.parquet"
    bare.write_bytes(_bare_bytes(table))
    steps: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "write": (lambda: _write_bare(store, table), lambda: write_part(store, "samples", "u", table)),
        "read": (lambda: _samples(pq.ParquetFile(bare)), lambda: _samples(store.parquet(part.name))),
        "read, without making samples": (
            lambda: _groups(pq.ParquetFile(bare)),
            lambda: _groups(store.parquet(part.name)),
        ),
    }
    found: dict[str, Any] = {"bytes": part.bytes}
    for step, (without, with_) in steps.items():
        pairs = [_pair(without, with_, n % 2 == 0) for n in range(rounds + 1)][1:]  # the first one fills the caches
        row: dict[str, Any] = {
            "without_ms": 1e3 * statistics.median(a for a, _ in pairs),
            "with_ms": 1e3 * statistics.median(b for _, b in pairs),
        }
        row["ratio"] = statistics.median(b / a for a, b in pairs)
        found[step] = row
    found["verify_ms"] = 1e3 * statistics.median(_cpu(lambda: damaged(store, [part])) for _ in range(rounds))
    return found


def _pair(without: Callable[[], object], with_: Callable[[], object], first: bool) -> tuple[float, float]:
    """CPU seconds of both; `first`: begin with the one without."""
    if first:
        return _cpu(without), _cpu(with_)
    later = _cpu(with_)
    return _cpu(without), later


def _cpu(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def _bare_bytes(table: pa.Table) -> bytes:
    """As `augengine.io.shards.to_bytes` without checksums."""
    sink = io.BytesIO()
    pq.write_table(
        table,
        sink,
        compression="zstd",
        compression_level=3,
        row_group_size=shards.ROW_GROUP_ROWS,
        use_dictionary=list(shards._DICTIONARY),
        write_statistics=list(shards._STATISTICS),
        write_page_index=True,
    )
    return sink.getvalue()


def _write_bare(store: Store, table: pa.Table) -> None:
    content = _bare_bytes(table)
    store.write(f"bare-{hashlib.sha256(content).hexdigest()[:12]}.parquet", content)


def _groups(file: pq.ParquetFile) -> list[pa.Table]:
    return [read_group(file, group) for group in range(file.num_row_groups)]


def _samples(file: pq.ParquetFile) -> None:
    for group in _groups(file):
        for row in group.to_pylist():
            from_row(row)


if __name__ == "__main__":
    sys.exit(main())
