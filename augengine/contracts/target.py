"""What every target of exports must keep: all cases in files, equal bytes for equal rows, options that can be told."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from augengine.contracts.base import Checks, must, own_code
from augengine.export.record import RECORD
from augengine.export.run import export
from augengine.export.target import Target
from augengine.io.dataset import write_dataset
from augengine.io.shards import to_table
from augengine.io.store import Store
from augengine.pipeline.units import Actors
from augengine.records import Sample
from augengine.rng import canonical_json
from augengine.selection import Request


@dataclass(frozen=True)
class TargetCase:
    """A target with its default options, and rows to export."""

    target: Target
    samples: Sequence[Sample]

    @cached_property
    def files(self) -> dict[str, bytes]:
        """Every file of one export."""
        return self.exported()

    def exported(self) -> dict[str, bytes]:
        """Every file of an export of the rows, by name; its folder is called `export`."""
        rows = [s.replace(split=split) for s, split in zip(self.samples, ("train", "train", "val"), strict=False)]
        with tempfile.TemporaryDirectory() as folder, own_code("the export of three rows"):
            data = write_dataset(str(Path(folder, "data")), [to_table(rows)]).uri
            out = Path(folder, "export")
            export(self.target, Request.of([data], ()), Store(str(out)), actors=Actors(inline=True))
            paths = [path for path in sorted(out.rglob("*")) if path.is_file()]
            return {path.relative_to(out).as_posix(): path.read_bytes() for path in paths}


def holds_every_case(case: TargetCase) -> None:
    """An export runs, and every case stands in a file of it."""
    files = [name for name in case.files if name != RECORD]
    must(bool(files), "an export holds files", found=sorted(case.files), mend="yield them in files")


def repeats(case: TargetCase) -> None:
    """Equal rows give equal bytes."""
    again = case.exported()
    apart = sorted(name for name in case.files.keys() | again.keys() if case.files.get(name) != again.get(name))
    apart = [name for name in apart if name != RECORD]  # it names the folder that the rows lay in
    must(not apart, "equal rows give equal bytes", found=apart[:1], mend="write no times, paths or random names")


def tells_its_options(case: TargetCase) -> None:
    """`identity` is plain JSON."""
    with own_code("identity"):
        canonical_json(case.target.identity())


CHECKS: Checks[TargetCase] = {
    "every case stands in a file": holds_every_case,
    "equal rows give equal bytes": repeats,
    "its options can be told": tells_its_options,
}
