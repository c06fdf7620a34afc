"""What actors count, as Prometheus would fetch it from a real Ray."""

from __future__ import annotations

import re
import time
import urllib.request
from pathlib import Path

import pytest
from builders import slice_sample, write_checkpoint, write_samples

from augengine.load import load_policy
from augengine.pipeline.augment import augment
from augengine.pipeline.ray_metrics import REJECTS, ROWS, SECONDS, _ascii
from augengine.pipeline.units import Actors

POLICY = """\
version: 1
name: counted
edit: acquisition
params: {target: {empirical: {from: duke_protocols}}}
sampler: {steps: 2}
gates: [{name: changed, min: 0.0}, {name: out_of_range, max: -1.0}]
output: {max_reject_rate: 1.0}
"""


def series() -> dict[str, float]:
    """Every series of this project at the endpoint: name, stage, outcome and gate → value, summed over processes."""
    import ray

    port = ray.nodes()[0]["MetricsExportPort"]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    found: dict[str, float] = {}
    for name, labels, value in re.findall(r"^(ray_augengine_\w+)\{(.*)\} (\S+)$", text, re.MULTILINE):
        of = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        key = " ".join([name, *(of[k] for k in ("stage", "outcome", "gate") if k in of)])
        found[key] = found.get(key, 0) + float(value)
    return found


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session")
def test_rows_rejects_by_gate_and_seconds_reach_the_endpoint(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(POLICY)
    data = write_samples(tmp_path / "data", [slice_sample(s, i) for s in range(3) for i in range(2)], per_file=2)
    model = write_checkpoint(tmp_path / "model")
    before = series()  # of other tests on the same Ray
    made = augment(
        load_policy(tmp_path / "policy.yaml"),
        data,
        str(tmp_path / "out"),
        {"generator": model},
        actors=Actors(2),
        keep_going=True,
    )
    assert made.counts["rejected"] == 6

    def more(key: str) -> float:
        return series().get(key, 0) - before.get(key, 0)

    key, until = f"ray_{ROWS}_total augment rejected", time.monotonic() + 90
    while more(key) < 6 and time.monotonic() < until:  # a process reports every few seconds
        time.sleep(2)
    assert more(key) == 6
    assert more(f"ray_{REJECTS}_total augment out_of_range") == 6
    assert more(f"ray_{REJECTS}_total augment changed") == 0
    assert more(f"ray_{SECONDS}_count augment") == 3


def test_labels_are_what_ray_takes() -> None:
    assert _ascii("gate µ") == "gate \\xb5"
