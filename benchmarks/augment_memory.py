"""Does the augment stage's memory grow with the number of rows? Peak resident memory for 200 and 2,000 rows.

    python benchmarks/augment_memory.py

Each size runs in its own process on its own Ray with one actor; rows are 96 × 96 with labels, the generator is small
and takes one step, so that the engine is what is measured.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from _record import record

SIZES = (200, 2000)
POLICY = """\
version: 1
name: memory
edit: acquisition
params: {target: {empirical: {from: duke_protocols}}}
sampler: {steps: 1}
gates: [{name: changed, min: 0.0}]
"""


def measure(rows: int) -> dict[str, float]:
    """One run; peak MiB of the driver and of the actor."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from builders import slice_sample, write_checkpoint, write_samples

    from augengine.load import load_policy
    from augengine.pipeline.augment import augment
    from augengine.pipeline.cluster import connect
    from augengine.pipeline.committer import peak_rss_mib
    from augengine.pipeline.units import Actors

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "policy.yaml").write_text(POLICY)
        for start in range(0, rows, 200):  # written piecewise, so that the driver's peak is not this script's own
            samples = [slice_sample(start + n, size=96) for n in range(200)]
            write_samples(f"{folder}/data-{start}", samples, per_file=64)
            for file in Path(f"{folder}/data-{start}").iterdir():
                (Path(folder) / "data").mkdir(exist_ok=True)
                file.rename(Path(folder) / "data" / f"{start:05d}-{file.name}")
        checkpoint = write_checkpoint(f"{folder}/model", size=96)
        connect(num_cpus=2)
        before = peak_rss_mib()
        policy = load_policy(f"{folder}/policy.yaml")
        summary = augment(policy, f"{folder}/data", f"{folder}/out", {"generator": checkpoint}, actors=Actors(1))
        assert summary.counts["accepted"] == rows
        return {
            "rows": rows,
            "actor_peak_mib": summary.run.peak_rss_mib,
            "driver_peak_mib": peak_rss_mib(),
            "driver_before_mib": before,
            "seconds": round(summary.run.seconds, 1),
        }


def main() -> None:
    """Measure both sizes and record them."""
    if len(sys.argv) == 2:
        print(json.dumps(measure(int(sys.argv[1]))))
        return
    figures = []
    for rows in SIZES:
        out = subprocess.run([sys.executable, __file__, str(rows)], capture_output=True, text=True, check=True).stdout
        figures.append(json.loads(out.strip().splitlines()[-1]))
        print(figures[-1])
    small, large = figures
    growth = {k: round(large[k] / small[k], 3) for k in ("actor_peak_mib", "driver_peak_mib")}
    print(record("augment_memory", {"runs": figures, "growth_for_10x_rows": growth}))


if __name__ == "__main__":
    main()
