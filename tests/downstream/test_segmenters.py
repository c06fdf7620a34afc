"""Every segmenter through one interface: what it trains, and that no truth, place or neighbour reaches `predict`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training_cases import LESION, NESTED, batch_of, drawn, recipe, samples_of, spec_of, write_rows

from augengine.contracts.segmenter import CHECKS, SegmenterCase
from augengine.diffusion.checkpoint import load_generator, read_spec, save_model
from augengine.diffusion.painting import Sampling
from augengine.downstream.segmenters import (
    SEGMENTERS,
    Segmenter,
    Training,
    dmcie,
    fitting,
    ldm_seg,
    load_segmenter,
    pcf,
    row_seeds,
    segmenter_identity,
)
from augengine.downstream.segmenters.dmcie import Dmcie
from augengine.downstream.segmenters.fitting import mark
from augengine.downstream.segmenters.ldm_seg import LdmSeg
from augengine.downstream.segmenters.pcf import Pcf, PcfOptions, Vote
from augengine.downstream.segmenters.unet import UNet
from augengine.errors import CheckpointError, ConfigError, DataError, RunError
from augengine.intensity import normalise
from augengine.io.dataset import dataset_files
from augengine.io.shards import iter_samples
from augengine.io.store import Store
from augengine.records import Provenance
from augengine.rng import canonical_json, generator

QUICK = Sampling(solver="ddim", steps=3)
# The networks that each is loaded from, by role, and what makes it quick.
NETWORKS = {
    "unet": {"unet": "segmenter_nested"},
    "dmcie": {"error": "error_corrector"},
    "ldm_seg": {"control": "label_segmenter"},
    "pcf": {"counterfactual": "counterfactual", "prompter": "segmenter_nested"},
}
PLAIN_CF = PcfOptions(prompt="none", plain=replace(QUICK, strength=0.75), prompted=QUICK)
OPTIONS: dict[str, dict[str, Any]] = {
    "unet": {},
    "dmcie": {"samples": 2, "sampling": QUICK},
    "ldm_seg": {"samples": 3, "sampling": QUICK},
    "pcf": {"options": PLAIN_CF},
}
RECIPES = {
    "unet": {"unet": "segmenter_nested"},
    "dmcie": {"unet": "segmenter_nested", "error": "error_corrector"},
    "ldm_seg": {"autoencoder": "label_autoencoder", "prior": "label_ldm", "control": "label_segmenter"},
    "pcf": {"counterfactual": "counterfactual", "prompter": "segmenter_nested"},
}
EVERY = [(name, dims) for name in SEGMENTERS for dims in (2, 3)]


def fitted(name: str, folder: Path, dims: int = 2, **options: Any) -> Any:
    """A segmenter of random networks, as `fit` would leave it."""
    for role, case in NETWORKS[name].items():
        spec = spec_of(case, dims)
        save_model(Store(folder / role / "checkpoint"), spec, drawn(spec, 3).state_dict())
    mark(SEGMENTERS[name], str(folder))
    return SEGMENTERS[name].load(str(folder), **{**OPTIONS[name], **options})


def recipes(name: str) -> dict[str, Any]:
    return {role: recipe(case) for role, case in RECIPES[name].items()}


def images_in(uri: str) -> np.ndarray:
    store = Store(uri)
    return np.stack([normalise(s) for s in iter_samples(store, dataset_files(store))])


@pytest.mark.parametrize(("name", "dims"), EVERY)
def test_no_truth_reaches_a_prediction(name: str, dims: int, tmp_path: Path) -> None:
    rows = samples_of(dims)
    shards = {
        "true": rows,
        "permuted": [row.replace(label=other.label) for row, other in zip(rows, rows[1:] + rows[:1], strict=True)],
        "recoded": [row.replace(labels=dict(zip(row.labels, (3, 1, 2), strict=True))) for row in rows],
        "deleted": [row.replace(label=None, labels={}) for row in rows],
    }
    segmenter: Segmenter = fitted(name, tmp_path / "model", dims)
    found = {how: segmenter.predict(images_in(write_rows(tmp_path / how, samples))) for how, samples in shards.items()}
    assert found["true"].dtype == np.float32
    assert found["true"].shape == (4, len(segmenter.regions), *rows[0].image.shape[1:])
    assert found["true"].std() > 0, "a constant would prove nothing"
    assert 0 <= found["true"].min() <= found["true"].max() <= 1
    assert len({prediction.tobytes() for prediction in found.values()}) == 1


@pytest.mark.parametrize(("name", "dims"), EVERY)
def test_a_row_depends_on_neither_its_place_nor_its_neighbours(name: str, dims: int, tmp_path: Path) -> None:
    segmenter: Segmenter = fitted(name, tmp_path, dims)
    # The vote of pcf is 0 or 1, and a pixel on its threshold may go either way.
    case = SegmenterCase(segmenter, batch_of(dims).images, undecided=0.01 if name == "pcf" else 0.0)
    for check in CHECKS.values():
        check(case)


@pytest.mark.parametrize("name", ["dmcie", "ldm_seg"])
def test_what_is_drawn_follows_from_the_image_or_from_the_caller(name: str, tmp_path: Path) -> None:
    segmenter = fitted(name, tmp_path)
    same = np.repeat(batch_of().images[:1], 2, axis=0)
    first, second = segmenter.predict(same)
    np.testing.assert_allclose(first, second, atol=2e-4)
    first, second = segmenter.predict(same, seeds=[1, 2])
    assert np.abs(first - second).max() > 0.01
    np.testing.assert_allclose(segmenter.predict(same[:1], seeds=[2])[0], second, atol=2e-4)
    assert len(set(row_seeds(np.concatenate([same, batch_of().images[1:]])))) == 4


@pytest.mark.parametrize("name", list(SEGMENTERS))
def test_images_that_do_not_fit_are_refused(name: str, tmp_path: Path) -> None:
    segmenter = fitted(name, tmp_path)
    images = batch_of().images
    with pytest.raises(DataError, match="channels t1"):
        segmenter.predict(np.concatenate([images, images], axis=1))
    with pytest.raises(DataError, match="finite"):
        segmenter.predict(np.where(images > 1, np.nan, images))
    with pytest.raises(DataError, match="one seed per image; found 3 for 4"):
        segmenter.predict(images, seeds=[1, 2, 3])


def test_a_folder_knows_whose_it_is(tmp_path: Path) -> None:
    fitted("unet", tmp_path / "unet")
    found = load_segmenter(str(tmp_path / "unet"))
    assert (found.name, found.channels, dict(found.regions)) == ("unet", ("t1",), NESTED)
    with pytest.raises(CheckpointError, match="hold a segmenter dmcie; found unet"):
        Dmcie.load(str(tmp_path / "unet"))
    with pytest.raises(CheckpointError, match="run fit"):
        load_segmenter(str(tmp_path / "nothing"))


def test_a_correction_is_taken_from_the_initial_mask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    segmenter, images = fitted("dmcie", tmp_path, samples=4), batch_of().images
    truth = torch.from_numpy(generator("truth").random((4, 2, 16, 16)) < 0.3).float()
    initial = torch.from_numpy(segmenter.initial(images))
    networks = load_generator(str(tmp_path / "error/checkpoint")).network.parts
    with torch.no_grad():
        separate = [networks[role](torch.from_numpy(images)).sigmoid() for role in ("fold_0", "fold_1")]
    torch.testing.assert_close(initial, (separate[0] + separate[1]) / 2)
    assert not torch.allclose(separate[0], separate[1])
    shown: list[torch.Tensor] = []

    def perfect(_: object, wanted: Any, *__: object) -> torch.Tensor:
        shown.append(wanted.planes)
        return initial - truth if len(shown) % 2 else torch.full_like(initial, -9.0)

    monkeypatch.setattr(dmcie, "generate", perfect)
    corrected = torch.from_numpy(segmenter.predict(images))
    torch.testing.assert_close(corrected, (truth + 1) / 2)  # every other sample corrects beyond 1, and is cut there
    assert len(shown) == 4
    torch.testing.assert_close(shown[0], torch.cat([torch.from_numpy(images), initial], dim=1))


def test_an_ensemble_is_the_mean_of_nested_maps_and_says_where_they_disagree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    segmenter, images = fitted("ldm_seg", tmp_path, samples=4), batch_of().images
    mean, variance = segmenter.predict_with_variance(images)
    np.testing.assert_array_equal(mean, segmenter.predict(images))
    assert 0 < variance.max() <= 0.25
    single, none = LdmSeg(segmenter.generator, 1, QUICK).predict_with_variance(images)
    assert none.max() < 1e-6
    assert np.abs(single - mean).max() > 0.01
    drawn_planes = iter([(1.0, -1.0), (1.0, 7.0), (-1.0, 1.0), (1.0, 0.0)])  # of the outer and the inner region

    def planes(*_: object) -> torch.Tensor:
        return torch.tensor(next(drawn_planes)).view(1, 2, 1, 1).expand(4, 2, 16, 16)

    monkeypatch.setattr(ldm_seg, "generate", planes)
    mean, variance = segmenter.predict_with_variance(images)
    np.testing.assert_allclose(mean[0, :, 0, 0], [0.75, 0.375])  # inner: 0, 1, 0 within an empty outer one, 0.5
    np.testing.assert_allclose(variance[0, :, 0, 0], [np.var([1, 1, 0, 1]), np.var([0, 1, 0, 0.5])], rtol=1e-5)


def test_counterfactuals_are_drawn_where_a_prompt_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = batch_of()
    lesion = (batch.tissue == 1) | (batch.tissue == 3)
    healthy = np.where(lesion[:, None], 0.0, batch.images).astype(np.float32)
    segmenter: Pcf = fitted("pcf", tmp_path, options=replace(PLAIN_CF, prompt="predicted", margin_mm=0.0))
    assert dict(segmenter.regions) == {"lesion": LESION}
    edits: list[torch.Tensor] = []

    def heal(_: object, x: torch.Tensor, edit: torch.Tensor, *__: object) -> torch.Tensor:
        edits.append(edit)
        return torch.where(edit, torch.from_numpy(healthy), x)

    monkeypatch.setattr(pcf, "paint", heal)
    bare = Vote(match_histogram=False, contrast_percent=None)
    segmenter.options = replace(segmenter.options, vote=bare)
    monkeypatch.setattr(segmenter, "predicted_prompts", lambda _: lesion)
    found = segmenter.predict(batch.images)[:, 0]
    assert torch.equal(edits[0][:, 0], torch.from_numpy(lesion))
    assert found[:3].any(axis=(1, 2)).all()
    assert not found[~lesion].any()
    box = np.ones_like(lesion)
    box[:, :, :6] = False
    within = segmenter.predict_within(batch.images, box)[:, 0]
    assert within.any()
    assert not within[~box].any()
    np.testing.assert_array_equal(segmenter.predict_within(batch.images, np.zeros_like(lesion)), 0)


def test_a_predicted_prompt_is_what_the_prompter_finds_grown_and_cut_to_the_head(tmp_path: Path) -> None:
    segmenter: Pcf = fitted("pcf", tmp_path)
    images = batch_of().images.clip(0)
    images[:, :, :4] = 0  # air
    finds = torch.full((4, 2, 16, 16), -9.0)
    finds[0, 1, 5, 8] = 9.0
    segmenter.prompter.network.forward = lambda _: finds
    segmenter.options = replace(segmenter.options, margin_mm=2.0)
    prompts = segmenter.predicted_prompts(images)
    assert not prompts[1:].any()
    assert prompts[0].sum() == 13 - 1  # a disc of 2 mm, less its tip in the air
    assert not prompts[0, 3].any()


@pytest.mark.parametrize("name", list(SEGMENTERS))
def test_what_is_trained(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: dict[str, dict[str, Any]] = {}

    def train(asked: Any, shards: list[str], out: str, **options: Any) -> str:
        calls[Path(out).name] = {"recipe": asked, "shards": shards, **options}
        return f"{out}/checkpoint"

    monkeypatch.setattr(fitting, "train", train)
    training = Training(augmented_per_real=0.5, classical=True, threads_per_worker=2)
    out = str(tmp_path / "out")
    assert SEGMENTERS[name].fit(["a", "b"], 7, 5, out, recipes=recipes(name), training=training) == out
    for call in calls.values():
        asked = call["recipe"]
        assert (asked.steps, asked.seed, asked.max_minutes, asked.data.augmented_per_real) == (7, 5, None, 0.5)
        assert (call["shards"], call["threads_per_worker"]) == (["a", "b"], 2)
    augmented = {role for role, call in calls.items() if call["recipe"].classical is not None}
    parts = {role: call["parts"] for role, call in calls.items()}
    folds = {role: call["recipe"].data.fold for role, call in calls.items()}
    last = {"unet": "unet", "dmcie": "error", "ldm_seg": "control", "pcf": "prompter"}[name]
    assert list(calls)[-1] == last
    assert augmented == (set(calls) if name in ("unet", "dmcie") else {last})
    if name == "dmcie":
        assert folds == {"fold_0": (0, 2), "fold_1": (1, 2), "error": None}
        assert parts["error"] == {role: f"{out}/{role}/checkpoint" for role in ("fold_0", "fold_1")}
    if name == "ldm_seg":
        assert list(calls) == ["autoencoder", "prior", "control"]
        assert parts["prior"] == {"autoencoder": f"{out}/autoencoder/checkpoint"}
        assert parts["control"] == {"prior": f"{out}/prior/checkpoint"}
    with pytest.raises(ConfigError, match=r"takes recipes for .*; found none"):
        SEGMENTERS[name].fit(["a"], 7, 5, out, recipes={})
    with pytest.raises(ConfigError, match=r"found .*\(painter\)"):
        SEGMENTERS[name].fit(["a"], 7, 5, out, recipes=recipes(name) | {last: recipe("m1")})


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session")
def test_fitted_by_ray_on_real_and_augmented_rows(tmp_path: Path) -> None:
    rows = samples_of()
    made = {
        policy: [
            row.replace(provenance=Provenance(f"{policy}-{n}", row.sample_id, policy, "0", "edit", {}))
            for n, row in enumerate(rows)
        ]
        for policy in ("one", "another")
    }
    real, augmented, other = (write_rows(tmp_path / name, found) for name, found in {"real": rows, **made}.items())
    out, images = str(tmp_path / "unet"), batch_of().images
    how = {"recipes": recipes("unet"), "training": Training(1.0, classical=True, threads_per_worker=1)}
    UNet.fit([real, augmented], 2, 0, out, **how)
    first = UNet.load(out).predict(images)
    assert np.isfinite(first).all()
    UNet.fit([real, augmented], 2, 0, out, **how)  # finished: returns at once
    np.testing.assert_array_equal(UNet.load(out).predict(images), first)
    with pytest.raises(RunError, match="another data"):
        UNet.fit([real, other], 2, 0, out, **how)
    with pytest.raises(RunError, match="another recipe"):
        UNet.fit([real, augmented], 2, 1, out, **how)


@pytest.mark.parametrize("name", SEGMENTERS)
def test_what_decides_its_answers_is_its_identity(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fitted(name, tmp_path)
    found = segmenter_identity(str(tmp_path))
    weights = {role: read_spec(f"{tmp_path}/{role}/checkpoint").sha256 for role in NETWORKS[name]}
    assert (found["segmenter"], found["weights"]) == (name, weights)
    smaller = {
        "pcf": (pcf, "PcfOptions", lambda: PLAIN_CF),
        "dmcie": (dmcie, "SAMPLING", QUICK),
        "ldm_seg": (ldm_seg, "SAMPLES", 3),
    }
    if name in smaller:
        monkeypatch.setattr(*smaller[name])
        assert canonical_json(segmenter_identity(str(tmp_path))) != canonical_json(found)
