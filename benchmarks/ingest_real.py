"""The folder of real MRI goes in; a table of what each file set became, and its JSON record, come out.

    python benchmarks/ingest_real.py [FOLDER]

FOLDER defaults to AUGENGINE_REAL_DATA or ../shared/data. Runs on Ray, as jobs/ingest.py does.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from _record import record
from rich.console import Console
from rich.table import Table

from augengine.io.labels import SCHEMES
from augengine.io.sources import SourceOptions
from augengine.pipeline.cluster import connect, user_errors
from augengine.pipeline.ingest import ingest

ROOT = Path(__file__).resolve().parents[1]
LESION = {"lesion": 1}
RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "A1 glioma, NIfTI": (
        "A1_brats21style_TCGA-FG-6692",
        {
            "labels": dict(SCHEMES["brats2021"]),
            "scheme": "brats2021",
            "mask": "seg_simple.nii.gz",
            "channels": {"t1": "*_t1_bet.*", "t1c": "*_t1c_bet.*", "t2": "*_t2_bet.*", "flair": "*_fla_bet.*"},
        },
    ),
    "A3 multiple sclerosis, NIfTI": (
        "A3_ms_patient19_mni",
        {
            "labels": LESION,
            "mask": "GOLD_STANDARD_*",
            "channels": {"t1": "T1_*", "t1c": "T1POST_*", "t2": "T2_*", "flair": "FLAIR_*"},
        },
    ),
    "A5 tumours, NRRD": ("A5_pyradiomics", {"labels": LESION, "public_ids": True}),
    "A7 DICOM": ("A7_dicom", {}),
    "A7 DICOM, --allow-echo-planar": ("A7_dicom", {"allow_echo_planar": True}),
}


def main(folder: Path) -> None:
    """Ingest every set, print the table, write the record."""
    with user_errors():
        connect()
        table = Table("set", "files", "rows", "failed because")
        figures = []
        for name, (sub, options) in RUNS.items():
            started = time.perf_counter()
            with tempfile.TemporaryDirectory() as out:
                summary = ingest(folder / sub, out, options=SourceOptions(**options))
            for source in summary["sources"]:
                table.add_row(name, source["entry"], str(source["rows"]), source["reason"] or "")
            figures.append(
                {
                    "set": name,
                    "found": summary["found"],
                    "counts": summary["counts"],
                    "seconds": round(time.perf_counter() - started, 2),
                    "volumes": [{k: s[k] for k in ("entry", "rows", "stage", "reason")} for s in summary["sources"]],
                }
            )
        Console(width=160).print(table)
        for f in figures:
            print(f"{f['set']}: {f['found']['volumes']} volumes found, {f['counts']}, {f['seconds']} s")
        record("ingest_real", {"sets": figures})


if __name__ == "__main__":
    default = os.environ.get("AUGENGINE_REAL_DATA", str(ROOT.parent / "shared" / "data"))
    main(Path(sys.argv[1] if len(sys.argv) > 1 else default))
