"""The arms of an experiment: what is added to a training domain's real rows, and whether images are changed at random.

All arms share architecture, seeds and number of optimiser steps, so an arm with more rows sees each of them less often.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from augengine.errors import ConfigError
from augengine.yaml_config import unknown_name
from downstream.inventory import Inventory, Scanned
from downstream.protocols import Protocol, other_domain
from downstream.views import View, augmented_views, matched_view, view_of

Extra = Literal["none", "repeated", "matched", "augmented", "untrained"]


@dataclass(frozen=True)
class Arm:
    """A way to train a segmenter.

    Attributes:
        extra: rows beside the real ones: the real ones again, the real ones with the other domain's histograms, what a
            trained generator made of them, or what an untrained one made of them.
        classical: random changes as nnU-Net makes them, of all rows.
        random_contrast: the tissues of all rows change their brightness at random.
    """

    name: str
    extra: Extra = "none"
    classical: bool = False
    random_contrast: bool = False


ARMS = {
    arm.name: arm
    for arm in (
        Arm("real"),
        Arm("real_repeated", "repeated"),
        Arm("classical", classical=True),
        Arm("random_contrast", random_contrast=True),
        Arm("histogram_match", "matched"),
        Arm("counterfactual", "augmented"),
        Arm("classical+counterfactual", "augmented", classical=True),
        Arm("counterfactual_untrained", "untrained"),
    )
}
DEFAULT_ARMS = ("real", "classical", "counterfactual", "classical+counterfactual", "counterfactual_untrained")
BASELINE = {"classical+counterfactual": "classical"}
"""The arm that another one is compared with besides `real`."""


def default_arms(augmented: bool, untrained: bool) -> list[str]:
    """Names of `DEFAULT_ARMS` whose rows there are."""
    there = {"none", *(["augmented"] if augmented else []), *(["untrained"] if untrained else [])}
    return [name for name in DEFAULT_ARMS if ARMS[name].extra in there]


def find_arms(names: Sequence[str]) -> tuple[Arm, ...]:
    """Arms by name, `real` first: every other one is compared with it."""
    for name in names:
        if name not in ARMS:
            raise unknown_name("arm", name, list(ARMS), "--arms")
    return tuple(ARMS[name] for name in dict.fromkeys(("real", *names)))


def arms_of(train: str, arms: Sequence[Arm], protocol: Protocol) -> list[Arm]:
    """Those that a training domain is trained with."""
    return [arm for arm in arms if arm.name == "real" or train not in protocol.reference]


def views_of(
    train: str, arms: Sequence[Arm], protocol: Protocol, data: Inventory, folders: Mapping[Extra, Sequence[str]],
    ratio: float,
) -> dict[Extra, list[View]]:  # fmt: skip
    """What a domain's arms are trained on: the real rows under `none`, and the additions by kind.

    Args:
        folders: augmented rows, of the trained and of the untrained generator.
        ratio: the largest number of added rows per real row that is asked for.

    Raises:
        ConfigError: an arm whose rows are not given, or that the protocol forbids.
    """
    rows = data.scanned(protocol.domains[train], protocol.splits.train) & data.labelled
    held_back = data.scanned(protocol.domains[train], protocol.splits.val) & data.labelled
    splits = dict.fromkeys(protocol.splits.train, "train") | dict.fromkeys(protocol.splits.val, "val")
    found: dict[Extra, list[View]] = {"none": [view_of(f"{train}-real", data, rows | held_back, splits=splits)]}
    for extra in {arm.extra for arm in arms_of(train, arms, protocol)} - {"none"}:
        if extra == "repeated":
            found[extra] = found["none"] * math.ceil(ratio)
        elif extra == "matched":
            donors = _donors(train, protocol, data)
            found[extra] = [matched_view(f"{train}-matched", data, rows, donors, math.ceil(ratio))]
        elif folders.get(extra):
            found[extra] = augmented_views(f"{train}-{extra}", folders[extra], rows, data)
        else:
            flag = "--augmented" if extra == "augmented" else "--augmented-untrained"
            names = ", ".join(arm.name for arm in arms if arm.extra == extra)
            raise ConfigError(f"the arm {names} needs augmented rows", where=flag, found="no folder",
                              next_step="give what jobs/augment_*.py wrote, or leave the arm out")  # fmt: skip
    return found


def _donors(train: str, protocol: Protocol, data: Inventory) -> frozenset[Scanned]:
    """Training subjects of the other domain, whose images lend their histograms; their labels stay unread."""
    if protocol.generator_sees == "train_domain":
        raise ConfigError(
            "the arm histogram_match needs images of the other domain, which this protocol holds out",
            found=protocol.name, where="--arms", next_step="leave the arm out, or use a transductive protocol",
        )  # fmt: skip
    return data.scanned(protocol.domains[other_domain(protocol, train)], {"train"})
