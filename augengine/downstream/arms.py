"""The arms of an experiment: what is added to a training domain's real rows, and whether images are changed at random.

All arms share architecture, seeds and number of optimiser steps, so an arm with more rows sees each of them less often.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from augengine.downstream.inventory import Inventory, Scanned
from augengine.downstream.protocols import Protocol, other_domain
from augengine.downstream.views import View, augmented_views, count_sources, matched_view, view_of
from augengine.errors import ConfigError, DataError
from augengine.yaml_config import unknown_name

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
FLAGS: dict[Extra, str] = {"augmented": "--augmented", "untrained": "--augmented-untrained"}
"""Where the rows of arms come from that are not made on the spot."""
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
        ConfigError: no other domain, or more than one, lends its histograms.
        DataError: a domain without augmented rows.
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
        else:
            found[extra] = augmented_views(f"{train}-{extra}", folders[extra], rows, data)
            if not found[extra]:
                raise _no_rows(train, extra, arms, protocol, folders[extra], data)
    return found


def check_arms(arms: Sequence[Arm], protocol: Protocol, given: Collection[Extra]) -> None:
    """Refuse arms that lack a folder of rows, or that the protocol forbids, before any data are read.

    Args:
        given: kinds of augmented rows that there are, or will be.

    Raises:
        ConfigError: naming the arm.
    """
    for arm in arms:
        if arm.extra in FLAGS and arm.extra not in given:
            raise ConfigError(
                f"the arm {arm.name} needs augmented rows", where=FLAGS[arm.extra], found="no folder",
                next_step="give what jobs/augment_*.py wrote, or leave the arm out",
            )  # fmt: skip
        if arm.extra == "matched" and protocol.generator_sees == "train_domain":
            raise ConfigError(
                f"the arm {arm.name} needs images of the other domain, which this protocol holds out",
                found=protocol.name, where="--arms", next_step="leave the arm out, or use a transductive protocol",
            )  # fmt: skip


def _no_rows(
    train: str, extra: Extra, arms: Sequence[Arm], protocol: Protocol, folders: Sequence[str], data: Inventory
) -> DataError:
    cells = ", ".join(str(cell) for cell in protocol.cells if cell.train == train)
    names = ", ".join(arm.name for arm in arms if arm.extra == extra)
    splits = " or ".join(protocol.splits.train)
    there = ", ".join(f"{n} of {whose}" for whose, n in sorted(count_sources(folders, data).items()))
    return DataError(
        f"the domain {train} has no augmented rows for its cells {cells} (arms {names}): its scans are those of "
        f"{protocol.key} {' or '.join(protocol.domains[train])}, split {splits}", where=", ".join(folders),
        found=f"rows made from {there}" if there else "no rows",
        next_step=f"augment the scans of {train}, too, with a policy whose select takes them, and give {FLAGS[extra]} "
        "again; or choose a protocol or --arms without them",
    )  # fmt: skip


def _donors(train: str, protocol: Protocol, data: Inventory) -> frozenset[Scanned]:
    """Training subjects of the other domain, whose images lend their histograms; their labels stay unread."""
    return data.scanned(protocol.domains[other_domain(protocol, train)], {"train"})
