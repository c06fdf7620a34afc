"""An experiment in; fitted segmenters, stored predictions and measures of every cell out.

Everything is cached by what it follows from: the same call again makes what is missing, and a changed setting makes
anew only what depends on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from augengine.downstream.arms import Arm, Extra, check_arms, find_arms, views_of
from augengine.downstream.checks import check_classes, check_data, check_validation
from augengine.downstream.contrast import CONTRAST, ContrastWorker, contrast_id
from augengine.downstream.drawn_subjects import TrainingSet, check_sizes
from augengine.downstream.experiment import Experiment
from augengine.downstream.guards import guard, guard_folders
from augengine.downstream.inventory import Inventory, take_inventory
from augengine.downstream.lineage import models_of
from augengine.downstream.predictions import PREDICTIONS, TRUTH, Chunk, PredictionWorker, TruthWorker, test_chunks
from augengine.downstream.protocols import Protocol
from augengine.downstream.results import prediction_id
from augengine.downstream.segmenters import SEGMENTERS, Training
from augengine.downstream.segmenters.fitting import mark
from augengine.downstream.trials import Trial, per_real, plan, sufficing, write_plan
from augengine.downstream.views import View, write_views
from augengine.io.store import Store
from augengine.leakage import Lineage
from augengine.pipeline.units import Actors, Progress, Summary, run_units
from augengine.pipeline.workers import Unit
from augengine.train.config import Recipe

FITTED = "fitted"
Stage = Callable[[str], AbstractContextManager[Progress]]


@dataclass(frozen=True)
class Done:
    """What a run did: trainings made now and found from before, and what the guard looked at."""

    trainings: Summary
    lineage: Mapping[str, Lineage]
    trials: tuple[Trial, ...]


def run(experiment: Experiment, stage: Stage, *, actors: Actors = Actors()) -> Done:  # noqa: B008  (frozen)
    """Run every arm of every training domain; Ray must be initialised, unless the actors are inline.

    Raises:
        LeakageError: before anything is trained, naming the first test subject in a training row's lineage.
        AugengineError: data, arms or folders that do not fit the protocol.
    """
    protocol, out = experiment.protocol, Store(experiment.out)
    arms = find_arms(experiment.arms, experiment.declared)
    check_classes(experiment)
    check_arms(arms, protocol, list(experiment.folders))
    data = take_inventory(experiment.data, protocol)
    chunks = test_chunks(data, protocol)
    check_data(data, chunks, protocol)
    check_sizes(experiment.sizes, data, protocol)
    check_validation(experiment, data)
    models = models_of(experiment.added, experiment.checkpoints)
    guard_folders(experiment, data, chunks, models)
    views = _views(experiment, arms, data)
    with stage("rows of every arm") as progress:
        needed = {view.name: view for kinds in views.values() for found in kinds.values() for view in found}
        uris = write_views(
            list(needed.values()), f"{out.uri}/training", protocol, actors=_light(actors), progress=progress
        )
    folders = {
        chosen: {extra: [uris[view.name] for view in found] for extra, found in kinds.items()}
        for chosen, kinds in views.items()
    }
    lineage = guard(experiment, folders, chunks, models)
    trials = sufficing(experiment, plan(experiment, arms, folders))
    write_plan(experiment, trials, chunks, data)
    with stage("train segmenters") as progress:
        trainings = _fit(experiment, trials, actors, progress)
    with stage("true class maps") as progress:
        units = [Unit(chunk.digest(data, protocol), chunk.to_dict()) for chunk in chunks]
        args = {"data": data.uri, "protocol": protocol}
        run_units(
            units,
            TruthWorker,
            args,
            Store(f"{out.uri}/{TRUTH}"),
            {"stage": TRUTH},
            actors=_light(actors),
            progress=progress,
        )
    if protocol.contrast_channel is not None:
        with stage("lesion contrast of test patients") as progress:
            units = [Unit(contrast_id(c.digest(data, protocol), protocol), c.to_dict()) for c in chunks]
            run_units(
                units,
                ContrastWorker,
                args,
                Store(f"{out.uri}/{CONTRAST}"),
                {"stage": CONTRAST},
                actors=_light(actors),
                progress=progress,
            )
    with stage("predict") as progress:
        _predict(experiment, trials, chunks, data, actors, progress)
    return Done(trainings, lineage, tuple(trials))


def _light(actors: Actors) -> Actors:
    """The same actors without GPUs, for stages that hold no network."""
    return replace(actors, num_gpus=0)


Views = dict[TrainingSet, dict[Extra, list[View]]]


def _views(experiment: Experiment, arms: Sequence[Arm], data: Inventory) -> Views:
    ratio = max(experiment.ratio, *experiment.curve) if experiment.curve else experiment.ratio
    return {
        chosen: views_of(chosen, arms, experiment.protocol, data, experiment.folders, ratio)
        for chosen in dict.fromkeys(one for seed in range(experiment.seeds) for one in experiment.training_sets(seed))
    }


class FitWorker:
    """Trains one segmenter in this process, by the loop that Ray Train runs on workers of its own."""

    def __init__(self, segmenter: str, recipes: Mapping[str, dict[str, Any]], steps: int, out: str) -> None:
        self.segmenter, self.steps, self.out = SEGMENTERS[segmenter], steps, out
        self.recipes = {role: Recipe.model_validate(recipe) for role, recipe in recipes.items()}

    def __call__(self, spec: dict[str, Any]) -> dict[str, pa.Table]:
        """One row that names the training."""
        training = Training(
            spec["augmented_per_real"],
            spec["classical"],
            spec["random_contrast"],
            spec["batchgeneratorsv2"],
            num_workers=0,
            threads_per_worker=1,
            progress=lambda line: None,
        )
        out = f"{self.out}/{spec['trial_id']}"
        self.segmenter.fit(spec["shards"], self.steps, spec["seed"], out, recipes=self.recipes, training=training)
        mark(self.segmenter, out)
        return {FITTED: pa.table({"trial_id": [spec["trial_id"]], "steps": [self.steps]})}


def _fit(experiment: Experiment, trials: Sequence[Trial], actors: Actors, progress: Progress) -> Summary:
    store = Store(f"{experiment.out}/segmenters")
    recipes = {role: recipe.model_dump(mode="json") for role, recipe in experiment.adapted_recipes.items()}
    args = {"segmenter": experiment.segmenter, "recipes": recipes, "steps": experiment.steps, "out": store.uri}
    arms = experiment.known_arms
    units = {
        net: Unit(
            net,
            {
                "trial_id": net,
                "shards": list(trial.shards),
                "seed": seed,
                "classical": arms[trial.arm].classical,
                "random_contrast": arms[trial.arm].random_contrast,
                "batchgeneratorsv2": arms[trial.arm].batchgeneratorsv2,
                "augmented_per_real": per_real(trial, arms),
            },
        )
        for trial in trials
        for net, seed in trial.nets
    }
    return run_units(
        list(units.values()), FitWorker, args, store, {"stage": "segmenters"}, actors=actors, progress=progress
    )


def _predict(
    experiment: Experiment,
    trials: Sequence[Trial],
    chunks: Sequence[Chunk],
    data: Inventory,
    actors: Actors,
    progress: Progress,
) -> None:
    protocol, out = experiment.protocol, Store(experiment.out)
    units = {}
    for trial in trials:
        for chunk in chunks_of(trial.train, chunks, protocol):
            unit_id = prediction_id(trial.trial_id, chunk.digest(data, protocol))
            nets = [f"{out.uri}/segmenters/{net}" for net, _ in trial.nets]
            spec = {"segmenters": nets, "chunk": chunk.to_dict()}
            units[unit_id] = Unit(unit_id, spec)
    args = {"data": data.uri, "protocol": protocol, "device": "cuda" if actors.num_gpus else "cpu"}
    run_units(
        list(units.values()),
        PredictionWorker,
        args,
        Store(f"{out.uri}/{PREDICTIONS}"),
        {"stage": PREDICTIONS},
        actors=actors,
        progress=progress,
    )


def chunks_of(train: str, chunks: Iterable[Chunk], protocol: Protocol) -> list[Chunk]:
    """The chunks that some cell of a training domain is tested on."""
    tests = {pair for cell in protocol.cells if cell.train == train for pair in protocol.tests(cell)}
    return [chunk for chunk in chunks if (chunk.value, chunk.split) in tests]
