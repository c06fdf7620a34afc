"""The experiment: equal steps, no row of another domain, resumed, and tables that follow from stored predictions."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pytest
import torch
from builders import GE, SIEMENS, slice_sample, write_samples
from torch import Tensor
from training_cases import drawn, recipe, spec_of

from augengine.diffusion.checkpoint import save_model, subject_hash
from augengine.downstream.arms import ARMS
from augengine.downstream.experiment import Experiment
from augengine.downstream.protocols import Protocol, protocol
from augengine.downstream.results import Plan, Row, measure
from augengine.downstream.run import Done, run
from augengine.downstream.segmenters import SEGMENTERS
from augengine.downstream.segmenters.base import Segmenter, Training
from augengine.downstream.segmenters.fitting import mark
from augengine.downstream.tables import write_tables
from augengine.errors import AugengineError
from augengine.intensity import normalise
from augengine.io.commits import committed_files
from augengine.io.dataset import dataset_files
from augengine.io.labellers import LABELLERS
from augengine.io.shards import iter_samples
from augengine.io.store import Store
from augengine.leakage import LeakageError
from augengine.pipeline.units import INLINE
from augengine.records import Acquisition, Provenance, Sample
from augengine.train.config import Recipe

PROTOCOL = Protocol.model_validate(
    protocol("duke_transductive").model_dump() | {"name": "tiny", "classes": {"fat": ("fat",)}}
)
SPLITS = {"train": range(1, 7), "val": range(7, 9), "test": range(9, 15)}
FITS: list[dict[str, Any]] = []


class Threshold(Segmenter):
    """Fat is whatever is brighter than halfway between the mean fat and the mean rest of its training rows."""

    name: ClassVar[str] = "threshold"

    def __init__(self, level: float) -> None:
        self.level, self.channels, self.regions = level, ("t1",), {"fat": ("fat",)}

    @classmethod
    def fit(
        cls,
        shards: Sequence[str],
        steps: int,
        seed: int,
        out: str,
        *,
        recipes: Mapping[str, Recipe],
        training: Training = Training(),  # noqa: B008  (frozen)
    ) -> str:
        rows = [s for uri in shards for s in iter_samples(Store(uri), dataset_files(Store(uri))) if s.split == "train"]
        FITS.append({"rows": rows, "steps": steps, "seed": seed, "training": training})
        fat, rest = (np.mean([normalise(s)[0][s.label == n].mean() for s in rows]) for n in (1, 0))
        Store(out).write_json("level.json", float(fat + rest) / 2 + 0.01 * seed + 0.02 * training.classical)
        return mark(cls, out)

    @classmethod
    def load(cls, folder: str, *, device: str = "cpu") -> Self:
        return cls(Store(folder).read_json("level.json"))

    def _predict(self, x: Tensor, seeds: Sequence[int]) -> Tensor:
        return torch.sigmoid(10 * (x - self.level))


@pytest.fixture(autouse=True, scope="module")
def _threshold() -> Iterator[None]:
    SEGMENTERS["threshold"] = Threshold
    yield
    del SEGMENTERS["threshold"]


def cohort(label: Callable[[Sample], np.ndarray] | None = None) -> list[Sample]:
    """Odd subjects are Siemens's and half as bright as GE's; two slices each."""
    rows = [slice_sample(n, k, split=split) for split, subjects in SPLITS.items() for n in subjects for k in (0, 1)]
    rows = [s.replace(image=s.image * np.float32(0.5 if s.acquisition == SIEMENS else 1)) for s in rows]
    return [s.replace(label=label(s)) if label and s.split == "test" else s for s in rows]


def edited(source: Sample, **plan: Any) -> Sample:
    """A training row as the other vendor would have shown it."""
    to, factor = (GE, 2) if source.acquisition == SIEMENS else (SIEMENS, 0.5)
    made = Provenance(f"cf-{source.sample_id}", source.sample_id, "p", "d", "acquisition", {"params": {}, **plan})
    return source.replace(image=np.round(source.image * np.float32(factor)), acquisition=to, provenance=made)


def made(folder: Path, *arms: str, **changes: Any) -> Experiment:
    """A small experiment: one seed, unless `changes` say otherwise."""
    rows = cohort()
    directions = [[edited(s) for s in rows if s.split == "train" and s.acquisition == a] for a in (GE, SIEMENS)]
    values: dict[str, Any] = {
        "protocol": PROTOCOL,
        "data": write_samples(folder / "real", rows),
        "out": str(folder / "out"),
        "recipes": {},
        "augmented": tuple(write_samples(folder / f"augmented-{n}", made) for n, made in enumerate(directions)),
        "seeds": 1,
        "steps": 7,
        "segmenter": "threshold",
        "arms": ("real", *arms),
    }
    return Experiment(**{**values, **changes})


@dataclass(frozen=True)
class Finished:
    experiment: Experiment
    done: Done
    fits: list[dict[str, Any]]


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Every arm but the untrained one, finished and measured."""
    arms = ("real_repeated", "classical", "histogram_match", "counterfactual", "classical+counterfactual")
    experiment = made(tmp_path_factory.mktemp("full"), *arms, seeds=2)
    FITS.clear()
    return Finished(experiment, ran(experiment), list(FITS))


@contextmanager
def quiet(title: str) -> Iterator[Callable[..., None]]:
    yield lambda done, total, details: None


def ran(experiment: Experiment) -> Done:
    return run(experiment, quiet, actors=INLINE)


def told(experiment: Experiment, *, anew: bool = False) -> tuple[dict[str, Any], bytes]:
    scores = measure(experiment.out, actors=INLINE, anew=anew)
    results = write_tables(Plan.read(experiment.out), scores, experiment.out)
    return results, Path(experiment.out, "tables.md").read_bytes()


def predictions(out: str) -> list[str]:
    store = Store(f"{out}/predictions")
    files = committed_files(store, "maps")
    assert files
    return sorted(str(store.parquet(name).read().to_pylist()) for name in files)


def choosing(protocol: Protocol = PROTOCOL) -> dict[str, Any]:
    """An experiment of that protocol whose recipe chooses its checkpoint by validation loss."""
    asked = recipe("segmenter", data={"regions": {"fat": ["fat"]}}, best_checkpoint={"patience": 2})
    return {"protocol": protocol, "recipes": {"unet": asked}}


def test_test_subjects_choose_no_checkpoint(tmp_path: Path) -> None:
    """Early stopping is the recipe's, but for protocols whose validation subjects are the test subjects."""
    on_test = Protocol.model_validate(protocol("duke_paper").model_dump() | {"classes": {"fat": ("fat",)}})
    found = {p.name: made(tmp_path / p.name, **choosing(p)).adapted_recipes["unet"] for p in (PROTOCOL, on_test)}
    assert found["tiny"].best_checkpoint is not None
    assert found["tiny"].best_checkpoint.patience == 2
    assert found["duke_paper"].best_checkpoint is None


@pytest.mark.parametrize(("lesion", "balanced"), [((), ()), (("fat", "oedema"), ("fat",)), (("oedema",), ())])
def test_lesions_that_a_class_measures_keep_their_share(
    tmp_path: Path, lesion: tuple[str, ...], balanced: tuple[str, ...]
) -> None:
    of = Protocol.model_validate(PROTOCOL.model_dump() | {"lesion": lesion})
    assert made(tmp_path, **choosing(of)).adapted_recipes["unet"].data.balance == balanced


def test_a_domain_without_validation_rows_is_refused_where_these_choose(tmp_path: Path) -> None:
    rows = [s for s in cohort() if s.split != "val" or s.acquisition == GE]
    data = write_samples(tmp_path / "rows", rows)
    with pytest.raises(AugengineError, match="the domain Siemens has no labelled rows of split val"):
        ran(made(tmp_path / "a", data=data, **choosing()))
    ran(made(tmp_path / "b", data=data))


def test_too_few_augmented_rows_are_seen_before_the_first_training(tmp_path: Path) -> None:
    FITS.clear()
    with pytest.raises(AugengineError, match=r"augmented.*3"):
        ran(made(tmp_path, "counterfactual", ratio=3.0, **choosing()))
    assert not FITS


def test_a_label_that_a_class_needs_is_missed_in_the_metadata(tmp_path: Path) -> None:
    """Of the protocol's domains alone, test rows included: these are read last."""
    rows = [s.replace(labels={"other": 1}) if s.subject_id == cohort()[-1].subject_id else s for s in cohort()]
    FITS.clear()
    with pytest.raises(AugengineError, match="the class 'fat' of protocol tiny needs the label 'fat'"):
        ran(made(tmp_path / "a", data=write_samples(tmp_path / "rows", rows)))
    assert not FITS
    assert not Path(tmp_path, "a/out/training").exists()
    strange = slice_sample(99).replace(labels={"other": 1}, acquisition=Acquisition("Philips"))
    ran(made(tmp_path / "b", data=write_samples(tmp_path / "more", [*cohort(), strange])))


def test_every_arm_gets_the_same_steps_and_rows_of_its_own_domain(full: Finished) -> None:
    assert {trial.train for trial in full.done.trials} == {"GE", "Siemens", "Both"}
    assert full.done.trainings.made == 2 * (2 * 6 + 1) == len(full.fits)  # seeds x (two domains, and `real` of both)
    assert {fit["steps"] for fit in full.fits} == {7}
    for trial, fit in zip(full.done.trials, full.fits, strict=True):
        arm, subjects = ARMS[trial.arm], {int(s.subject_id[1:]) for s in fit["rows"]}
        domain = {n for n in SPLITS["train"] if trial.train == "Both" or (n % 2 == 1) == (trial.train == "Siemens")}
        assert subjects == domain, trial
        synthetic = [s for s in fit["rows"] if s.provenance]
        added = arm.extra in ("matched", "augmented")
        assert len(fit["rows"]) - len(synthetic) == 2 * len(domain) * (1 + (arm.extra == "repeated")), trial
        assert len(synthetic) == 2 * len(domain) * added, trial
        assert fit["training"].augmented_per_real == (1.0 if added else None)
        assert fit["training"].classical == ("classical" in trial.arm)


def test_matched_rows_lend_intensities_of_the_other_domain_and_say_so(full: Finished) -> None:
    chosen = zip(full.done.trials, full.fits, strict=True)
    rows = next(f["rows"] for t, f in chosen if (t.train, t.arm) == ("Siemens", "histogram_match"))
    real, matched = ([s for s in rows if bool(s.provenance) == flag] for flag in (False, True))
    assert np.mean([s.image.max() for s in matched]) > 1.5 * np.mean([s.image.max() for s in real])
    for sample in matched:
        assert sample.provenance is not None
        (donor,) = sample.provenance.plan["donors"]
        assert int(donor[1:]) in {2, 4, 6}
        source = next(s for s in real if s.sample_id == sample.provenance.parent_id)
        assert (sample.label == source.label).all()
        assert sample.acquisition == GE


def test_the_other_domain_is_harder_and_the_gap_is_told(full: Finished) -> None:
    results, text = told(full.experiment)
    means = {(r["cell"], r["arm"]): r["mean"] for r in results["rows"] if (r["metric"], r["class"]) == ("dice", "mean")}
    assert means["GE → GE", "real"] > 0.9 > 0.8 > means["GE → Siemens", "real"]
    gaps = {(g["cell"], g["arm"]): g for g in results["gaps"]}
    drop = means["Siemens → Siemens", "real"] - means["GE → Siemens", "real"]
    gain = means["GE → Siemens", "counterfactual"] - means["GE → Siemens", "real"]
    assert gaps["GE → Siemens", "counterfactual"]["drop"]["estimate"] == pytest.approx(drop)
    assert gaps["GE → Siemens", "counterfactual"]["share"]["estimate"] == pytest.approx(gain / drop)
    assert gaps["GE → Siemens", "real"]["share"]["estimate"] == 0
    told_gains = {
        (g["cell"], g["arm"], g["against"]): g["difference"]["estimate"]
        for g in results["comparisons"]
        if (g["metric"], g["class"]) == ("dice", "mean")
    }
    assert told_gains["GE → Siemens", "counterfactual", "real"] == pytest.approx(gain)
    assert ("GE → Siemens", "classical+counterfactual", "classical") in told_gains
    assert "| GE | Siemens | counterfactual |" in text.decode()


def test_real_rows_of_both_domains_are_compared_with_those_of_one_on_its_own_patients(full: Finished) -> None:
    results, text = told(full.experiment)
    found = {(one["train"], one["test"]): one for one in results["shared"]}
    assert found.keys() == {("Both", "GE"), ("Both", "Siemens")}
    scores = measure(full.experiment.out, actors=INLINE)
    both, own = (scores[Row(cell, "real", 1.0)]["dice", "mean"] for cell in ("Both → Both", "GE → GE"))
    assert both[0].keys() > own[0].keys()
    expected = np.mean([both[seed][p] - own[seed][p] for seed in own for p in own[seed]])
    difference = found["Both", "GE"]["difference"]
    assert difference["estimate"] == pytest.approx(expected)
    assert difference["low"] <= expected <= difference["high"]
    assert "| Both | Siemens |" in text.decode()


def test_tables_follow_from_stored_predictions_alone(full: Finished, tmp_path: Path) -> None:
    before = told(full.experiment)
    for name in ("predictions", "truth"):
        shutil.copytree(f"{full.experiment.out}/{name}", tmp_path / name)
    shutil.copy(f"{full.experiment.out}/experiment.json", tmp_path)
    copy = replace(full.experiment, out=str(tmp_path), data="gone", augmented=())
    assert told(copy, anew=True) == before
    lost = next((tmp_path / "predictions/maps").glob("*.parquet"))
    lost.unlink()
    with pytest.raises(AugengineError, match="units failed"):
        told(copy, anew=True)


def test_finished_work_is_found_again_and_only_what_changed_is_made(tmp_path: Path) -> None:
    experiment = made(tmp_path, "counterfactual")
    first, fits = ran(experiment), len(FITS)
    again = ran(experiment)
    assert (first.trainings.made, again.trainings.made, again.trainings.skipped) == (5, 0, 5)
    assert len(FITS) == fits
    assert ran(replace(experiment, seeds=2)).trainings.made == 5
    assert ran(replace(experiment, arms=("real", "counterfactual", "classical"))).trainings.made == 2
    assert ran(replace(experiment, steps=8)).trainings.made == 5


def test_the_truth_changes_scores_and_no_prediction(tmp_path: Path) -> None:
    experiment = made(tmp_path)
    ran(experiment)
    scored, maps = told(experiment)[0], predictions(experiment.out)
    changes = {"moved": lambda s: np.roll(s.label, 9, 0), "deleted": lambda s: np.zeros_like(s.label)}
    for name, change in changes.items():
        data = write_samples(tmp_path / f"{name}-real", cohort(change))
        other = replace(experiment, out=str(tmp_path / name), data=data)
        ran(other)
        assert predictions(other.out) == maps
        assert told(other)[0]["rows"] != scored["rows"]


def test_a_test_subject_in_training_is_named_before_anything_is_trained(tmp_path: Path) -> None:
    experiment, train = made(tmp_path, "counterfactual"), [s for s in cohort() if s.split == "train"]
    donor = [*map(edited, train[1:]), edited(train[0], donors=["S009"])]
    twice = [*cohort(), slice_sample(9, 5, acquisition=GE, split="train")]  # tested as Siemens's, trained on as GE's
    leaks = {
        "S010 is the row's own subject": {
            "augmented": (write_samples(tmp_path / "row", [*map(edited, train), edited(slice_sample(10))]),)
        },
        "S009 is a donor": {"augmented": (write_samples(tmp_path / "donor", donor),)},
        "S009 is the row's own subject": {"data": write_samples(tmp_path / "twice", twice)},
    }
    FITS.clear()
    for says, change in leaks.items():
        with pytest.raises(LeakageError, match=says):
            ran(replace(experiment, **change))
    assert not FITS


def test_models_that_no_row_names_are_looked_at(tmp_path: Path) -> None:
    """Those that labelled the data, and those that the segmenter is built on."""
    experiment = made(tmp_path)
    seen = spec_of("segmenter_nested").model_copy(update={"subject_hashes": (subject_hash("S009"),)})
    described = save_model(Store(tmp_path / "model"), seen, drawn(seen, 1).state_dict())
    built_on = {"any": recipe("autoencoder", parts={"features": str(tmp_path / "model")})}
    FITS.clear()
    with pytest.raises(LeakageError, match=r"part 'features' of recipe autoencoder: .*S009 trained model"):
        ran(replace(experiment, recipes=built_on))
    Store(experiment.data).write_json(LABELLERS, {"unet": described.sha256})
    with pytest.raises(LeakageError, match=r"labels of the rows, unet: .*must be known"):
        ran(experiment)
    with pytest.raises(LeakageError, match=r"labels of the rows, unet: .*S009 trained model"):
        ran(replace(experiment, checkpoints=(str(tmp_path / "model"),)))
    assert not FITS


def test_what_a_protocol_lacks_or_forbids_is_an_error(tmp_path: Path) -> None:
    experiment = made(tmp_path)
    ge = write_samples(tmp_path / "ge", [s for s in cohort() if s.acquisition == GE])
    strict = Protocol.model_validate(PROTOCOL.model_dump() | {"generator_sees": "train_domain"})
    cases: dict[str, dict[str, Any]] = {
        "no labelled rows to be tested": {"data": ge},
        "--augmented-untrained": {"arms": ("counterfactual_untrained",)},
        "holds out": {"protocol": strict, "arms": ("histogram_match",)},
        r"domain GE has no augmented rows for its cells GE → .*found rows made from 1 of unknown": {
            "arms": ("counterfactual",),
            "augmented": (write_samples(tmp_path / "other", [edited(slice_sample(99))]),),
        },
        r"domain Siemens has no augmented rows for its cells Siemens → .*rows made from 6 of GE .*train": {
            "arms": ("counterfactual",),
            "augmented": experiment.augmented[:1],
        },
        "did you mean 'classical'": {"arms": ("classic",)},
    }
    for says, change in cases.items():
        with pytest.raises(AugengineError, match=says):
            ran(replace(experiment, **change))
