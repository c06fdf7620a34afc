"""The paper-size recipes run through Ray Train: the benchmark's own command, for two steps on small images."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = ["benchmarks/train_throughput.py", "--steps", "2", "--batch-size", "1", "--size-factor", "0.15"]


@pytest.mark.slow
def test_paper_size_recipes_train(tmp_path: Path) -> None:
    results = tmp_path / "results"
    quiet = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "AUGENGINE_BENCHMARK_RESULTS": str(results)}
    done = subprocess.run(
        [sys.executable, *COMMAND, "--root", str(tmp_path / "runs")],
        env=quiet,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    figures = json.loads((results / "train_throughput.json").read_text())["figures"]
    assert set(figures) == {"cddgm", "seg_m3", "pcf_vae", "pcf_dit", "label_autoencoder", "label_ldm"}
    assert all(f["steps"] == 2 and f["gflop_per_row"] > 0.1 and 0 < f["loss"] < 100 for f in figures.values())
    assert figures["cddgm"]["trainable"] == pytest.approx(36.5e6, rel=0.02)
    assert figures["pcf_dit"]["trainable"] == pytest.approx(130e6, rel=0.02)
    assert figures["label_ldm"]["image"] == [32, 32, 32]
