"""Few training patients: nested and fresh draws, several networks, how many draws would decide, and when to stop."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import slice_sample, write_samples
from toy_experiments import Threshold, quiet

from augengine.commands.evaluate import parse_subjects
from augengine.downstream.drawn_subjects import EVERYONE, TrainingSet, drawn
from augengine.downstream.experiment import Experiment
from augengine.downstream.plots import write_plots
from augengine.downstream.predictions import PredictionWorker
from augengine.downstream.protocols import Protocol
from augengine.downstream.results import PLAN, Plan, Row, measure
from augengine.downstream.run import run
from augengine.downstream.segmenters import SEGMENTERS
from augengine.downstream.sequential import run_until, widest_half
from augengine.downstream.tables import primary, write_tables
from augengine.errors import ConfigError, DataError
from augengine.io.store import Store
from augengine.metrics.draws import draw_differences, draws_needed
from augengine.pipeline.units import INLINE
from augengine.records import Provenance, Sample

ASKED = Protocol.model_validate(
    {
        "name": "tiny",
        "key": "none",
        "domains": {"all": ["all"]},
        "cells": [{"train": "all", "test": "all"}],
        "classes": {"fat": ["fat"]},
        "generator_sees": "train_domain",
        "metrics": ["dice"],
    }
)
SPLITS = {"train": range(1, 9), "val": range(9, 10), "test": range(10, 16)}


def noisy(sample: Sample) -> Sample:
    """Every patient has a level of its own and fat that fades to one side, so that who trains matters."""
    level = 1 + 0.05 * int(sample.subject_id[1:])
    fading = np.linspace(0.1, 1, sample.image.shape[2], dtype=np.float32)
    return sample.replace(image=sample.image * fading * np.float32(level))


def edited(source: Sample) -> Sample:
    made = Provenance(f"cf-{source.sample_id}", source.sample_id, "mix", "d", "acquisition", {"params": {}})
    return source.replace(image=np.round(source.image * np.float32(0.5)), provenance=made)


def experiment(folder: Path, **changes: Any) -> Experiment:
    rows = [noisy(slice_sample(n, split=split)) for split, numbers in SPLITS.items() for n in numbers]
    added = write_samples(folder / "mix", [edited(r) for r in rows if r.split == "train"])
    values: dict[str, Any] = {
        "protocol": ASKED,
        "data": write_samples(folder / "real", rows),
        "out": str(folder / "out"),
        "recipes": {},
        "declared": {"mix": (added,)},
        "arms": ("real", "mix"),
        "segmenter": "threshold",
        "seeds": 3,
        "steps": 1,
    }
    return Experiment(**{**values, **changes})


@pytest.fixture(autouse=True)
def _threshold() -> Iterator[None]:
    SEGMENTERS["threshold"] = Threshold
    Threshold.fits.clear()
    yield
    del SEGMENTERS["threshold"]


def trained_on(rows: list[Sample]) -> set[str]:
    return {row.subject_id for row in rows}


def test_smaller_draws_are_among_larger_ones_and_draws_differ() -> None:
    people = [(f"S{n}", value) for n in range(20) for value in ("a", "b")]
    found = {(n, d): drawn(people, TrainingSet("all", n, d)) for n in (5, 10, EVERYONE) for d in range(4)}
    for d in range(4):
        assert found[5, d] < found[10, d] < found[EVERYONE, d] == frozenset(people)
        assert len({person for person, _ in found[5, d]}) == 5
        assert len(found[5, d]) == 10, "a patient comes with all scans"
    assert len({found[5, d] for d in range(4)}) == 4
    assert drawn(list(reversed(people)), TrainingSet("all", 5, 2)) == found[5, 2]


def test_fresh_draws_are_paired_across_arms_and_measured_apart(tmp_path: Path) -> None:
    asked = experiment(tmp_path, train_subjects=(2, 4, EVERYONE), fresh_draws=True)
    done = run(asked, quiet, actors=INLINE)
    assert [(t.seed, t.subjects, t.arm) for t in done.trials] == [
        (seed, n, arm) for seed in range(3) for n in (EVERYONE, 4, 2) for arm in ("real", "mix")
    ]
    seen: dict[tuple[int, int], set[str]] = {}
    for trial, fit in zip(done.trials, Threshold.fits, strict=True):
        real, added = ([r for r in fit["rows"] if bool(r.provenance) == flag] for flag in (False, True))
        assert len(trained_on(real)) == (trial.subjects or 8)
        assert trained_on(added) == (trained_on(real) if trial.arm == "mix" else set())
        assert seen.setdefault((trial.seed, trial.subjects), trained_on(real)) == trained_on(real)
        assert fit["seed"] == trial.seed
    for seed in range(3):
        assert seen[seed, 2] < seen[seed, 4]
    assert len({frozenset(seen[seed, 4]) for seed in range(3)}) > 1

    scores = measure(asked.out, actors=INLINE)
    assert {row.subjects for row in scores} == {0, 2, 4}
    plan = Plan.read(asked.out)
    assert (plan.sizes, plan.fresh_draws, plan.patients) == ((0, 4, 2), True, {"all": 8})
    results = write_tables(plan, scores, asked.out)
    told = {g["subjects"]: g for g in results["few_labels"]}
    assert [told[n]["patients"] for n in (2, 4, 0)] == [2, 4, 8]
    for n, gain in told.items():
        pair = [scores[Row("all → all", arm, 1.0, n)]["dice", "mean"] for arm in ("mix", "real")]
        differences = draw_differences(*pair)
        assert gain["difference"]["estimate"] == pytest.approx(np.mean(differences))
        assert gain["draws_needed"] == draws_needed(*pair)
        assert gain["with_seeds"]["low"] <= gain["difference"]["estimate"] <= gain["with_seeds"]["high"]
    assert {g["subjects"] for g in results["comparisons"]} == {EVERYONE}, "main tables are of all patients"
    assert any(g["difference"]["estimate"] for g in told.values()), "arms that all say the same would prove nothing"
    text = Path(asked.out, "tables.md").read_text()
    assert "## Gain by number of training patients" in text
    assert "| all → all | mix | real | all (8) |" in text
    assert "draws for ± 0.02" in text
    pictures = write_plots(plan, scores, results, primary(plan), asked.out)
    assert any(picture.endswith("few_labels.png") for picture in pictures)


def test_seeds_without_draws_train_on_the_same_patients(tmp_path: Path) -> None:
    asked = experiment(tmp_path, train_subjects=(3,), arms=("real",))
    run(asked, quiet, actors=INLINE)
    assert len({frozenset(trained_on(fit["rows"])) for fit in Threshold.fits}) == 1
    assert len(trained_on(Threshold.fits[0]["rows"])) == 3
    results = write_tables(Plan.read(asked.out), measure(asked.out, actors=INLINE), asked.out)
    assert results["few_labels"] == []
    assert {row["subjects"] for row in results["rows"]} == {3}


def test_probabilities_of_several_networks_are_averaged(tmp_path: Path) -> None:
    asked = experiment(tmp_path, arms=("real",), seeds=1)
    (one,) = run(asked, quiet, actors=INLINE).trials
    (two,) = run(replace(asked, nets=2), quiet, actors=INLINE).trials
    assert [fit["seed"] for fit in Threshold.fits] == [0, 1000], "the first network is found again"
    assert (one.nets[0], len(two.nets)) == (two.nets[0], 2)
    assert two.trial_id not in {net for net, _ in two.nets}

    class Constant(Threshold):
        def _predict(self, x: Any, seeds: Any) -> Any:
            return 0 * x + self.level

    worker = PredictionWorker(asked.data, ASKED, "cpu")
    chunk = {
        "value": "all",
        "split": "test",
        "subjects": ["S010"],
        "places": [[name, 0] for name in _files(asked.data)],
    }
    for levels, expected in (((0.9, 0.2), 1), ((0.6, 0.2), 0), ((0.2, 0.9), 1)):
        worker.loaded = (["a", "b"], [Constant(level) for level in levels])
        table = worker({"segmenters": ["a", "b"], "chunk": chunk})["maps"].to_pylist()
        assert set(table[0]["map"]) == {expected}


def _files(uri: str) -> list[str]:
    from augengine.io.dataset import dataset_files

    return list(dataset_files(Store(uri)))


def test_more_patients_than_there_are_is_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the domain all is to train on 9 subjects; found 8 with labels"):
        run(experiment(tmp_path, train_subjects=(2, 9)), quiet, actors=INLINE)
    assert not Threshold.fits


def test_draws_end_when_the_interval_is_narrow_enough(tmp_path: Path) -> None:
    asked, said = experiment(tmp_path, train_subjects=(2,), fresh_draws=True, seeds=7), []
    run_until(asked, 1.0, quiet, said.append, actors=INLINE)
    assert len(Plan.read(asked.out).trials) == 2 * 5
    assert said[-1].startswith("5 draws: the widest interval of a gain is ± 0.0")
    run_until(asked, 1e-9, quiet, said.append, actors=INLINE)
    assert len(Plan.read(asked.out).trials) == 2 * 7
    assert len(Threshold.fits) == 2 * 7, "earlier draws are kept"
    assert widest_half([]) == 0


def test_draws_that_would_decide_follow_from_the_deviation_of_paired_differences() -> None:
    rng = np.random.default_rng(0)
    base = {d: {p: rng.uniform() for p in "abc"} for d in range(400)}
    shift = rng.normal(0.03, 0.05, 400)
    other = {d: {p: v + shift[d] for p, v in values.items()} for d, values in base.items()}
    wanted = (1.96 * 0.05 / 0.02) ** 2
    assert draws_needed(other, base) == pytest.approx(wanted, rel=0.15)
    assert draws_needed(other, base, half_width=0.01) == pytest.approx(4 * wanted, rel=0.15)
    assert draws_needed({0: {"a": 1.0}}, {0: {"a": 0.0}}) is None
    assert draws_needed({0: {"a": 1.0}, 1: {"a": 1.0}}, {0: {"a": 0.0}, 1: {"a": 0.0}}) == 1


def test_numbers_of_patients_are_read() -> None:
    assert parse_subjects("5, 10,all", 3) == (5, 10, EVERYONE)
    assert parse_subjects(None, None) == (EVERYONE,)
    for text in ("0,5", "5,many", "-1", "2.5"):
        with pytest.raises(ConfigError, match="numbers of patients, or all"):
            parse_subjects(text, None)
    with pytest.raises(ConfigError, match="not all of them"):
        parse_subjects("all", 3)


def test_plans_from_before_draws_are_read(tmp_path: Path) -> None:
    asked = experiment(tmp_path, arms=("real",), seeds=1)
    run(asked, quiet, actors=INLINE)
    before = measure(asked.out, actors=INLINE)
    stored = json.loads(Store(asked.out).read(PLAN))
    for key in ("sizes", "fresh_draws", "nets", "patients"):
        del stored[key]
    for trial in stored["trials"]:
        del trial["subjects"]
    Store(asked.out).write_json(PLAN, stored)
    assert measure(asked.out, actors=INLINE) == before
    assert list(before) == [Row("all → all", "real", 1.0)]
