"""The arms of an experiment: what is added to a training domain's real rows, and whether images are changed at random.

All arms share architecture, seeds and number of optimiser steps, so an arm with more rows sees each of them less often.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from augengine.downstream.drawn_subjects import TrainingSet, drawn
from augengine.downstream.inventory import Inventory, Scanned
from augengine.downstream.protocols import Protocol, other_domain
from augengine.downstream.views import View, augmented_views, count_sources, made_view, matched_view, view_of
from augengine.errors import ConfigError, DataError
from augengine.yaml_config import unknown_name

Extra = str
"""A kind of rows: one of `KINDS`, or the name of declared ones."""
KINDS = ("none", "repeated", "oversampled", "matched", "pasted", "gmm", "augmented", "untrained")


@dataclass(frozen=True)
class Arm:
    """A way to train a segmenter.

    Attributes:
        extra: rows beside the real ones: the real ones again (`repeated`), or of these alone the ones that show a
            lesion (`oversampled`); made on the spot: with the other domain's
            histograms (`matched`), with pasted lesions, or of random Gaussian mixtures (`gmm`); from folders: what a
            trained generator made of them (`augmented`), what an untrained one made, or rows declared under a name.
        classical: random changes as nnU-Net makes them, of all rows.
        random_contrast: the tissues of all rows change their brightness at random.
        batchgeneratorsv2: nnU-Net's own transforms, of all rows.
    """

    name: str
    extra: Extra = "none"
    classical: bool = False
    random_contrast: bool = False
    batchgeneratorsv2: bool = False


CHANGES = ("classical", "random_contrast", "batchgeneratorsv2")
"""Arms that change all rows at random, alone or with any addition: `classical+counterfactual`."""
ADDITIONS: Mapping[str, Extra] = {
    "counterfactual": "augmented",
    "counterfactual_untrained": "untrained",
    "histogram_match": "matched",
    "pasted": "pasted",
    "gmm": "gmm",
    "oversampled": "oversampled",
}
"""Arms that add rows, and the kind of these."""
FLAGS: Mapping[Extra, str] = {"augmented": "--augmented", "untrained": "--augmented-untrained"}
"""Where the rows of arms come from that are not made on the spot."""
DEFAULT_ARMS = ("real", "classical", "counterfactual", "classical+counterfactual", "counterfactual_untrained")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")


def known_arms(declared: Iterable[str] = ()) -> dict[str, Arm]:
    """Every arm by name, those of declared rows included; changes come with every addition, as `CHANGE+ADDITION`."""
    additions = {**ADDITIONS, **{name: name for name in declared}}
    found = [Arm("real"), Arm("real_repeated", "repeated")]
    found += [_changed(change, change, "none") for change in CHANGES]
    found += [Arm(name, extra) for name, extra in additions.items()]
    pairs = product(CHANGES, additions.items())
    found += [_changed(f"{change}+{name}", change, extra) for change, (name, extra) in pairs]
    return {arm.name: arm for arm in found}


def _changed(name: str, change: str, extra: Extra) -> Arm:
    return Arm(name, extra, *(change == one for one in CHANGES))


ARMS = known_arms()


def declared_rows(texts: Iterable[str], flag: str = FLAGS["augmented"]) -> dict[Extra, tuple[str, ...]]:
    """Folders by kind of rows, of `NAME=FOLDER` or a bare folder, which is `counterfactual`; a name may come again.

    >>> declared_rows(["runs/a", "removal=runs/b", "removal=runs/c"])
    {'augmented': ('runs/a',), 'removal': ('runs/b', 'runs/c')}

    Raises:
        ConfigError: a name that no arm can have, or that means something else.
    """
    found: dict[Extra, tuple[str, ...]] = {}
    for text in texts:
        name, equals, folder = text.partition("=")
        if not equals or not _NAME.fullmatch(name):
            name, folder = "counterfactual", text
        extra = {"counterfactual": "augmented", "counterfactual_untrained": "untrained"}.get(name, name)
        if (extra == name and name in {*ARMS, *KINDS}) or not folder:
            raise ConfigError(
                "rows of a folder get a name of their own",
                found=text,
                where=flag,
                next_step=f"NAME=FOLDER with a name other than {', '.join(sorted({*KINDS, *ARMS} - {name}))[:60]}…; a "
                "folder with = in its name as ./FOLDER",
            )
        found[extra] = (*found.get(extra, ()), folder)
    return found


def default_arms(given: Collection[Extra]) -> list[str]:
    """Names of the arms whose rows there are: `DEFAULT_ARMS`, and declared rows alone and with `classical`."""
    there = {"none", *given}
    declared = [kind for kind in given if kind not in KINDS]
    more = [name for kind in declared for name in (kind, f"classical+{kind}")]
    return [name for name in DEFAULT_ARMS if ARMS[name].extra in there] + more


def find_arms(names: Sequence[str], declared: Iterable[str] = ()) -> tuple[Arm, ...]:
    """Arms by name, `real` first: every other one is compared with it."""
    known = known_arms(declared)
    for name in names:
        if name not in known:
            raise unknown_name("arm", name, list(known), "--arms")
    return tuple(known[name] for name in dict.fromkeys(("real", *names)))


def baselines(arm: str) -> tuple[str, ...]:
    """The arms that one is compared with: `real`, and what it changes at random without the rows that it adds.

    >>> baselines("classical+removal"), baselines("removal"), baselines("batchgeneratorsv2")
    (('real', 'classical'), ('real',), ('real', 'classical'))
    """
    change, plus, _ = arm.partition("+")
    if plus and change in CHANGES:
        return ("real", change)
    return ("real", "classical") if arm == "batchgeneratorsv2" else ("real",)


def arms_of(train: str, arms: Sequence[Arm], protocol: Protocol) -> list[Arm]:
    """Those that a training domain is trained with."""
    return [arm for arm in arms if arm.name == "real" or train not in protocol.reference]


def views_of(
    chosen: TrainingSet,
    arms: Sequence[Arm],
    protocol: Protocol,
    data: Inventory,
    folders: Mapping[Extra, Sequence[str]],
    ratio: float,
) -> dict[Extra, list[View]]:
    """What the arms of a domain, or of a draw of its subjects, are trained on: the real rows under `none`, and the
    additions by kind.

    Args:
        chosen: whose rows; validation rows are always the whole domain's.
        folders: augmented rows by kind: of the trained and of the untrained generator, and declared ones.
        ratio: the largest number of added rows per real row that is asked for.

    Raises:
        ConfigError: no other domain, or more than one, lends its histograms; lesions to paste, of a protocol without.
        DataError: a domain without augmented rows.
    """
    train, name = chosen.train, chosen.name
    rows = drawn(data.scanned(protocol.values(train), protocol.splits.train) & data.labelled, chosen)
    held_back = data.scanned(protocol.values(train), protocol.splits.val) & data.labelled
    splits = dict.fromkeys(protocol.splits.train, "train") | dict.fromkeys(protocol.splits.val, "val")
    found: dict[Extra, list[View]] = {"none": [view_of(f"{name}-real", data, rows | held_back, splits=splits)]}
    for extra in {arm.extra for arm in arms_of(train, arms, protocol)} - {"none"}:
        if extra == "repeated":
            found[extra] = found["none"] * math.ceil(ratio)
        elif extra == "matched":
            donors = _donors(train, protocol, data)
            found[extra] = [matched_view(f"{name}-matched", data, rows, donors, math.ceil(ratio))]
        elif extra in ("pasted", "gmm", "oversampled"):
            lesion = () if extra == "gmm" else protocol.lesion
            copies = 1 if extra == "oversampled" else math.ceil(ratio)
            found[extra] = [made_view(f"{name}-{extra}", data, rows, extra, copies, lesion)]
        else:
            found[extra] = augmented_views(f"{name}-{extra}", folders[extra], rows, data)
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
                f"the arm {arm.name} needs augmented rows",
                where=FLAGS[arm.extra],
                found="no folder",
                next_step="give what jobs/augment_*.py wrote, or leave the arm out",
            )
        if arm.batchgeneratorsv2:
            from augengine.train.nnunet_transforms import require  # late: it loads torch

            require()
        if arm.extra in ("pasted", "oversampled") and not protocol.lesion:
            raise ConfigError(
                f"the arm {arm.name} needs a protocol that says which labels are a lesion",
                found=protocol.name,
                where="--arms",
                next_step="add lesion: [LABEL, …] to a protocol of your own, or leave the arm out",
            )
        if arm.extra == "matched" and protocol.generator_sees == "train_domain":
            raise ConfigError(
                f"the arm {arm.name} needs images of the other domain, which this protocol holds out",
                found=protocol.name,
                where="--arms",
                next_step="leave the arm out, or use a transductive protocol",
            )


def _no_rows(
    train: str, extra: Extra, arms: Sequence[Arm], protocol: Protocol, folders: Sequence[str], data: Inventory
) -> DataError:
    cells = ", ".join(str(cell) for cell in protocol.cells if cell.train == train)
    names = ", ".join(arm.name for arm in arms if arm.extra == extra)
    splits, flag = " or ".join(protocol.splits.train), FLAGS.get(extra, FLAGS["augmented"])
    there = ", ".join(f"{n} of {whose}" for whose, n in sorted(count_sources(folders, data).items()))
    return DataError(
        f"the domain {train} has no augmented rows for its cells {cells} (arms {names}): its scans are those of "
        f"{protocol.key} {' or '.join(protocol.values(train))}, split {splits}",
        where=", ".join(folders),
        found=f"rows made from {there}" if there else "no rows",
        next_step=f"augment the scans of {train}, too, with a policy whose select takes them, and give {flag} "
        "again; or choose a protocol or --arms without them",
    )


def _donors(train: str, protocol: Protocol, data: Inventory) -> frozenset[Scanned]:
    """Training subjects of the other domain, whose images lend their histograms; their labels stay unread."""
    return data.scanned(protocol.values(other_domain(protocol, train)), {"train"})
