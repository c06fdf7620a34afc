"""Changing contrast is learnt from scans that were never made twice; the truth is used to judge alone."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from augengine.diffusion.build import build
from augengine.diffusion.checkpoint import load_model
from augengine.diffusion.local_contrast import render
from augengine.errors import DataError
from augengine.intensity import normalise
from augengine.io.dataset import write_dataset
from augengine.io.shards import to_table
from augengine.records import Acquisition, Sample
from augengine.train.config import Recipe, read_recipe
from augengine.train.loop import make_reader
from augengine.train.model import model_spec
from augengine.train.objectives import objective
from augengine.train.objectives.back_translation import BackTranslation, Voxels
from augengine.train.objectives.scans import spread, targets_of, usual_of
from augengine.train.rows import dataset_facts
from augengine.train.run import train

FLASH = Acquisition("GE", "Signa", 3.0, None, 9.0, 5.0, 4.0, 35.0)
SETTINGS = (FLASH, FLASH.replace(flip_angle_deg=20.0, repetition_time_ms=15.0))
# Air, fat, gland, vessel: no single curve leads from one setting to the other.
CONTRAST = np.array([[0.0, 0.9, 0.45, 0.25], [0.0, 0.65, 0.3, 0.95]])


def anatomy(subject: int, shape: tuple[int, ...]) -> np.ndarray:
    """Tissue codes: a ball of fat with glands of the subject's own size and place, and thin vessels."""
    random = np.random.default_rng([5, subject])
    place = np.stack(np.meshgrid(*[np.arange(n) - n / 2 + 0.5 for n in shape], indexing="ij"))[:2]
    found = (np.hypot(*place) < 0.42 * shape[0]).astype(int)
    middle = random.uniform(-4, 4, 2).reshape(2, *[1] * len(shape))
    found[(np.hypot(*(place - middle)) < random.uniform(0.17, 0.23) * shape[0])] = 2
    for _ in range(6):
        spot = random.uniform(-0.25, 0.25, 2).reshape(2, *[1] * len(shape)) * shape[0]
        found[np.hypot(*(place - spot)) < 1.6] = 3
    return found


def scan(subject: int, setting: int, shape: tuple[int, ...] = (40, 40), **changes: Any) -> Sample:
    tissue = anatomy(subject, shape)
    noise = np.random.default_rng([subject, setting]).normal(0, 0.02, shape)
    values: dict[str, Any] = {
        "image": np.maximum(CONTRAST[setting][tissue] + noise, 0).astype(np.float32)[None] * 500,
        "affine": np.diag([1.5, 1.5, 3.0, 1.0]),
        "channels": ("t1",),
        "subject_id": f"S{subject}",
        "volume_id": f"S{subject}-{setting}",
        "acquisition": SETTINGS[setting],
        "split": "train",
        "slice_index": 0 if len(shape) == 2 else None,
        "intensity_range": ((0.0, 500.0),),
    }
    return Sample(**{**values, **changes})


UNPAIRED = [(subject, subject % 2) for subject in range(8)]


def recipe(**changes: Any) -> Recipe:
    values = read_recipe("local_contrast").model_dump(mode="json", exclude_unset=True)
    values["steps"] = 300
    values["optimiser"] |= {"batch_size": 512}
    values["network"] |= {"members": 2, "width": 32}
    values["back_translation"] |= {"rounds": 2, "voxels_per_scan": 600, **changes.pop("back_translation", {})}
    return Recipe.model_validate({**values, **changes})


def ready(folder: Path, samples: Sequence[Sample], **changes: Any) -> BackTranslation:
    data = write_dataset(str(folder), [to_table(samples)]).uri
    how = recipe(**changes)
    spec = model_spec(how, dataset_facts(data, how.data.rows("train")), {})
    found = objective(how, spec, build(spec, how.seed))
    assert isinstance(found, BackTranslation)
    assert len(found.train().begin(make_reader(data, how.data.rows("train"), how, spec, 512)).batch(0)) == 512
    return found


def steps(trained: BackTranslation, first: int, count: int) -> list[float]:
    moving = [p for p in trained.parameters() if p.requires_grad]
    optimiser, losses = torch.optim.Adam(moving, lr=5e-3), []
    for step in range(first, first + count):
        loss = trained(Voxels(256), step, step)["total"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    return losses


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("back")
    samples = [scan(*who) for who in UNPAIRED] + [scan(20, 0, split="val")]
    data = write_dataset(str(folder / "data"), [to_table(samples)]).uri
    return train(recipe(pictures_every=150), data, str(folder / "run"), num_workers=0, progress=lambda _: None)


@pytest.mark.parametrize("setting", [0, 1])
def test_without_any_pair_another_subject_is_shown_as_the_other_setting_would(checkpoint: str, setting: int) -> None:
    model = load_model(checkpoint)
    assert model.spec.recipe == "local-contrast"
    assert np.isfinite(model.spec.metrics["validation_loss"])
    source, target = SETTINGS[setting], SETTINGS[1 - setting]
    before, after = [], []
    for subject in range(30, 34):
        image, truth = (normalise(scan(subject, n)) for n in (setting, 1 - setting))
        body = anatomy(subject, (40, 40)) > 0
        made = render(model.network, image, (1.5, 1.5), source, target, 0.0).mean
        before.append(np.sqrt(np.mean((image - truth)[0][body] ** 2)))
        after.append(np.sqrt(np.mean((made - truth)[0][body] ** 2)))
    assert np.mean(after) < 0.8 * np.mean(before)  # .60 to .76 in eight trainings


def test_pictures_show_the_validation_rows(checkpoint: str) -> None:
    assert sorted(p.name for p in Path(checkpoint).parent.glob("pictures/*")) == [
        "step-0000150.png",
        "step-0000300.png",
    ]


@pytest.mark.parametrize("dims", [2, 3])
def test_it_learns_repeats_itself_and_goes_on_where_it_stopped(dims: int, tmp_path: Path) -> None:
    shape = (40, 40, 4)[:dims]
    samples = [scan(*who, shape) for who in UNPAIRED]
    whole = ready(tmp_path / "a", samples)
    losses = steps(whole, 0, 40)
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:5])
    again = ready(tmp_path / "b", samples)
    assert steps(again, 0, 40) == losses
    # At step 124, in the second round, the pseudo-scans are those of step 120's teacher.
    steps(whole, 118, 6)
    resumed = ready(tmp_path / "c", samples)
    resumed.load_state_dict(whole.state_dict())
    assert steps(resumed, 124, 3) == steps(whole, 124, 3)
    assert not torch.equal(whole.teacher.weights[0], whole.network.weights[0])


def test_one_setting_alone_teaches_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="scans of different settings, of different subjects"):
        ready(tmp_path / "a", [scan(subject, 0) for subject in range(4)])
    # Nor does one subject's pair: its own scans are never its pseudo-scans' pool.
    with pytest.raises(DataError, match="of different subjects"):
        ready(tmp_path / "b", [scan(1, 0), scan(1, 1)])


def test_pairs_are_one_subject_on_one_grid_of_the_world(tmp_path: Path) -> None:
    elsewhere = np.diag([1.5, 1.5, 3.0, 1.0])
    elsewhere[0, 3] = 4.0
    samples = [
        scan(0, 0),
        scan(0, 1),  # a pair
        scan(1, 0),
        scan(1, 1, affine=elsewhere),  # moved
        scan(2, 0),
        scan(3, 1),  # two subjects on one grid
    ]
    found = ready(tmp_path / "a", samples, back_translation={"pairs": True})
    partners = {scan.volume: [p.acquisition for p in scan.partners] for scan in found.scans}
    assert partners == {
        "S0-0": [SETTINGS[1]],
        "S0-1": [SETTINGS[0]],
        "S1-0": [],
        "S1-1": [],
        "S2-0": [],
        "S3-1": [],
    }
    pair = next(scan for scan in found.scans if scan.volume == "S0-0")
    assert np.array_equal(pair.partners[0].planes[0], normalise(scan(0, 1)))
    with pytest.raises(DataError, match="scanned twice on one voxel grid"):
        ready(tmp_path / "b", [scan(*who) for who in UNPAIRED], back_translation={"pairs": True})


def test_one_round_of_pairs_makes_no_pseudo_scan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = [scan(subject, setting) for subject in range(2) for setting in (0, 1)]
    found = ready(tmp_path / "a", samples, back_translation={"pairs": True, "rounds": 1, "gain_sd": 0.0})

    def never(*_: object) -> None:
        raise AssertionError("a pseudo-scan")

    monkeypatch.setattr(BackTranslation, "_pseudo", never)
    pairs = found._make(0)
    real = {float(v) for s in samples for v in np.maximum(normalise(s), 0).ravel()}
    assert len(pairs.truth) > 1000
    assert set(pairs.truth[:, 0].tolist()) <= real
    # What is shown is real, too: the first input is the source's own intensity.
    assert set(pairs.inputs[:, 0].tolist()) <= real


def test_pseudo_scans_never_see_the_subjects_own_other_scan(tmp_path: Path) -> None:
    found = ready(tmp_path / "a", [scan(subject, setting) for subject in range(3) for setting in range(2)])
    first = found.scans[0]
    (pool, *_) = targets_of(first, found.scans)
    others = [s.tables[0].intensity for s in found.scans if s.volume in ("S1-1", "S2-1")]
    assert np.allclose(pool.tables[0].intensity, np.mean(others, 0))


def test_what_is_usual_is_told_by_others_of_the_setting_alone(tmp_path: Path) -> None:
    found = ready(tmp_path / "a", [scan(subject, setting) for subject in range(3) for setting in range(2)])
    first = found.scans[0]
    others = [s.tables[0].intensity for s in found.scans if s.volume in ("S1-0", "S2-0")]
    assert np.allclose(usual_of(first, found.scans)[0].intensity, np.mean(others, 0))
    # Nobody to compare it with: then nothing sets it apart.
    alone = usual_of(first, found.scans[:1])[0]
    assert np.allclose(alone.bands, first.tables[0].bands)
    assert np.allclose(alone.intensity, first.tables[0].intensity)


@pytest.mark.parametrize("shape", [(40, 40), (40, 40, 6)])
def test_a_pseudo_scan_differs_from_its_scan_as_much_as_told_and_through_a_volume_smoothly(
    shape: tuple[int, ...], tmp_path: Path
) -> None:
    samples = [scan(*who, shape) for who in UNPAIRED]
    told = ready(tmp_path / "a", samples, back_translation={"unshared": [[40.0, 0.1]]})
    nothing = ready(tmp_path / "b", samples, back_translation={"unshared": []})
    own = told.scans[0]
    rows = [np.full((np.count_nonzero(where), 1), 0.5, np.float32) for where in own.bodies]
    logs = [np.log(row / 0.5) for seed in range(12) for row in told._apart(own, rows, np.random.default_rng(seed))]
    assert np.std(np.concatenate(logs)) == pytest.approx(0.1, rel=0.35)
    if len(shape) == 3:  # slices 5 mm apart share a field that changes over 40
        apart = [a.mean() - b.mean() for a, b in pairwise(logs[: len(rows)])]
        assert np.std(apart) < 0.5 * np.std([log.mean() for log in logs])
    assert all(
        np.array_equal(a, b) for a, b in zip(nothing._apart(own, rows, np.random.default_rng(0)), rows, strict=True)
    )


def slab(subject: int, setting: int, **changes: Any) -> Sample:
    """A volume of a subject's own shape; under the second setting its middle is half as bright as its ends."""
    shape = (40, 40, 8) if subject % 3 else (36, 44, 7)
    contrast = np.array([[0.0, 0.9, 0.45, 0.25], [0.0, 0.9, 0.3, 0.75]])[setting]
    depth = np.minimum(np.arange(shape[2]), np.arange(shape[2])[::-1])
    profile = 1 - setting * np.minimum(depth, 3) / 6
    noise = np.random.default_rng([subject, setting]).normal(0, 0.02, shape)
    image = np.maximum(contrast[anatomy(subject, shape)] * profile + noise, 0).astype(np.float32)[None] * 500
    if subject == 3:
        image[..., 0] = 0  # a slice that shows nothing
    affine = np.diag([1.5, 1.5, 5.0, 1.0])
    return scan(subject, setting, shape, image=image, affine=affine, slab_end_mm=2.5, **changes)


def test_volumes_of_any_shape_teach_how_bright_a_slab_is_towards_its_ends(tmp_path: Path) -> None:
    """The middle goes dark only for a network that knows where the middle is; no neighbour and no detail tells it."""
    samples = [slab(*who) for who in UNPAIRED] + [slab(20, 0, split="val"), slab(21, 1, split="val")]
    data = write_dataset(str(tmp_path / "data"), [to_table(samples)]).uri
    errors = {}
    for sees in (True, False):
        network = {"body": "local_contrast", "members": 2, "width": 32, "neighbours": True, "slab": sees}
        how = recipe(network=network, pictures_every=300)
        model = load_model(train(how, data, str(tmp_path / f"{sees}"), num_workers=0, progress=lambda _: None))
        assert model.spec.image_size == (40, 44, 8)
        for setting in (0, 1):
            own, truth = (slab(30, n) for n in (setting, 1 - setting))
            made = render(
                model.network, normalise(own), own.spacing_mm, SETTINGS[setting], SETTINGS[1 - setting], 0.0, 2.5
            ).mean
            fat = anatomy(30, own.image.shape[1:]) == 1
            means = [[float(x[0][..., k][fat[..., k]].mean()) for k in range(7)] for x in (made, normalise(truth))]
            errors[sees, setting] = np.abs(np.log(means[0]) - np.log(means[1])).mean()
    assert errors[True, 0] < 0.2 * errors[False, 0], errors
    assert errors[True, 1] < 0.1, errors  # on the way back, how dark a voxel is tells where it lies


def test_slices_and_volumes_are_not_learnt_from_together(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="must share one image_shape"):
        ready(tmp_path / "a", [scan(0, 0), scan(1, 1, (40, 40, 4))])


@pytest.mark.parametrize(
    ("rows", "count", "expected"),
    [(22, 8, [0, 3, 6, 9, 12, 15, 18, 21]), (3, 8, [0, 1, 2]), (5, 1, [2]), (1, 1, [0]), (1, 4, [0])],
)
def test_a_sample_of_rows_holds_both_ends_of_the_slab(rows: int, count: int, expected: list[int]) -> None:
    assert spread(rows, min(rows, count)) == expected
