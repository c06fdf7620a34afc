"""Arms by name: declared folders, what each is compared with, and rows that are made on the spot."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders import slice_sample, write_samples
from toy_experiments import Threshold, quiet
from training_cases import recipe

from augengine.downstream.arms import (
    baselines,
    check_arms,
    declared_rows,
    default_arms,
    find_arms,
    known_arms,
)
from augengine.downstream.experiment import Experiment
from augengine.downstream.gaussian_mixture import mixture, mixtures, tissues
from augengine.downstream.pasted import lesion_of, paste_lesion, pasted, place
from augengine.downstream.protocols import Protocol, protocol
from augengine.downstream.results import Plan, measure
from augengine.downstream.run import run
from augengine.downstream.segmenters import SEGMENTERS
from augengine.downstream.segmenters.base import Training
from augengine.downstream.segmenters.fitting import adapted
from augengine.downstream.tables import write_tables
from augengine.errors import ConfigError
from augengine.intensity import normalise
from augengine.pipeline.units import INLINE
from augengine.records import Provenance, Sample
from augengine.train import nnunet_transforms

LABELS = {"fat": 1, "tumour": 2}
ASKED = Protocol.model_validate(
    {
        "name": "tiny",
        "key": "none",
        "domains": {"all": ["all"]},
        "cells": [{"train": "all", "test": "all"}],
        "classes": {"fat": ["fat"]},
        "lesion": ["tumour"],
        "generator_sees": "train_domain",
        "metrics": ["dice"],
    }
)


def row(subject: int, *, lesion: bool = False, split: str = "train", **changes: Any) -> Sample:
    sample = slice_sample(subject, labels=LABELS, split=split, **changes)
    label, image = sample.label.copy(), sample.image.copy()  # type: ignore[union-attr]
    if lesion:
        label[14:17, 13:18] = 2
        image[:, 14:17, 13:18] = 690
    return sample.replace(image=image, label=label)


def edited(source: Sample, tag: str) -> Sample:
    made = Provenance(f"{tag}-{source.sample_id}", source.sample_id, tag, "d", "acquisition", {"params": {}})
    return source.replace(image=np.round(source.image * np.float32(0.9)), provenance=made)


@pytest.fixture(autouse=True)
def _threshold() -> Iterator[None]:
    SEGMENTERS["threshold"] = Threshold
    yield
    del SEGMENTERS["threshold"]


def test_folders_are_declared_under_names() -> None:
    found = declared_rows(["a", "removal=b", "counterfactual=c", "removal=d", "counterfactual_untrained=e", "./x=y"])
    assert found == {"augmented": ("a", "c", "./x=y"), "removal": ("b", "d"), "untrained": ("e",)}
    for wrong in ("classical=a", "pasted=a", "matched=a", "none=a", "removal="):
        with pytest.raises(ConfigError, match="a name of their own"):
            declared_rows([wrong])


def test_every_addition_comes_alone_and_with_every_change() -> None:
    known = known_arms(["removal"])
    for change in ("classical", "random_contrast", "batchgeneratorsv2"):
        for name, extra in (("removal", "removal"), ("counterfactual", "augmented"), ("gmm", "gmm")):
            assert (known[name].extra, known[f"{change}+{name}"].extra) == (extra, extra)
            assert getattr(known[f"{change}+{name}"], change)
            assert not getattr(known[name], change)
    assert find_arms(["removal"], ["removal"])[1].extra == "removal"
    with pytest.raises(ConfigError, match="unknown arm 'removal'"):
        find_arms(["removal"])
    assert default_arms(["augmented", "removal"]) == [
        "real",
        "classical",
        "counterfactual",
        "classical+counterfactual",
        "removal",
        "classical+removal",
    ]


def test_an_arm_is_compared_with_what_it_has_but_for_its_rows() -> None:
    assert baselines("classical+mix") == ("real", "classical")
    assert baselines("random_contrast+counterfactual") == ("real", "random_contrast")
    assert baselines("batchgeneratorsv2+mix") == ("real", "batchgeneratorsv2")
    assert baselines("batchgeneratorsv2") == ("real", "classical")
    assert baselines("mix") == baselines("classical") == ("real",)


def test_declared_arms_run_at_equal_steps_and_are_compared_with_their_baselines(tmp_path: Path) -> None:
    splits = {"train": range(1, 5), "val": range(5, 6), "test": range(6, 12)}
    rows = [row(n, split=split, lesion=n % 2 == 0) for split, numbers in splits.items() for n in numbers]
    train = [r for r in rows if r.split == "train"]
    made = {name: [edited(r, name) for r in train] for name in ("removal", "mix")}
    declared = {name: (write_samples(tmp_path / name, found),) for name, found in made.items()}
    arms = (
        "classical",
        "removal",
        "classical+removal",
        "classical+mix",
        "pasted",
        "gmm",
        "random_contrast+gmm",
        "classical+oversampled",
    )
    experiment = Experiment(
        ASKED,
        write_samples(tmp_path / "real", rows),
        str(tmp_path / "out"),
        {},
        declared=declared,
        arms=arms,
        segmenter="threshold",
        seeds=2,
        steps=3,
    )
    Threshold.fits.clear()
    done = run(experiment, quiet, actors=INLINE)
    assert [t.arm for t in done.trials] == ["real", *arms] * 2
    for trial, fit in zip(done.trials, Threshold.fits, strict=True):
        policies = {r.provenance.policy for r in fit["rows"] if r.provenance}
        added = trial.arm.split("+")[-1]
        assert policies == ({added} if added in ("removal", "mix", "pasted", "gmm") else set()), trial
        assert fit["steps"] == 3
        assert fit["training"].classical == trial.arm.startswith("classical")
        assert fit["training"].random_contrast == trial.arm.startswith("random_contrast")
        ill = [r for r in fit["rows"] if (r.label == 2).any()]
        assert len([r for r in fit["rows"] if not r.provenance]) == (6 if added == "oversampled" else 4)
        if added == "oversampled":
            assert Counter(r.subject_id for r in ill) == {"S002": 2, "S004": 2}
    results = write_tables(Plan.read(experiment.out), measure(experiment.out, actors=INLINE), experiment.out)
    pairs = {(g["arm"], g["against"]) for g in results["comparisons"] if g["class"] == "mean"}
    assert {("classical+removal", "classical"), ("classical+removal", "real"), ("removal", "real")} <= pairs
    assert ("removal", "classical") not in pairs
    again = run(replace(experiment, arms=("classical", "removal")), quiet, actors=INLINE)
    assert again.trainings.made == 0


def test_lesions_are_pasted_into_rows_without_one_and_their_share_stays() -> None:
    rows = [row(1, lesion=True), row(2), row(3), row(4, lesion=True)]
    made = list(pasted(rows, ["tumour"], 2, np.random.default_rng(1)))
    assert len(made) == 8
    with_lesion = [m for m in made if lesion_of(m, ["tumour"]).any()]
    assert len(with_lesion) == 4
    for sample in with_lesion:
        assert sample.provenance is not None
        assert sample.subject_id in ("S002", "S003")
        assert sample.provenance.plan["donors"][0] in ("S001", "S004")
        source = next(r for r in rows if r.sample_id == sample.provenance.parent_id)
        mask = lesion_of(sample, ["tumour"])
        assert mask.sum() == 15
        far = np.abs(normalise(sample) - normalise(source))[0]
        assert far[mask].mean() > 0.05
        untouched = np.ones_like(mask)
        i, j = np.argwhere(mask).min(0), np.argwhere(mask).max(0)
        untouched[max(i[0] - 3, 0) : j[0] + 4, max(i[1] - 3, 0) : j[1] + 4] = False
        np.testing.assert_allclose(sample.image[0][untouched], source.image[0][untouched], atol=1e-3)
        assert (sample.label[~mask] == source.label[~mask]).all()  # type: ignore[index]


def test_lesions_stay_near_their_own_place_where_they_fit() -> None:
    donor, recipient = row(1, lesion=True), row(2)
    shifts = np.array([place(donor, recipient, ["tumour"], np.random.default_rng(n)) for n in range(40)])
    assert np.abs(shifts).max() <= 0.15 * 26 + 2
    assert len({tuple(s) for s in shifts}) > 10
    ill = recipient.label.copy()  # type: ignore[union-attr]
    ill[8:24, 8:24] = 2
    for n in range(20):
        shift = place(donor, recipient.replace(label=ill), ["tumour"], np.random.default_rng(n))
        if shift is not None:
            moved = np.roll(lesion_of(donor, ["tumour"]), shift, (0, 1))
            assert not (moved & (ill == 2)).any(), "beside the recipient's own lesion"


def test_blending_keeps_the_lesion_s_contrast_and_takes_the_recipient_s_level() -> None:
    """Donor's surroundings at 300 and lesion at 500; the recipient is flat at 100: its lesion is about 300."""

    def flat(level: float) -> Sample:
        sample = slice_sample(1, labels=LABELS, intensity_range=((0.0, 1000.0),))
        image = np.zeros((1, 32, 32), np.float32)
        image[:, 3:29, 3:29] = level
        return sample.replace(image=image, label=np.zeros((32, 32), np.uint8))

    donor, recipient = flat(300), flat(100).replace(subject_id="S009", volume_id="S009")
    donor.image[:, 12:18, 12:18] = 500
    donor.label[12:18, 12:18] = 2  # type: ignore[index]
    made = paste_lesion(donor, recipient, ["tumour"], [3, -2])
    mask = lesion_of(made, ["tumour"])
    assert np.argwhere(mask).min(0).tolist() == [15, 10]
    assert mask.sum() == 36
    assert np.median(made.image[0][mask]) == pytest.approx(300, abs=2)
    assert made.subject_id == "S009"


def test_arms_that_cannot_be_made_are_refused_before_data_are_read() -> None:
    with pytest.raises(ConfigError, match="a protocol that says which labels are a lesion"):
        check_arms(find_arms(["pasted"]), protocol("duke_strict"), [])
    with pytest.raises(ConfigError, match="needs a protocol that says which labels are a lesion"):
        check_arms(find_arms(["oversampled"]), protocol("duke_strict"), [])
    check_arms(find_arms(["pasted", "gmm"]), ASKED, [])


def test_mixtures_keep_labels_and_air_and_draw_each_tissue_anew() -> None:
    rows = [row(1, lesion=True)]
    first, second = mixtures(rows, 2, np.random.default_rng(3))
    body = rows[0].label > 0  # type: ignore[operator]
    assert (first.label == rows[0].label).all()
    assert not np.allclose(first.image[0][body], second.image[0][body])
    means = [
        m.image[0][m.label == 2].mean() - m.image[0][m.label == 1].mean()  # type: ignore[operator]
        for m in mixtures(rows * 20, 1, np.random.default_rng(5))
    ]
    assert min(means) < 0 < max(means), "a lesion is as often darker as brighter"


def test_unlabelled_body_is_divided_by_intensity() -> None:
    sample = row(1).replace(label=None)
    found = tissues(sample, np.random.default_rng(0))
    values = [normalise(sample)[0][found == n].mean() for n in range(1, found.max() + 1)]
    spread = [normalise(sample)[0][found == n].std() for n in range(1, found.max() + 1)]
    assert len(values) == 5
    assert np.ptp(values) > 5 * np.mean(spread)


def test_a_mixture_is_constant_within_a_tissue_but_for_noise_and_bias(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DEVIATION", "BLUR_PX", "BIAS", "GAMMA_SD"):
        monkeypatch.setattr(f"augengine.downstream.gaussian_mixture.{name}", 0.0)
    tissue = np.zeros((16, 16), np.int64)
    tissue[4:12, 4:8], tissue[4:12, 8:12] = 1, 2
    image = np.full((2, 16, 16), 0.25, np.float32)
    made = mixture(image, tissue, np.random.default_rng(0))
    assert (made[:, tissue == 0] == 0.25).all()
    for n in (1, 2):
        assert np.ptp(made[:, tissue == n], axis=1) == pytest.approx(0, abs=1e-6)
    assert len({round(float(v), 5) for v in (*made[:, 5, 5], *made[:, 5, 9])}) == 4, "each channel for itself"


def test_nnunet_s_own_transforms_are_named_where_they_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import metadata

    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    with pytest.raises(ConfigError, match=r"needs that package, 0\.3\.5 or later; found none; pip install"):
        check_arms(find_arms(["batchgeneratorsv2"]), ASKED, [])
    monkeypatch.setattr(metadata, "version", lambda name: "0.3.4")
    with pytest.raises(ConfigError, match=r"found 0\.3\.4"):
        nnunet_transforms.require()
    monkeypatch.setattr(metadata, "version", lambda name: "0.10.0")
    nnunet_transforms.require()


def test_a_training_with_nnunet_s_transforms_asks_its_recipe_for_them() -> None:
    asked = recipe("segmenter", data={"regions": {"fat": ["fat"]}})
    assert asked.batchgeneratorsv2 is None
    assert adapted(asked, 1, 0, Training(batchgeneratorsv2=True)).batchgeneratorsv2 is not None
    assert Training(batchgeneratorsv2=True).natural == Training()
    assert asked.digest == recipe("segmenter", data={"regions": {"fat": ["fat"]}}).digest


@pytest.mark.parametrize("shape", [(24, 24), (16, 16, 16), (24, 24, 4)])
def test_nnunet_s_transforms_write_into_no_input_and_no_global_generator(shape: tuple[int, ...]) -> None:
    pytest.importorskip("batchgeneratorsv2")
    from augengine.train.config import Batchgeneratorsv2Recipe

    x = torch.rand((6, 2, *shape), generator=torch.Generator().manual_seed(1))
    tissue = (x[:, 0] > 0.5).long()
    before = x.clone(), tissue.clone()
    np.random.seed(7)  # noqa: NPY002
    torch.manual_seed(7)
    wanted = np.random.random(), torch.rand(1)  # noqa: NPY002
    np.random.seed(7)  # noqa: NPY002
    torch.manual_seed(7)
    settings = Batchgeneratorsv2Recipe()
    first = nnunet_transforms.nnunet_transforms(x, tissue, settings, torch.Generator().manual_seed(3))
    assert (np.random.random(), torch.rand(1)) == wanted  # noqa: NPY002
    again = nnunet_transforms.nnunet_transforms(x, tissue, settings, torch.Generator().manual_seed(3))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert torch.equal(x, before[0])
    assert torch.equal(tissue, before[1])
    assert first[0].shape == x.shape
    assert not torch.equal(first[0], x)
    assert set(first[1].unique().tolist()) <= {0, 1}
