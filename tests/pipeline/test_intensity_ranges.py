"""Intensity ranges from files to models: measured as asked, recorded, and refused where a model wants others."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from builders import lesion_sample, write_checkpoint, write_samples
from mri_files import write_nifti
from training_cases import drawn, samples_of, spec_of, write_rows
from typer.testing import CliRunner

from augengine import workflow
from augengine.cli import app
from augengine.diffusion.checkpoint import read_spec, save_model
from augengine.downstream.segmenters.fitting import mark
from augengine.downstream.segmenters.unet import UNet
from augengine.errors import CheckpointError, DataError, RunError
from augengine.gates import Gates
from augengine.intensity import normalise
from augengine.io.dataset import dataset_files
from augengine.io.labels import parse_labels
from augengine.io.sealed import sealed
from augengine.io.shards import iter_samples
from augengine.io.sources import SourceOptions
from augengine.io.store import Store
from augengine.load import load_mixture, load_policy
from augengine.pipeline.augment import augment
from augengine.pipeline.ingest import ingest
from augengine.pipeline.pseudo_labels import pseudo_label
from augengine.pipeline.survey import survey
from augengine.pipeline.units import INLINE
from augengine.policy.spec import GateSpec
from augengine.prepare import Preparation
from augengine.records import IntensityRule, Sample

TOPS = {"t1": 30000, "t1ce": 25000, "t2": 250, "flair": 120}
CHANNELS = ("t1", "t1c", "t2", "flair")
NONZERO = IntensityRule((1.0, 99.0), "nonzero")
POLICY = {
    "version": 1,
    "name": "ranges",
    "edit": "tumor_removal",
    "sampler": {"steps": 2},
    "params": {"labels": ["necrosis", "oedema", "enhancing"]},
    "gates": [{"name": "changed", "min": 0.0}],
    "output": {"retries": 0},
}


def brats(root: Path, cases: int = 4) -> Path:
    """Sequences whose scales differ by a factor of 250, as raw magnitudes do."""
    for n in range(cases):
        rng, case = np.random.default_rng(n), f"BraTS2021_{n:05d}"
        brain = np.zeros((32, 32, 8), bool)
        brain[5:27, 5:27] = True
        for name, top in TOPS.items():
            image = (brain * rng.uniform(0.3, 1, brain.shape) * top).astype(np.int16)
            write_nifti(root / case / f"{case}_{name}.nii.gz", image)
        label = np.zeros(brain.shape, np.uint8)
        label[8:13, 8:13, 2:6] = 2
        write_nifti(root / case / f"{case}_seg.nii.gz", label)
    return root


def options() -> SourceOptions:
    labels, scheme = parse_labels("brats2021")
    return SourceOptions(labels=labels, scheme=scheme)


def rows(uri: str) -> list[Sample]:
    store = Store(uri)
    return list(iter_samples(store, dataset_files(store)))


def policy(folder: Path) -> str:
    path = folder / "policy.yaml"
    path.write_text(yaml.safe_dump(POLICY))
    return str(path)


def painter(folder: Path, rule: IntensityRule, channels: tuple[str, ...] = CHANNELS) -> str:
    """An untrained painter of slices of 32 x 32 that was "trained" under a rule."""
    uri = write_checkpoint(folder, channels=channels, kind="painter")
    path = Path(uri, "model.json")
    path.write_text(json.dumps(sealed({**json.loads(path.read_text()), "intensity": rule.to_dict()})))
    assert read_spec(uri).intensity.rule == rule
    return uri


def test_every_sequence_keeps_its_contrast_from_files_to_rows(tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    manifest = ingest(brats(tmp_path / "in"), out, options=options(), actors=INLINE)
    assert manifest["preparation"]["percentiles"] == (10, 99)
    for sample in rows(out):
        assert sample.channels == CHANNELS
        spread = normalise(sample)[:, 5:27, 5:27].std((1, 2))
        np.testing.assert_allclose(spread, 0.2, atol=0.02)


def test_ranges_are_measured_as_asked_and_belong_to_the_run(tmp_path: Path) -> None:
    root, out = brats(tmp_path / "in"), str(tmp_path / "out")
    asked = Preparation(slices=False, percentiles=(1, 99), foreground="nonzero")
    ingest(root, out, options=options(), preparation=asked, actors=INLINE)
    for sample in rows(out):
        assert sample.intensity_rule == NONZERO
        expected = [np.percentile(channel[channel != 0], (1, 99)) for channel in sample.image]
        np.testing.assert_allclose(sample.intensity_range, expected)
    recorded = json.loads(Path(out, "manifest.json").read_text())["preparation"]
    assert (recorded["percentiles"], recorded["foreground"]) == ([1, 99], "nonzero")
    for other in ({"percentiles": (1, 98)}, {"foreground": "all"}):
        changed = Preparation(**{**asked.model_dump(), **other})
        with pytest.raises(RunError):
            ingest(root, out, options=options(), preparation=changed, actors=INLINE)


def test_flags_reach_the_rows(tmp_path: Path) -> None:
    args = ["ingest", str(brats(tmp_path / "in")), "--out", str(tmp_path / "out"), "--labels", "brats2021", "--inline"]
    for flags, message in ((["--percentiles", "99,1"], "rising"), (["--percentiles", "1,2,3"], "percentiles")):
        failed = CliRunner().invoke(app, [*args, *flags])
        assert failed.exit_code == 2
        assert message in failed.output
    done = CliRunner().invoke(app, [*args, "--percentiles", "1,99", "--foreground", "nonzero"])
    assert done.exit_code == 0, done.output
    assert {s.intensity_rule for s in rows(str(tmp_path / "out"))} == {NONZERO}


def test_a_policy_s_model_must_have_been_trained_on_such_rows(tmp_path: Path) -> None:
    data = write_samples(tmp_path / "data", [lesion_sample(n) for n in range(3)])
    other = painter(tmp_path / "model", NONZERO, ("t1", "flair"))
    with pytest.raises(CheckpointError) as error:
        augment(load_policy(policy(tmp_path)), data, str(tmp_path / "out"), {"": other}, actors=INLINE)
    assert str(error.value) == (
        f"{other}: this model was trained on percentiles 1 and 99 of nonzero voxels of each channel; found percentiles "
        "10 and 99 of all voxels of each channel; ingest again with --percentiles 1,99 --foreground nonzero, or train "
        "another model"
    )
    assert not (tmp_path / "out").exists()
    planned = CliRunner().invoke(app, ["plan", policy(tmp_path), data, "--checkpoint", other])
    assert planned.exit_code == 2
    assert "this model was trained on percentiles 1 and 99" in planned.output


def test_a_run_belongs_to_the_ranges_of_its_rows(tmp_path: Path) -> None:
    """The same pixels, ids and sizes on another scale are other data."""
    samples = [lesion_sample(n) for n in range(3)]
    wider = [s.replace(intensity_range=((0.0, 620.0), (0.0, 900.0))) for s in samples]
    ruled = [s.replace(intensity_rule=NONZERO) for s in samples]
    mixture = load_mixture(policy(tmp_path))
    digests = {
        survey(Store(write_samples(tmp_path / str(n), chosen)), mixture).digest
        for n, chosen in enumerate((samples, wider, ruled))
    }
    assert len(digests) == 3


def test_a_gate_does_not_ask_a_referee_about_rows_on_another_scale(tmp_path: Path) -> None:
    spec = spec_of("segmenter").model_copy(update={"regions": {"lesion": ("core", "rim")}})
    save_model(Store(tmp_path / "referee"), spec, drawn(spec, 3).state_dict())
    gate = {"lesion": ["core", "rim"], "model": {"ref": str(tmp_path / "referee")}}
    gates = Gates([GateSpec(name="referee_dice", min=0, options=gate)])
    row = samples_of()[0]
    (fine,) = gates(row, row)
    assert fine.error is None
    (failed,) = gates(row, row.replace(intensity_rule=NONZERO))
    assert not failed.passed
    assert "this model was trained on percentiles 10 and 99" in str(failed.error)


def test_a_segmenter_is_not_shown_rows_on_another_scale(tmp_path: Path) -> None:
    spec = spec_of("segmenter", data={"regions": {"tissue": ("grey",)}})
    save_model(Store(tmp_path / "segmenter/unet/checkpoint"), spec, drawn(spec, 3).state_dict())
    segmenter = mark(UNet, str(tmp_path / "segmenter"))
    loaded = UNet.load(segmenter)
    assert loaded.rule == IntensityRule()
    data = write_rows(tmp_path / "data", [s.replace(intensity_rule=NONZERO) for s in samples_of()])
    checkpoint = str(tmp_path / "segmenter/unet/checkpoint")
    with pytest.raises((CheckpointError, RunError), match="this model was trained on percentiles 10 and 99"):
        pseudo_label(data, checkpoint, str(tmp_path / "out"), actors=INLINE)
    with pytest.raises(CheckpointError, match="this segmenter was trained on percentiles 10 and 99"):
        loaded.normalised(rows(data))
    loaded.rule = None  # a segmenter of one's own that takes any
    assert loaded.normalised(rows(data)).shape == (4, 1, 16, 16)


def test_a_job_ingests_as_its_model_wants(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workflow, "connect", lambda: None)
    job = workflow.Job(
        str(tmp_path / "out"),
        policy(tmp_path),
        "unused.yaml",
        str(brats(tmp_path / "in")),
        {"": painter(tmp_path / "model", NONZERO)},
        "brats2021",
        options(),
        actors=INLINE,
    )
    summary = workflow.run_on_data(job)
    assert summary.counts["accepted"] > 0
    assert {s.intensity_rule for s in (*rows(f"{tmp_path}/out/data"), *rows(summary.out))} == {NONZERO}


def test_a_job_without_a_model_ingests_as_its_recipe_wants() -> None:
    recipe = workflow.read_recipe("seg_m1_small", ["intensity={foreground: nonzero}"])
    ready = workflow.Ready(load_mixture("brats_tumor_removal"), {"generator": None}, recipe)
    assert ready.ranges == {"percentiles": (10.0, 99.0), "foreground": "nonzero"}


def test_a_job_refuses_a_model_of_former_shards_before_it_reads_an_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workflow, "connect", lambda: None)
    monkeypatch.setattr(workflow, "ingest", None)  # would raise
    job = workflow.Job(
        str(tmp_path / "out"),
        policy(tmp_path),
        "unused.yaml",
        str(brats(tmp_path / "in", 1)),
        {"": painter(tmp_path / "model", IntensityRule(together=True))},
        "brats2021",
        options(),
        actors=INLINE,
    )
    with pytest.raises(CheckpointError, match=r"of all channels together; found .* of each channel"):
        workflow.run_on_data(job)


def test_training_does_not_go_on_with_rows_on_another_scale(tmp_path: Path, ray_session: None) -> None:
    """Former shards of two channels, and the same rows ingested again."""
    from augengine.train.config import read_recipe
    from augengine.train.run import train

    recipe = read_recipe(
        "seg_m1_small",
        [
            "steps=1",
            "max_minutes=null",
            "optimiser.batch_size=2",
            "network.channels=[8, 16]",
            "network.head_channels=8",
            "network.norm_groups=4",
        ],
    )
    together = [lesion_sample(n, intensity_rule=IntensityRule(together=True)) for n in range(3)]
    old = write_samples(tmp_path / "old", together)
    new = write_samples(tmp_path / "new", [lesion_sample(n) for n in range(3)])
    uri = train(recipe, old, str(tmp_path / "run"), num_workers=0, progress=lambda line: None)
    assert read_spec(uri).intensity.rule == IntensityRule(together=True)
    with pytest.raises(RunError, match="this folder holds a run with another data"):
        train(recipe, new, str(tmp_path / "run"), num_workers=0, progress=lambda line: None)
    other = read_recipe("seg_m1_small", ["intensity={percentiles: [1, 99]}"])
    asking = recipe.model_copy(update={"intensity": other.intensity})
    with pytest.raises(DataError, match="takes rows with percentiles 1 and 99"):
        train(asking, new, str(tmp_path / "other"), num_workers=0, progress=lambda line: None)
