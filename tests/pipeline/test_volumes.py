"""Volumes from a phantom's files to pictures: every policy through what the job calls, and what looks at its rows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
import yaml
from builders import lesion_sample, tiny_spec, write_samples
from typer.testing import CliRunner

from augengine import workflow
from augengine.cli import app
from augengine.diffusion.checkpoint import read_spec, save_model, untrained
from augengine.diffusion.spec import Kind
from augengine.io.commits import committed_files
from augengine.io.shards import iter_samples
from augengine.io.store import Store
from augengine.load import load_policy
from augengine.phantom.brain import CHANNELS
from augengine.phantom.brain_cohort import BrainCohort
from augengine.phantom.cohort import Cohort
from augengine.pipeline.augment import augment
from augengine.pipeline.phantom import shard_cohort
from augengine.pipeline.units import INLINE
from augengine.policy.spec import Sampler
from augengine.prepare import Preparation, prepare
from augengine.records import Sample
from augengine.report.truth import evaluate, plot

ROOT = Path(__file__).parents[2]
COHORT = BrainCohort(subjects=5, seed=3, matrix=32, slices=16)
# Voxels of 12 mm: 16 x 16 in the plane, about half as many along the body.
PREPARATION = Preparation(slices=False, size=16)
MODELS: dict[str, dict[str, Kind]] = {
    "acquisition": {"generator": "acquisition"},
    "tumor_removal": {"generator": "painter"},
    "tumor_relocation": {"generator": "painter"},
    "synthetic_labels": {"prior": "label_prior", "painter": "painter"},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Five subjects of two sites, as shards of volumes; three train."""
    folder = str(tmp_path_factory.mktemp("volumes") / "data")
    shard_cohort(COHORT, folder, PREPARATION, fractions=(0.6, 0.2, 0.2), actors=INLINE)
    return folder


def stored(uri: str, kind: str) -> list[dict[str, Any]]:
    store = Store(uri)
    return [row for name in committed_files(store, kind) for row in store.parquet(name).read().to_pylist()]


def rows(uri: str, kind: str) -> list[Sample]:
    store = Store(uri)
    return list(iter_samples(store, committed_files(store, kind)))


def checkpoints(folder: Path, edit: str, like: Sample) -> dict[str, str]:
    """Untrained models of volumes, one for each role."""
    found = {}
    for role, kind in MODELS[edit].items():
        spec = tiny_spec(kind, channels=CHANNELS, axes=3).model_copy(
            update={
                "image_size": like.image.shape[1:],
                "spacing_mm": like.spacing_mm,
                "labels": ("enhancing", "necrosis", "oedema"),
            }
        )
        save_model(Store(folder / role), spec, untrained(spec, 1).network.state_dict())
        found[role] = str(folder / role)
    return found


def loosened(folder: Path, edit: str) -> str:
    """The shipped policy with few steps, whose gates measure and let every finite value pass."""
    policy = yaml.safe_load((ROOT / f"augengine/policies/brats_{edit}.yaml").read_text())
    policy["sampler"]["steps"] = 2
    policy["gates"] = [{"name": gate["name"], "min": -1e9} for gate in policy["gates"]]
    policy["output"]["retries"] = 0
    if "prior" in policy["params"]:
        policy["params"]["prior"]["steps"] = 2
        policy["params"]["candidates"] = policy["params"]["places"] = 2
    path = folder / f"{edit}.yaml"
    path.write_text(yaml.safe_dump(policy))
    return str(path)


@pytest.mark.parametrize("edit", MODELS)
def test_a_policy_runs_on_volumes_to_the_last_picture(
    edit: str, data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workflow, "connect", lambda: None)
    sources = {s.sample_id: s for s in rows(data, "samples")}
    job = workflow.Job(
        str(tmp_path / "out"),
        loosened(tmp_path, edit),
        "unused.yaml",
        data,
        checkpoints(tmp_path / "models", edit, next(iter(sources.values()))),
        actors=INLINE,
    )
    summary = workflow.run_on_data(job)
    # A lesion on the midline has no other side to compare its place with, which fails the row.
    reasons = [row["reason"] for row in stored(summary.out, "rejected")]
    assert all(reason.startswith("mirror_distance = nan") for reason in reasons), reasons
    assert (summary.requested, summary.counts["accepted"] + len(reasons)) == (3, 3)
    assert summary.counts["accepted"] >= 2
    for after in rows(summary.out, "accepted"):
        assert after.provenance is not None
        before = sources[after.provenance.parent_id]
        assert (after.image.shape, after.slice_index) == ((4, 16, 16, 11), None)
        assert not np.array_equal(after.image, before.image)
        assert (after.intensity_range, after.intensity_rule) == (before.intensity_range, before.intensity_rule)
        measured = {gate["name"]: gate["value"] for gate in after.provenance.gates}
        assert np.isfinite(list(measured.values())).all()
        if edit == "acquisition":
            assert after.acquisition != before.acquisition
        else:
            painted = (after.image != before.image).any(0)
            assert painted.any((0, 1)).sum() > 1, "a volume is painted through several slices"
            assert not np.array_equal(after.label, before.label)
            assert bool((after.label > 0).any()) == (edit != "tumor_removal")
    check_pictures_and_commands(tmp_path, summary.out, data, str(job.policy), job.checkpoints)


def check_pictures_and_commands(folder: Path, out: str, data: str, policy: str, models: Mapping[str, str]) -> None:
    """The contact sheet, `replay`, `explain` and `plan` of a finished run."""
    sheet = matplotlib.image.imread(f"{out}/contact_sheet.png")
    assert sheet[..., :3].std() > 0.1, "the picture is empty"
    for output_id in (s.sample_id for s in rows(out, "accepted")):
        assert "equal, byte for byte" in invoke("replay", output_id, "--out", out)
    text = invoke("explain", output_id, "--out", out, "--picture", str(folder / "explained.png"))
    assert "accepted" in text
    picture = matplotlib.image.imread(folder / "explained.png")
    assert picture[..., :3].std() > 0.1
    given = ",".join(f"{role}={uri}" for role, uri in models.items())
    assert "outputs expected" in invoke("plan", policy, data, "--checkpoint", given)


def invoke(*args: str) -> str:
    result = CliRunner().invoke(app, list(args), env={"COLUMNS": "200"})
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


def test_a_box_around_the_lesion_is_painted_in_volumes(data: str, tmp_path: Path) -> None:
    path = Path(loosened(tmp_path, "tumor_removal"))
    policy = yaml.safe_load(path.read_text())
    policy["params"]["roi_margin_mm"] = 24.0
    path.write_text(yaml.safe_dump(policy))
    models = checkpoints(tmp_path / "models", "tumor_removal", rows(data, "samples")[0])
    summary = augment(load_policy(path), data, str(tmp_path / "out"), models, actors=INLINE)
    assert (summary.counts["failed"], summary.counts["skipped"]) == (0, 0)
    assert summary.counts["accepted"] >= 2


def test_a_step_of_another_edit_follows_on_volumes(data: str, tmp_path: Path) -> None:
    policy = yaml.safe_load((ROOT / "augengine/policies/brats_relocation_acquisition.yaml").read_text())
    for section in (policy, *policy["edits"]):
        section["gates"] = [{"name": gate["name"], "min": -1e9} for gate in section["gates"]]
    for step in policy["edits"]:
        step["sampler"]["steps"] = 2
    path = tmp_path / "policy.yaml"
    path.write_text(yaml.safe_dump(policy))
    like = rows(data, "samples")[0]
    models = {
        f"{edit}.generator": checkpoints(tmp_path / edit, edit, like)["generator"]
        for edit in ("tumor_relocation", "acquisition")
    }
    summary = augment(load_policy(path), data, str(tmp_path / "out"), models, actors=INLINE)
    assert (summary.counts["failed"], summary.counts["skipped"]) == (0, 0)
    assert summary.counts["accepted"] >= 2


@pytest.mark.parametrize("edit", ["acquisition", "tumor_removal", "tumor_relocation", "synthetic_labels"])
def test_gates_are_calibrated_on_volumes(edit: str, tmp_path: Path) -> None:
    samples = [lesion_sample(n, at_mm=(-20.0, 2.0 * n, 0.0), size=16, voxel_mm=8.0) for n in range(10)]
    data = write_samples(tmp_path / "data", samples)
    text = invoke("calibrate", f"brats_{edit}", data, "--rows", "10", "--per-defect", "2")
    assert "real rows of held-out subjects" in text
    assert "proposed" in text


def test_a_job_trains_a_model_of_volumes_and_shows_what_it_learns(
    data: str, tmp_path: Path, ray_session: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workflow, "connect", lambda: None)
    recipe = yaml.safe_load((ROOT / "augengine/recipes/cddgm_small.yaml").read_text())
    recipe |= {"steps": 4, "pictures_every": 2, "optimiser": {"batch_size": 2, "learning_rate": 1e-3}, "warp": None}
    recipe["network"] |= {"channels": [8, 16], "head_channels": 8, "unshuffle": 2, "token_dim": 16}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    job = workflow.Job(
        str(tmp_path / "out"),
        loosened(tmp_path, "acquisition"),
        str(tmp_path / "recipe.yaml"),
        data,
        workers=0,
        actors=INLINE,
    )
    summary = workflow.run_on_data(job)
    assert summary.counts["accepted"] == 3
    spec = read_spec(f"{tmp_path}/out/model/checkpoint")
    assert (spec.image_size, spec.channels) == ((16, 16, 11), CHANNELS)
    for step in (2, 4):
        picture = matplotlib.image.imread(f"{tmp_path}/out/model/pictures/step-{step:07d}.png")
        assert picture[..., :3].std() > 0.05


def test_the_truth_of_volumes_is_measured(tmp_path: Path) -> None:
    """Six voxels thick: less than the window of SSIM."""
    cohort = Cohort(subjects=4, seed=5, matrix=64, slices=4, slice_spacing_mm=20, siemens_fraction=0.5)
    preparation = Preparation(slices=False, size=20)
    samples = [
        s.replace(split="train" if n < 2 else "test")
        for n in range(cohort.subjects)
        for s in prepare(cohort.scan(n), preparation)
    ]
    assert samples[0].image.ndim == 4
    assert samples[0].image.shape[-1] < 7
    data = write_samples(tmp_path / "data", samples)
    spec = tiny_spec("acquisition", channels=samples[0].channels, axes=3).model_copy(
        update={"image_size": samples[0].image.shape[1:]}
    )
    save_model(Store(tmp_path / "model"), spec, untrained(spec, 1).network.state_dict())
    samplers = {"structure": Sampler(steps=2), "sdedit": Sampler(solver="ddpm", steps=2, strength=0.05)}
    found = evaluate(data, str(tmp_path / "out"), str(tmp_path / "model"), cohort, preparation, samplers, actors=INLINE)
    assert found["subjects"] == 2
    for methods in found["pairs"].values():
        assert methods["truth without noise"]["rmse"] < 0.7 * methods["identity"]["rmse"]
    assert Path(plot(found, Store(tmp_path / "out"))).read_bytes()[:4] == b"\x89PNG"
