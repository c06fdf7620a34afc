"""What an experiment compares: a protocol, its data, arms, seeds and numbers of patients, as one frozen value."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from augengine.downstream.arms import Arm, Extra, known_arms
from augengine.downstream.classes import outermost_first
from augengine.downstream.drawn_subjects import EVERYONE, TrainingSet
from augengine.downstream.protocols import Protocol
from augengine.train.config import Recipe

COUNTERFACTUAL = "counterfactual"


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
        curve: further ratios, of the arms of `curve_arms`.
        curve_arms: names; none: the arms that add rows of folders and change nothing at random.
        shorten_curve: ratios of the curve that the augmented rows do not suffice for are left out, and no error.
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
    curve_arms: tuple[str, ...] = ()
    shorten_curve: bool = False
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

    def varies(self, arm: Arm) -> bool:
        """True if a curve over ratios is drawn for an arm."""
        if self.curve_arms:
            return arm.name in self.curve_arms
        return arm.name == arm.extra or arm.name == COUNTERFACTUAL

    @property
    def folders(self) -> dict[Extra, tuple[str, ...]]:
        """Folders of augmented rows by kind; kinds without any are left out."""
        found = {"augmented": self.augmented, "untrained": self.untrained, **self.declared}
        return {kind: folders for kind, folders in found.items() if folders}

    @property
    def added(self) -> tuple[str, ...]:
        """Every folder of augmented rows, once."""
        return tuple(dict.fromkeys(folder for folders in self.folders.values() for folder in folders))

    @property
    def known_arms(self) -> dict[str, Arm]:
        """Every arm that could be asked for, by name."""
        return known_arms(self.declared)

    @property
    def adapted_recipes(self) -> dict[str, Recipe]:
        """The recipes as all arms share them.

        Their regions are the protocol's classes, outermost first, since what is trained is what is measured. Nothing
        changes images at random: that is what sets the arm `classical` apart. The share of the rows that show a lesion
        is that of the real ones in every arm (`data.balance`); labels of the lesion that no class measures do not
        count, since the data need not have them. Where the protocol validates on its test subjects, their loss chooses
        no checkpoint (`best_checkpoint`): all steps are trained.
        """
        classes = {name: list(labels) for name, labels in outermost_first(self.protocol.classes).items()}
        changes: dict[str, Any] = {
            "warp": None,
            "classical": None,
            "random_contrast": None,
            "batchgeneratorsv2": None,
            "pictures_every": 0,
        }
        if self.protocol.validates_on_test:
            changes["best_checkpoint"] = None
        adapted = {}
        for role, recipe in self.recipes.items():
            values = recipe.model_dump(mode="json") | changes
            if recipe.data.regions:
                values["data"]["regions"] = classes
                measured = {label for labels in classes.values() for label in labels}
                if lesion := [label for label in self.protocol.lesion if label in measured]:
                    values["data"]["balance"] = lesion
            adapted[role] = Recipe.model_validate(values)
        return adapted
