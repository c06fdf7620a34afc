"""An experiment and the folders of its rows in; its trainings, and the plan that its tables need, out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from augengine.downstream.arms import Arm, Extra, arms_of
from augengine.downstream.drawn_subjects import TrainingSet, available
from augengine.downstream.experiment import Experiment
from augengine.downstream.inventory import Inventory
from augengine.downstream.predictions import Chunk
from augengine.downstream.results import PLAN
from augengine.downstream.segmenters import SEGMENTERS
from augengine.errors import DataError
from augengine.io.store import Store
from augengine.rng import digest

NET_STRIDE = 1000
"""Between the seeds of the networks of one draw, so that more networks leave the first ones as they are."""
Folders = Mapping[TrainingSet, Mapping[Extra, Sequence[str]]]
"""Whose rows → kind of rows → folders of shards."""


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
        return {
            "train": self.train,
            "arm": self.arm,
            "ratio": self.ratio,
            "seed": self.seed,
            "trial_id": self.trial_id,
            "subjects": self.subjects,
        }


def plan(experiment: Experiment, arms: Sequence[Arm], folders: Folders) -> list[Trial]:
    """Every training: seeds outermost, so that an interrupted run has compared all arms on the first ones."""
    return [
        _trial(experiment, chosen, arm, ratio, seed, folders[chosen])
        for seed in range(experiment.seeds)
        for chosen in experiment.training_sets(seed)
        for arm in arms_of(chosen.train, arms, experiment.protocol)
        for ratio in dict.fromkeys((experiment.ratio, *(_curve(experiment, chosen) if experiment.varies(arm) else ())))
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
            [uri.rsplit("/", 1)[-1] for uri in shards],
            experiment.segmenter,
            recipes,
            arm.classical,
            arm.random_contrast,
            ratio if extra else 0,
            of_net,
            experiment.steps,
            *more,
            length=16,
        )

    nets = tuple((identity(of_net), of_net) for of_net in (seed + NET_STRIDE * k for k in range(experiment.nets)))
    trial_id = nets[0][0] if len(nets) == 1 else digest([net for net, _ in nets], length=16)
    return Trial(chosen.train, arm.name, ratio, seed, shards, trial_id, chosen.subjects, nets)


def sufficing(experiment: Experiment, trials: Sequence[Trial]) -> list[Trial]:
    """The trainings whose ratio the augmented rows suffice for: all, or with `shorten_curve` those of fewer ratios.

    Raises:
        DataError: with what there is, before the first training.
    """
    arms, too_high = experiment.known_arms, set[float]()
    for shards, ratio in dict.fromkeys((t.shards, t.ratio) for t in trials if per_real(t, arms) is not None):
        try:
            for recipe in experiment.adapted_recipes.values():
                replace(recipe.data.rows("train"), augmented_per_real=ratio).within([Store(uri) for uri in shards])
        except DataError:
            if not experiment.shorten_curve or ratio == experiment.ratio:
                raise
            too_high.add(ratio)
    return [trial for trial in trials if trial.ratio not in too_high]


def per_real(trial: Trial, arms: Mapping[str, Arm]) -> float | None:
    """Augmented rows for each real one; None takes all rows."""
    return trial.ratio if arms[trial.arm].extra not in ("none", "repeated", "oversampled") else None


def write_plan(experiment: Experiment, trials: Sequence[Trial], chunks: Sequence[Chunk], data: Inventory) -> None:
    """What the tables need besides predictions and truths."""
    Store(experiment.out).write_json(
        PLAN,
        {
            "protocol": experiment.protocol.model_dump(mode="json"),
            "segmenter": experiment.segmenter,
            "steps": experiment.steps,
            "ratio": experiment.ratio,
            "data": data.digest,
            "sizes": list(experiment.sizes),
            "fresh_draws": experiment.fresh_draws,
            "nets": experiment.nets,
            "patients": {
                train: available(data, experiment.protocol, train) for train in experiment.protocol.train_domains
            },
            "trials": [trial.to_dict() for trial in trials],
            "chunks": [
                {
                    "chunk_id": c.digest(data, experiment.protocol),
                    "value": c.value,
                    "split": c.split,
                    "subjects": list(c.subjects),
                }
                for c in chunks
            ],
        },
    )
