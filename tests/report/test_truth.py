"""The yardstick itself: errors against the rendered truth, the histogram baseline, and the table end to end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import GE, SIEMENS, contrast_spec, slice_sample, write_checkpoint, write_samples
from scipy.ndimage import gaussian_filter

from augengine.diffusion.build import build
from augengine.diffusion.checkpoint import save_model, subject_hash, untrained_model
from augengine.diffusion.conditions import Vocabulary
from augengine.diffusion.discriminative import PredictorSpec
from augengine.diffusion.spec import ModelSpec
from augengine.errors import DataError
from augengine.intensity import normalise
from augengine.io.store import Store
from augengine.phantom.cohort import Cohort
from augengine.phantom.protocols import duke_protocols, without_fat_saturation
from augengine.pipeline.units import INLINE
from augengine.policy.spec import Sampler
from augengine.prepare import Preparation, prepare
from augengine.records import Sample
from augengine.report.classical import PooledHistograms, protocol_group
from augengine.report.truth import errors, evaluate, measured_rows, plot, split_rows

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


def test_matching_by_tissue_follows_a_flip_of_tissues() -> None:
    targets = [slice_sample(n, acquisition=GE) for n in range(6)]
    true, names = normalise(targets[0]), {"dark": 1, "bright": 2}
    label = (1 + (true[0] > np.median(true[0][true[0] > 0.2]))).astype(np.uint8)
    flipped = targets[0].replace(
        image=((1.2 - true) * 670 + 30).astype(np.float32), acquisition=SIEMENS, label=label, labels=names
    )
    labelled = [targets[0].replace(label=label, labels=names)]
    error = {
        by_tissue: float(
            np.abs(PooledHistograms.fit(labelled, by_tissue=by_tissue).match(flipped, GE) - true).mean()  # type: ignore[operator]
        )
        for by_tissue in (False, True)
    }
    assert error[True] < 0.6 * error[False]  # the order of the tissues is right, that within them is not


def test_one_power_undoes_a_power() -> None:
    true = np.random.default_rng(0).uniform(0.2, 1, (1, 48, 48)).astype(np.float32)
    target = slice_sample(1, size=48, acquisition=GE).replace(image=true * 670 + 30)
    power = target.replace(image=true**2 * 670 + 30, acquisition=SIEMENS)
    histograms = PooledHistograms.fit([target])
    recovered = histograms.gamma(power, GE)
    assert recovered is not None
    assert np.abs(recovered - true).max() < 0.02
    assert histograms.gamma(power, GE.replace(manufacturer="PHILIPS")) is None


def test_a_row_is_held_out_if_no_scan_can_have_been_made_with_it() -> None:
    rows = duke_protocols()
    scans = [rows[0].acquisition(0.1), without_fat_saturation(rows[25].acquisition(0.9))]
    sets = split_rows(scans)
    assert rows[0] in sets["seen"]
    # Without saturation, an Avanto's FS and SFS rows of one thickness cannot be told apart: both count as seen.
    assert {(p.scan_options, p.slice_thickness_mm) for p in sets["seen"][1:]} == {("PFP\\FS", 1.1), ("PFP\\SFS", 1.1)}
    assert len(sets["seen"]) == 3
    assert len(sets["held out"]) == len(rows) - 3


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Store]:
    folder = tmp_path_factory.mktemp("truth")
    samples: list[Sample] = []
    for index in range(COHORT.subjects):
        split = "train" if index < 2 else "test"
        samples += [s.replace(split=split) for s in prepare(COHORT.scan(index), PREPARATION)]
    write_samples(folder / "data", samples, per_file=len(samples))
    checkpoint = write_checkpoint(folder / "model", size=48, channels=samples[0].channels)
    samplers = {"structure": Sampler(steps=2), "sdedit": Sampler(solver="ddpm", steps=2, strength=0.05, guidance=3)}
    contrast = contrast_spec(samples[0].channels, size=48).model_copy(update={"untrained_seed": 1})
    save_model(Store(folder / "contrast"), contrast, untrained_model(contrast, seed=1).network.state_dict())
    out = str(folder / "out")
    summary = evaluate(
        str(folder / "data"),
        out,
        checkpoint,
        COHORT,
        PREPARATION,
        {**samplers, "local_contrast": Sampler()},
        models={"local_contrast": str(folder / "contrast")},
        predictor=write_predictor(str(folder / "predictor"), "S100"),
        actors=INLINE,
    )
    return summary, Store(out)


def write_predictor(folder: str, subject: str) -> str:
    """A small acquisition predictor with random weights that says `subject` trained it."""
    spec = ModelSpec(
        kind="acquisition_predictor",
        network=PredictorSpec(width=8, norm_groups=4),
        channels=("t1",),
        vocabulary=Vocabulary.fit(p.acquisition(0.5) for p in duke_protocols()),
        image_size=(48, 48),
        spacing_mm=(2.0, 2.0),
        subject_hashes=(subject_hash(subject),),
    )
    save_model(Store(folder), spec, build(spec, seed=0).state_dict())
    return folder


def test_the_table_holds_every_method_on_held_out_subjects_and_both_kinds_of_pairs(measured: Any) -> None:
    summary, store = measured
    assert summary["subjects"] == 2
    assert set(summary["pairs"]) == {"flipping", "same order"}
    for methods in summary["pairs"].values():
        assert {"identity", "structure", "sdedit", "local_contrast", "structure, untrained"} <= set(methods)
        assert methods["truth without noise"]["rmse"] < 0.5 * methods["identity"]["rmse"]
    assert (
        summary["pairs"]["flipping"]["identity"]["psnr_db"] < summary["pairs"]["same order"]["identity"]["psnr_db"] - 5
    )
    assert json.loads(store.read("truth.json")) == json.loads(json.dumps(summary))
    for row in measured_rows(store).to_pylist():
        assert row["rmse_body"] == pytest.approx(row["rmse"])
        low, high = sorted((row["rmse_tissue"], row["rmse_rest"]))
        assert low <= row["rmse_body"] * 1.2
        assert row["rmse_body"] <= high * 1.2
    assert Path(plot(summary, store)).read_bytes()[:4] == b"\x89PNG"


def test_the_gain_is_of_rows_whose_vendor_changes_and_0_without_an_edit(measured: Any) -> None:
    _, store = measured
    rows = measured_rows(store).to_pylist()
    gains = {m: [r["vendor_gain"] for r in rows if r["method"] == m] for m in ("identity", "truth without noise")}
    assert any(np.isnan(g) for g in gains["identity"])
    assert [np.isnan(g) for g in gains["identity"]] == [np.isnan(g) for g in gains["truth without noise"]]
    assert np.nanmax(np.abs(gains["identity"])) < 1e-6 < np.nanmax(np.abs(gains["truth without noise"]))


def test_a_predictor_of_a_test_subject_is_refused(measured: Any, tmp_path: Path) -> None:
    _, store = measured
    folder = Path(store.uri).parent
    known = write_predictor(str(tmp_path / "predictor"), COHORT.subject_id(2))
    with pytest.raises(DataError, match="judges only subjects that did not train it"):
        evaluate(
            str(folder / "data"),
            str(tmp_path / "out"),
            str(folder / "model"),
            COHORT,
            PREPARATION,
            {},
            predictor=known,
            actors=INLINE,
        )
