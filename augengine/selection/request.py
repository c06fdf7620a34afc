"""What a user asks for, in; a checked request for rows of real and augmented data sets, out."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from augengine.errors import ConfigError
from augengine.io.store import Place, Store
from augengine.selection.balance import check_share
from augengine.selection.conditions import Condition
from augengine.selection.labels import Labels, Wanted
from augengine.splits import SPLITS

Places = Place | Sequence[Place]
Unlabelled = Literal["refuse", "skip", "keep"]


@dataclass(frozen=True)
class Request:
    """Which rows are wanted, and what of them.

    Attributes:
        real: folders of ingested data sets, at least one.
        augmented: folders of runs of `augment`. Their rows are taken for training alone: those of the splits
            `training`, or of any split where `splits` is None.
        splits: of the rows; None takes rows of every split and of none.
        training: those of `splits` that are trained on; subjects of all others are held out.
        augmented_per_real: so many augmented rows for every real one that is wanted for training, in order of a rank
            that follows from their ids; None takes all. With `balance` it is a share, 0 to 1.
        balance: labels whose share of the rows stays that of the real ones: in every epoch augmented rows take the
            place of real ones of their kind, see `augengine.selection.balance`. The selection then holds all of them.
        channels: names, in the order wanted; None takes those of the rows, which must be the same in all.
        labels: what the codes of the label maps are to mean.
        where: conditions that all must hold, see `Condition`.
        exclude_subjects: held out: their rows are left out, those augmented from them or with a donor of theirs, too,
            and a generator that was trained on one of them is refused.
        only_subjects: None is all.
        checkpoints: folders of the models that made the augmented rows, where those that the runs name are not there.
        unlabelled: rows without label map are refused, left out (`skip`), or kept.
    """

    real: tuple[Store, ...]
    augmented: tuple[Store, ...] = ()
    splits: tuple[str, ...] | None = ("train",)
    training: tuple[str, ...] = ("train",)
    augmented_per_real: float | None = None
    balance: tuple[str, ...] = ()
    channels: tuple[str, ...] | None = None
    labels: Labels = field(default_factory=Labels)
    where: tuple[Condition, ...] = ()
    exclude_subjects: frozenset[str] = frozenset()
    only_subjects: frozenset[str] | None = None
    checkpoints: tuple[Store, ...] = ()
    unlabelled: Unlabelled = "refuse"

    def __post_init__(self) -> None:
        if not self.real:
            raise ConfigError("at least one real data set is needed", next_step="give the folder that ingest wrote")
        uris = [store.uri for store in (*self.real, *self.augmented)]
        for uri in uris:
            if uris.count(uri) > 1:
                raise ConfigError("a data set is given twice", found=uri, next_step="leave one out")
        if self.splits is not None and (not self.splits or not set(self.splits) <= set(SPLITS)):
            raise ConfigError(f"splits are {', '.join(SPLITS)}", found=", ".join(map(str, self.splits)) or "none")
        if self.augmented and not self.trains:
            raise ConfigError(
                "augmented rows are for training alone",
                found=f"split {', '.join(self.splits or ())}",
                next_step="leave augmented out for validation and test",
            )
        if self.augmented_per_real is not None and not (self.augmented and self.augmented_per_real >= 0):
            raise ConfigError(
                "augmented_per_real is a number from 0 on, and says how many of the augmented rows are taken",
                found=f"{self.augmented_per_real} of {len(self.augmented)} augmented data sets",
                next_step="give augmented, too, or leave augmented_per_real out",
            )
        if self.balance and not self.augmented:
            raise ConfigError(
                "balance says which augmented rows take the place of which real ones",
                found="no augmented data set",
                next_step="give augmented, too, or leave balance out",
            )
        if self.balance:
            check_share(self.augmented_per_real, "augmented_per_real")
        if self.unlabelled not in get_args(Unlabelled):
            raise ConfigError(f"unlabelled is one of {', '.join(get_args(Unlabelled))}", found=self.unlabelled)

    @property
    def trains(self) -> bool:
        """True if rows for training are among those wanted."""
        return self.splits is None or not set(self.training).isdisjoint(self.splits)

    @classmethod
    def of(
        cls,
        real: Places,
        augmented: Places = (),
        *,
        split: str | Sequence[str] | None = "train",
        training: Sequence[str] = ("train",),
        augmented_per_real: float | None = None,
        balance: str | Sequence[str] = (),
        channels: Sequence[str] | None = None,
        labels: Wanted | Labels = None,
        where: str | Iterable[str | Condition] = (),
        exclude_subjects: Collection[str] = (),
        checkpoints: Places = (),
        unlabelled: Unlabelled = "refuse",
        storage_options: Mapping[str, object] | None = None,
    ) -> Request:
        """The request that plain values say: a place is a path, a URI or a `Store`; one of it may stand alone.

        Args:
            storage_options: of the file system of every place that is a URI.

        Raises:
            ConfigError: values that cannot be obeyed.
        """

        def opened(uri: str) -> Store:
            return Store(uri, storage_options)

        conditions = [where] if isinstance(where, str) else where
        return cls(
            real=stores_of(real, opened),
            augmented=stores_of(augmented, opened),
            splits=(split,) if isinstance(split, str) else None if split is None else tuple(split),
            training=tuple(training),
            augmented_per_real=augmented_per_real,
            balance=(balance,) if isinstance(balance, str) else tuple(balance),
            channels=None if channels is None else (channels,) if isinstance(channels, str) else tuple(channels),
            labels=labels if isinstance(labels, Labels) else Labels.of(labels),
            where=tuple(Condition.parse(c) if isinstance(c, str) else c for c in conditions),
            exclude_subjects=frozenset([exclude_subjects] if isinstance(exclude_subjects, str) else exclude_subjects),
            checkpoints=stores_of(checkpoints, opened),
            unlabelled=unlabelled,
        )


def stores_of(places: Places, opened: Callable[[str], Store] = Store) -> tuple[Store, ...]:
    """One place or several, opened; a store stays as it is."""
    alone = [places] if isinstance(places, str | os.PathLike | Store) else places
    return tuple(place if isinstance(place, Store) else opened(os.fspath(place)) for place in alone)
