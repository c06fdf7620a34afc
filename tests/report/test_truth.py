"""The yardstick itself: errors against the rendered truth, the histogram baseline, and the table end to end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import GE, SIEMENS, slice_sample, write_checkpoint
from scipy.ndimage import gaussian_filter

from augengine.intensity import normalise
from augengine.io.shards import to_bytes, to_table
from augengine.io.store import Store
from augengine.phantom.cohort import Cohort
from augengine.phantom.protocols import without_fat_saturation
from augengine.pipeline.units import INLINE
from augengine.policy.spec import Sampler
from augengine.prepare import Preparation, prepare
from augengine.records import Sample
from augengine.report.classical import PooledHistograms, protocol_group
from augengine.report.truth import errors, evaluate, plot

COHORT = Cohort(subjects=4, seed=1, matrix=64, slices=6)
PREPARATION = Preparation(size=48)


def test_errors_know_offset_blur_and_noise() -> None:
    truth = normalise(slice_sample(1, size=64))
    mask = np.ones((64, 64), bool)
    assert errors(truth + 0.1, truth, mask)["psnr_db"] == pytest.approx(20, abs=0.01)
    assert errors(truth + 0.1, truth, mask)["rmse"] == pytest.approx(0.1, abs=1e-4)
    assert errors(truth, truth, mask)["texture_ratio"] == pytest.approx(1)
    blurred = gaussian_filter(truth, (0, 1.5, 1.5))
    assert errors(blurred, truth, mask)["texture_ratio"] < 0.5
    noisy = truth + np.random.default_rng(0).normal(0, 0.2, truth.shape)
    assert errors(noisy, truth, mask)["texture_ratio"] > 1.5


def test_histogram_matching_recovers_a_monotone_contrast_and_not_a_flipped_one() -> None:
    targets = [slice_sample(n, acquisition=GE) for n in range(6)]
    histograms = PooledHistograms.fit(targets)
    true = targets[0]
    normalised = normalise(true)
    monotone, flipped = (
        true.replace(image=(f(normalised) * 670 + 30).astype(np.float32), acquisition=SIEMENS)
        for f in (lambda x: 0.5 * x**2 + 0.1 * x, lambda x: 1.2 - x)
    )
    mask = normalised[0] > 0.2
    error = {
        name: float(np.abs(histograms.match(sample, GE) - normalised)[:, mask].mean())  # type: ignore[operator]
        for name, sample in (("monotone", monotone), ("flipped", flipped))
    }
    assert error["monotone"] < 0.05 < 0.2 < error["flipped"]
    assert histograms.match(true, GE.replace(manufacturer="PHILIPS")) is None
    assert protocol_group(GE) != protocol_group(without_fat_saturation(GE))


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Store]:
    folder = tmp_path_factory.mktemp("truth")
    samples: list[Sample] = []
    for index in range(COHORT.subjects):
        split = "train" if index < 2 else "test"
        samples += [s.replace(split=split) for s in prepare(COHORT.scan(index), PREPARATION)]
    Store(str(folder / "data")).write("part-0.parquet", to_bytes(to_table(samples)))
    checkpoint = write_checkpoint(folder / "model", size=48, channels=samples[0].channels)
    samplers = {"structure": Sampler(steps=2), "sdedit": Sampler(solver="ddpm", steps=2, strength=0.05, guidance=3)}
    out = str(folder / "out")
    summary = evaluate(str(folder / "data"), out, checkpoint, COHORT, PREPARATION, samplers, actors=INLINE)
    return summary, Store(out)


def test_the_table_holds_every_method_on_held_out_subjects_and_both_kinds_of_pairs(measured: Any) -> None:
    summary, store = measured
    assert summary["subjects"] == 2
    assert set(summary["pairs"]) == {"flipping", "same order"}
    for methods in summary["pairs"].values():
        assert {"identity", "structure", "sdedit", "structure, untrained"} <= set(methods)
    assert (
        summary["pairs"]["flipping"]["identity"]["psnr_db"] < summary["pairs"]["same order"]["identity"]["psnr_db"] - 5
    )
    assert json.loads(store.read("truth.json")) == json.loads(json.dumps(summary))
    assert Path(plot(summary, store)).read_bytes()[:4] == b"\x89PNG"
