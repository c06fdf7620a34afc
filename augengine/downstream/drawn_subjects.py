"""Labelled training subjects of a domain in; the few of them that one draw trains on, out."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from augengine.downstream.inventory import Inventory, Scanned
from augengine.downstream.protocols import Protocol
from augengine.errors import DataError
from augengine.rng import derive

EVERYONE = 0
"""Instead of a number of subjects: all there are."""


@dataclass(frozen=True)
class TrainingSet:
    """Whose rows a training sees.

    Attributes:
        train: the domain.
        subjects: how many of its labelled training subjects, or `EVERYONE`.
        draw: number of the draw that chose them; 0 for everyone.
    """

    train: str
    subjects: int = EVERYONE
    draw: int = 0

    @property
    def name(self) -> str:
        """What folders of its rows are called by."""
        return self.train if self.subjects == EVERYONE else f"{self.train}-{self.subjects}-draw-{self.draw}"


def drawn(labelled: Collection[Scanned], chosen: TrainingSet) -> frozenset[Scanned]:
    """The rows' subjects of a draw.

    Every draw puts the subjects in an order of its own, whose beginnings are its smaller sets: 5 are among 10. The
    order follows from the draw and the subjects' ids alone, so all arms get the same ones.

    Args:
        labelled: subjects with their domain values.
        chosen: how many, by which draw.
    """
    if chosen.subjects == EVERYONE:
        return frozenset(labelled)
    people = sorted({subject for subject, _ in labelled}, key=lambda s: (derive("drawn subjects", chosen.draw, s), s))
    few = set(people[: chosen.subjects])
    return frozenset(key for key in labelled if key[0] in few)


def available(data: Inventory, protocol: Protocol, train: str) -> int:
    """Labelled training subjects of a domain."""
    labelled = data.scanned(protocol.values(train), protocol.splits.train) & data.labelled
    return len({subject for subject, _ in labelled})


def check_sizes(sizes: Collection[int], data: Inventory, protocol: Protocol) -> None:
    """Refuse numbers of training subjects that some domain does not have.

    Raises:
        DataError: with the domain and how many it has.
    """
    for train in protocol.train_domains:
        there = available(data, protocol, train)
        if (most := max(sizes, default=EVERYONE)) > there:
            raise DataError(
                f"the domain {train} is to train on {most} subjects",
                found=f"{there} with labels in split {' or '.join(protocol.splits.train)}",
                where=data.uri,
                next_step="give smaller numbers by --train-subjects, or all",
            )
