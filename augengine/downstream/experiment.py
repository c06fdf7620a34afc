"""A protocol, real and augmented shards in; fitted segmenters, stored predictions and measures of every cell out.

Everything is cached by what it follows from: the same call again makes what is missing, and a changed setting makes
anew only what depends on it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import pyarrow as pa

from augengine.diffusion.checkpoint import read_spec
from augengine.diffusion.spec import ModelSpec
from augengine.downstream.arms import Arm, Extra, arms_of, check_arms, find_arms, known_arms, views_of
from augengine.downstream.classes import outermost_first, regions_of_classes
from augengine.downstream.contrast import CONTRAST, ContrastWorker, contrast_id
from augengine.downstream.drawn_subjects import EVERYONE, TrainingSet, available, check_sizes
from augengine.downstream.inventory import Inventory, take_inventory
from augengine.downstream.lineage import models_of
from augengine.downstream.predictions import PREDICTIONS, TRUTH, Chunk, PredictionWorker, TruthWorker, test_chunks
from augengine.downstream.protocols import Protocol
from augengine.downstream.results import PLAN, prediction_id
from augengine.downstream.segmenters import SEGMENTERS, Training
from augengine.downstream.views import View, write_views
from augengine.errors import DataError
from augengine.io.dataset import dataset_files
from augengine.io.labellers import labellers
from augengine.io.shards import iter_metadata
from augengine.io.store import Store
from augengine.leakage import Lineage, check_leakage
from augengine.pipeline.units import Actors, Progress, Summary, Unit, run_units
from augengine.rng import digest
from augengine.train.config import Recipe

FITTED = "fitted"
CURVE_ARM = "counterfactual"
NET_STRIDE = 1000
"""Between the seeds of the networks of one draw, so that more networks leave the first ones as they are."""
Stage = Callable[[str], AbstractContextManager[Progress]]


@dataclass(frozen=True)
class Experiment:
    """What is compared.

    Attributes:
        data: real shards, all domains and splits.
        out: absolute path or URI.
        augmented, untrained: folders of augmented rows of a trained generator, and of one with random weights.
        declared: further folders of augmented rows, by the name of the arm that adds them.
        arms: names; `real` always is one.
        seeds: trainings of every arm and training domain, numbered from 0.
        train_subjects: numbers of training subjects to compare (`EVERYONE`: all); none compares all alone.
        fresh_draws: every seed draws subjects of its own; otherwise all seeds train on the same.
        nets: networks of every seed whose probabilities are averaged.
        steps: optimiser steps of every training, at most where its recipe's `best_checkpoint` has a patience.
        ratio: added rows per real row.
        curve: further ratios, of the arms that add rows of folders and change nothing at random.
        segmenter, recipes: which system is trained, and its recipes by role.
        checkpoints: further models that the augmented rows' provenance names.
    """

    protocol: Protocol
    data: str
    out: str
    recipes: Mapping[str, Recipe]
    augmented: tuple[str, ...] = ()
    untrained: tuple[str, ...] = ()
    arms: tuple[str, ...] = ("real",)
    seeds: int = 5
    steps: int = 1000
    ratio: float = 1.0
    curve: tuple[float, ...] = ()
    segmenter: str = "unet"
    checkpoints: tuple[str, ...] = ()
    declared: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    train_subjects: tuple[int, ...] = ()
    fresh_draws: bool = False
    nets: int = 1

    @property
    def sizes(self) -> tuple[int, ...]:
        """Numbers of training subjects, from the main one on: everyone, or else the largest."""
        asked = set(self.train_subjects) or {EVERYONE}
        return tuple(sorted(asked, key=lambda n: math.inf if n == EVERYONE else n, reverse=True))

    def training_sets(self, seed: int) -> list[TrainingSet]:
        """Whose rows the trainings of a seed see."""
        return [
            TrainingSet(train, n, seed if self.fresh_draws and n != EVERYONE else 0)
            for train in self.protocol.train_domains
            for n in self.sizes
        ]

    @property
    def folders(self) -> dict[Extra, tuple[str, ...]]:
        """Folders of augmented rows by kind; kinds without any are left out."""
        found = {"augmented": self.augmented, "untrained": self.untrained, **self.declared}
        return {kind: folders for kind, folders in found.items() if folders}

    @property
    def known_arms(self) -> dict[str, Arm]:
        """Every arm that could be asked for, by name."""
        return known_arms(self.declared)

    @property
    def adapted_recipes(self) -> dict[str, Recipe]:
        """The recipes as all arms share them.

        Their regions are the protocol's classes, outermost first, since what is trained is what is measured. Nothing
        changes images at random: that is what sets the arm `classical` apart. Where the protocol names lesions, their
        share of the rows is that of the real ones in every arm (`data.balance`). Where the protocol validates on its
        test subjects, their loss chooses no checkpoint (`best_checkpoint`): all steps are trained.
        """
        classes = {name: list(labels) for name, labels in outermost_first(self.protocol.classes).items()}
        changes: dict[str, Any] = {"warp": None, "classical": None, "random_contrast": None,
                                   "batchgeneratorsv2": None, "pictures_every": 0}  # fmt: skip
        if self.protocol.validates_on_test:
            changes["best_checkpoint"] = None
        adapted = {}
        for role, recipe in self.recipes.items():
            values = recipe.model_dump(mode="json") | changes
            if recipe.data.regions:
                values["data"]["regions"] = classes
                if self.protocol.lesion:
                    values["data"]["balance"] = list(self.protocol.lesion)
            adapted[role] = Recipe.model_validate(values)
        return adapted


@dataclass(frozen=True)
class Trial:
    """One segmenter of one network or several: its place in the tables and the folders of its rows.

    Attributes:
        nets: id and seed of each network; `trial_id` is that of the only one.
    """

    train: str
    arm: str
    ratio: float
    seed: int
    shards: tuple[str, ...]
    trial_id: str
    subjects: int
    nets: tuple[tuple[str, int], ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON, without paths."""
        return {"train": self.train, "arm": self.arm, "ratio": self.ratio, "seed": self.seed,
                "trial_id": self.trial_id, "subjects": self.subjects}  # fmt: skip


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
    models = models_of(_added(experiment), experiment.checkpoints)
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
    trials = plan(experiment, arms, folders)
    check_ratios(experiment, trials)
    write_plan(experiment, trials, chunks, data)
    with stage("train segmenters") as progress:
        trainings = _fit(experiment, trials, actors, progress)
    with stage("true class maps") as progress:
        units = [Unit(chunk.digest(data, protocol), chunk.to_dict()) for chunk in chunks]
        args = {"data": data.uri, "protocol": protocol}
        run_units(
            units, TruthWorker, args, Store(f"{out.uri}/{TRUTH}"), {"stage": TRUTH}, actors=_light(actors),
            progress=progress,
        )  # fmt: skip
    if protocol.contrast_channel is not None:
        with stage("lesion contrast of test patients") as progress:
            units = [Unit(contrast_id(c.digest(data, protocol), protocol), c.to_dict()) for c in chunks]
            run_units(
                units, ContrastWorker, args, Store(f"{out.uri}/{CONTRAST}"), {"stage": CONTRAST},
                actors=_light(actors), progress=progress,
            )  # fmt: skip
    with stage("predict") as progress:
        _predict(experiment, trials, chunks, data, actors, progress)
    return Done(trainings, lineage, tuple(trials))


def _light(actors: Actors) -> Actors:
    """The same actors without GPUs, for stages that hold no network."""
    return replace(actors, num_gpus=0)


def check_classes(experiment: Experiment) -> None:
    """Refuse a segmenter that will predict no class of the protocol, before it is trained; raises a `ConfigError`."""
    regions = SEGMENTERS[experiment.segmenter].regions_of(experiment.adapted_recipes)
    if regions:
        regions_of_classes(regions, experiment.protocol.classes)


def check_data(data: Inventory, chunks: Sequence[Chunk], protocol: Protocol) -> None:
    """Refuse data that a cell of the protocol has no labelled rows for.

    Raises:
        DataError: naming the domain and the splits.
    """
    tested = {(chunk.value, chunk.split) for chunk in chunks}
    for cell in protocol.cells:
        train = data.scanned(protocol.values(cell.train), protocol.splits.train) & data.labelled
        for what, there in (("trained", bool(train)), ("tested", bool(protocol.tests(cell) & tested))):
            if not there:
                domain = cell.train if what == "trained" else cell.test
                wanted = f"{protocol.key} {' or '.join(protocol.values(domain))}"
                raise DataError(
                    f"the cell {cell} of protocol {protocol.name} has no labelled rows to be {what} on, of {wanted}",
                    found=_labelled(data), where=data.uri,
                    next_step="check the splits and labels of the data, or choose another protocol",
                )  # fmt: skip


def check_validation(experiment: Experiment, data: Inventory) -> None:
    """Refuse a recipe whose validation loss chooses the checkpoint where a domain has no rows to validate on.

    Raises:
        DataError: naming the recipe and the domain.
    """
    protocol = experiment.protocol
    choosing = [recipe.name for recipe in experiment.adapted_recipes.values() if recipe.best_checkpoint is not None]
    for train in protocol.train_domains if choosing else ():
        if not data.scanned(protocol.values(train), protocol.splits.val) & data.labelled:
            raise DataError(
                f"best_checkpoint of recipe {choosing[0]} chooses by the validation loss, and the domain {train} has "
                f"no labelled rows of split {' or '.join(protocol.splits.val)}",
                found=_labelled(data), where=data.uri,
                next_step="ingest with other --fractions or --labelled-fractions, or give a --recipe without it",
            )  # fmt: skip


def _labelled(data: Inventory) -> str:
    """Subjects with and without labels, by domain value and split."""
    subjects = Counter((value, split) for (_, value), split in data.split.items())
    labelled = Counter((key[1], data.split[key]) for key in data.labelled)
    told = (f"{value} {split}: {labelled[value, split]} of {n}" for (value, split), n in sorted(subjects.items()))
    return "labelled subjects, " + (", ".join(told) or "none at all")


Views = dict[TrainingSet, dict[Extra, list[View]]]


def _views(experiment: Experiment, arms: Sequence[Arm], data: Inventory) -> Views:
    ratio = max(experiment.ratio, *experiment.curve) if experiment.curve else experiment.ratio
    return {
        chosen: views_of(chosen, arms, experiment.protocol, data, experiment.folders, ratio)
        for chosen in dict.fromkeys(one for seed in range(experiment.seeds) for one in experiment.training_sets(seed))
    }


def _added(experiment: Experiment) -> list[str]:
    """Every folder of augmented rows, once."""
    return list(dict.fromkeys(folder for folders in experiment.folders.values() for folder in folders))


Folders = Mapping[TrainingSet, Mapping[Extra, Sequence[str]]]
"""Whose rows → kind of rows → folders of shards."""


def guard_folders(
    experiment: Experiment, data: Inventory, chunks: Sequence[Chunk], models: Mapping[str, ModelSpec]
) -> None:
    """Refuse folders of augmented rows that hold anything of subjects that are only tested on.

    No arm would take such a row, but whoever made it has mixed up the splits.
    """
    protocol = experiment.protocol
    values = {value for train in protocol.train_domains for value in protocol.values(train)}
    trained = {subject for subject, _ in data.scanned(values, protocol.splits.train)}
    tested = {subject for chunk in chunks for subject in chunk.subjects} - trained
    for folder in _added(experiment):
        check_leakage(tested, _metadata(folder), models)


def guard(
    experiment: Experiment, folders: Folders, chunks: Sequence[Chunk], models: Mapping[str, ModelSpec]
) -> dict[str, Lineage]:
    """Resolve the lineage of everything that any arm is trained on, one training domain after the other."""
    protocol, parts = experiment.protocol, _parts(experiment)
    others = {f"labels of the rows, {role}": sha for role, sha in labellers(Store(experiment.data)).items()}
    others |= {name: spec.sha256 for name, spec in parts.items()}
    found = {}
    for train in protocol.train_domains:
        tests = {pair for cell in protocol.cells if cell.train == train for pair in protocol.tests(cell)}
        subjects = {s for chunk in chunks if (chunk.value, chunk.split) in tests for s in chunk.subjects}
        own = [kinds for chosen, kinds in folders.items() if chosen.train == train]
        uris = dict.fromkeys(uri for kinds in own for shards in kinds.values() for uri in shards)
        rows = chain.from_iterable(_metadata(uri) for uri in uris)
        # Validation rows decide no weight; where the protocol validates on the test subjects, they are those.
        counted = (row for row in rows if row["split"] == "train" or not protocol.validates_on_test)
        found[train] = check_leakage(
            subjects,
            counted,
            {**models, **parts},
            held_out_manufacturers=protocol.held_out_manufacturers(train),
            others=others,
        )
    return found


def _parts(experiment: Experiment) -> dict[str, ModelSpec]:
    """Trained models that the segmenter's recipes are built on."""
    return {
        f"part '{name}' of recipe {recipe.name}": read_spec(uri)
        for recipe in experiment.recipes.values()
        for name, uri in recipe.parts.items()
        if uri is not None
    }


def _metadata(uri: str) -> Iterable[dict[str, Any]]:
    store = Store(uri)
    return iter_metadata(store, dataset_files(store))


def plan(experiment: Experiment, arms: Sequence[Arm], folders: Folders) -> list[Trial]:
    """Every training: seeds outermost, so that an interrupted run has compared all arms on the first ones."""
    return [
        _trial(experiment, chosen, arm, ratio, seed, folders[chosen])
        for seed in range(experiment.seeds)
        for chosen in experiment.training_sets(seed)
        for arm in arms_of(chosen.train, arms, experiment.protocol)
        for ratio in dict.fromkeys((experiment.ratio, *(_curve(experiment, chosen) if varied(arm) else ())))
    ]


def _curve(experiment: Experiment, chosen: TrainingSet) -> tuple[float, ...]:
    """Ratios are compared on the main number of subjects alone."""
    return experiment.curve if chosen.subjects == experiment.sizes[0] else ()


def _trial(
    experiment: Experiment, chosen: TrainingSet, arm: Arm, ratio: float, seed: int, kinds: Mapping[Extra, Sequence[str]]
) -> Trial:
    extra = kinds[arm.extra] if arm.extra != "none" else ()
    shards = (*kinds["none"], *extra)
    recipes = {role: recipe.digest for role, recipe in experiment.adapted_recipes.items()}
    more: list[Any] = ["batchgeneratorsv2"] if arm.batchgeneratorsv2 else []
    more += filter(None, [SEGMENTERS.made_by(experiment.segmenter)])

    def identity(of_net: int) -> str:
        return digest(
            [uri.rsplit("/", 1)[-1] for uri in shards], experiment.segmenter, recipes, arm.classical,
            arm.random_contrast, ratio if extra else 0, of_net, experiment.steps, *more, length=16,
        )  # fmt: skip

    nets = tuple((identity(of_net), of_net) for of_net in (seed + NET_STRIDE * k for k in range(experiment.nets)))
    trial_id = nets[0][0] if len(nets) == 1 else digest([net for net, _ in nets], length=16)
    return Trial(chosen.train, arm.name, ratio, seed, shards, trial_id, chosen.subjects, nets)


def varied(arm: Arm) -> bool:
    """True if a curve over ratios is drawn for an arm: it adds rows that were made for it, and nothing else."""
    return arm.name == arm.extra or arm.name == CURVE_ARM


def check_ratios(experiment: Experiment, trials: Sequence[Trial]) -> None:
    """Refuse ratios that the augmented rows do not suffice for, before the first training.

    Raises:
        DataError: with what there is.
    """
    arms = experiment.known_arms
    for shards, ratio in dict.fromkeys((t.shards, t.ratio) for t in trials if _per_real(t, arms) is not None):
        for recipe in experiment.adapted_recipes.values():
            replace(recipe.data.rows("train"), augmented_per_real=ratio).within([Store(uri) for uri in shards])


def _per_real(trial: Trial, arms: Mapping[str, Arm]) -> float | None:
    """Augmented rows for each real one; None takes all rows."""
    return trial.ratio if arms[trial.arm].extra not in ("none", "repeated") else None


def write_plan(experiment: Experiment, trials: Sequence[Trial], chunks: Sequence[Chunk], data: Inventory) -> None:
    """What the tables need besides predictions and truths."""
    Store(experiment.out).write_json(
        PLAN,
        {
            "protocol": experiment.protocol.model_dump(mode="json"), "segmenter": experiment.segmenter,
            "steps": experiment.steps, "ratio": experiment.ratio, "data": data.digest,
            "sizes": list(experiment.sizes), "fresh_draws": experiment.fresh_draws, "nets": experiment.nets,
            "patients": {
                train: available(data, experiment.protocol, train) for train in experiment.protocol.train_domains
            },
            "trials": [trial.to_dict() for trial in trials],
            "chunks": [
                {
                    "chunk_id": c.digest(data, experiment.protocol), "value": c.value, "split": c.split,
                    "subjects": list(c.subjects),
                }
                for c in chunks
            ],
        },
    )  # fmt: skip


class FitWorker:
    """Trains one segmenter in this process, by the loop that Ray Train runs on workers of its own."""

    def __init__(self, segmenter: str, recipes: Mapping[str, dict[str, Any]], steps: int, out: str) -> None:
        self.segmenter, self.steps, self.out = SEGMENTERS[segmenter], steps, out
        self.recipes = {role: Recipe.model_validate(recipe) for role, recipe in recipes.items()}

    def __call__(self, spec: dict[str, Any]) -> dict[str, pa.Table]:
        """One row that names the training."""
        training = Training(spec["augmented_per_real"], spec["classical"], spec["random_contrast"],
                            spec["batchgeneratorsv2"], num_workers=0, threads_per_worker=1,
                            progress=lambda line: None)  # fmt: skip
        self.segmenter.fit(
            spec["shards"], self.steps, spec["seed"], f"{self.out}/{spec['trial_id']}", recipes=self.recipes,
            training=training,
        )  # fmt: skip
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
                "trial_id": net, "shards": list(trial.shards), "seed": seed,
                "classical": arms[trial.arm].classical, "random_contrast": arms[trial.arm].random_contrast,
                "batchgeneratorsv2": arms[trial.arm].batchgeneratorsv2, "augmented_per_real": _per_real(trial, arms),
            },
        )
        for trial in trials
        for net, seed in trial.nets
    }  # fmt: skip
    return run_units(
        list(units.values()), FitWorker, args, store, {"stage": "segmenters"}, actors=actors, progress=progress
    )


def _predict(
    experiment: Experiment, trials: Sequence[Trial], chunks: Sequence[Chunk], data: Inventory, actors: Actors,
    progress: Progress,
) -> None:  # fmt: skip
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
        list(units.values()), PredictionWorker, args, Store(f"{out.uri}/{PREDICTIONS}"), {"stage": PREDICTIONS},
        actors=actors, progress=progress,
    )  # fmt: skip


def chunks_of(train: str, chunks: Iterable[Chunk], protocol: Protocol) -> list[Chunk]:
    """The chunks that some cell of a training domain is tested on."""
    tests = {pair for cell in protocol.cells if cell.train == train for pair in protocol.tests(cell)}
    return [chunk for chunk in chunks if (chunk.value, chunk.split) in tests]
