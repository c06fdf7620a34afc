"""The main job on real images with the phantom-trained demo model: what its gates say.

    python benchmarks/real_input.py --data REAL_DATA --run runs/duke_phantom

REAL_DATA holds A1 (glioma NIfTI), A5 (breast lesion NRRD) and A7 (spoiled gradient echo DICOM). Header values that the
files do not carry are stated by flag. Contact sheets are kept in `runs/real_input/`.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow.parquet as pq
from _record import record

STATED = "manufacturer=SIEMENS,field_strength_t=1.5,scan_options=PFP,flip_angle_deg=10,echo_time_ms=1.4"
STATED += ",repetition_time_ms=4.3"
# name: (files to copy, flags)
INPUTS = {
    "A5 breast lesion, NRRD": (
        "A5_pyradiomics/breast1_*.nrrd",
        ["--layout", "nrrd", "--channels", "t1=*_image.nrrd", "--set", f"{STATED},slice_thickness_mm=2"],
    ),
    "A7 spoiled gradient echo, DICOM": ("A7_dicom/siemens_prisma_gre_pfp/*", ["--layout", "dicom", "--channels", "t1"]),
    "A1 glioma T1, NIfTI": (
        "A1_*/*_t1_bet.nii.gz",
        [
            "--layout",
            "nifti",
            "--channels",
            "t1=*_t1_bet.nii.gz",
            "--set",
            f"{STATED},slice_thickness_mm=1",
            "--drop-end-slices",
            "40",
        ],
    ),
}


def main() -> None:
    """Run the job on each input and record its counts and reasons."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="../shared/data")
    parser.add_argument("--run", default="runs/duke_phantom")
    parser.add_argument("--policy", default="duke_acquisition")
    flags = parser.parse_args()
    figures = {}
    for name, (pattern, extra) in INPUTS.items():
        out = Path("runs/real_input") / name.split(" ")[0]
        shutil.rmtree(out, ignore_errors=True)
        with tempfile.TemporaryDirectory() as folder:
            for file in Path(flags.data).glob(pattern):
                shutil.copy(file, folder)
            command = [sys.executable, "jobs/augment_duke.py", "--data", folder, "--out", str(out.absolute())]
            command += ["--checkpoint", f"{flags.run}/model/checkpoint", "--policy", flags.policy, *extra]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        counts, reasons = {}, {}
        for outcome in ("accepted", "rejected", "failed", "skipped"):
            tables = [pq.read_table(p) for p in sorted((out / "augmented" / outcome).glob("*.parquet"))]
            counts[outcome] = sum(t.num_rows for t in tables)
            for table in tables:
                for reason in table["reason"].to_pylist() if "reason" in table.column_names else ():
                    gates = ", ".join(part.split(" = ")[0] for part in reason.split("; "))
                    reasons[gates] = reasons.get(gates, 0) + 1
        figures[name] = {"flags": extra, "exit_code": done.returncode, "rows": counts, "reasons": reasons}
        print(name, figures[name], done.stderr.strip()[-300:], sep="\n  ")
    print(record("real_input", figures))


if __name__ == "__main__":
    main()
