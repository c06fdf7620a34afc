"""Data sets of shards in; a map-style PyTorch data set of their rows, out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Unpack

import numpy as np
from torch.utils.data import Dataset

from augengine.errors import ConfigError
from augengine.io.shards import read_group
from augengine.selection import Group, Labels, Request, Selected, folds_of, select
from augengine.selection.reading import open_shard
from augengine.selection.request import Places, stores_of
from augengine.torch.choice import Choice, chosen
from augengine.torch.groups import Groups
from augengine.torch.items import Form, Item, Items
from augengine.torch.sampler import WindowSampler


class ShardDataset(Dataset[Item]):
    """Rows of real and augmented data sets, read when they are asked for.

    Args:
        real: folder of an ingested data set, or several: paths, URIs or `Store`s.
        augmented: folders of runs of `augment`; for training alone.
        cache_mb: bound of the row groups in memory, in each process; one row group is always kept.
        choice: which rows, and what the items are: see `augengine.torch.choice`, which says what may be raised, too.
    """

    def __init__(self, real: Places, augmented: Places = (), *, cache_mb: int = 256, **choice: Unpack[Choice]) -> None:
        self._open(*chosen(real, augmented, choice), cache_mb)

    @classmethod
    def of(cls, selected: Selected, form: Form | None = None, cache_mb: int = 256) -> ShardDataset:
        """The data set of rows that were selected before."""
        made: ShardDataset = object.__new__(cls)
        made._open(selected, form or Form(), cache_mb)
        return made

    def _open(self, selected: Selected, form: Form, cache_mb: int) -> None:
        if selected.request.balance:
            raise ConfigError(
                "balance chooses other rows in every epoch, and items of ShardDataset know of no epoch",
                found=", ".join(selected.request.balance),
                next_step="read by ShardStream, or leave balance out",
            )
        if cache_mb < 0:
            raise ConfigError("cache_mb is a number of MiB", found=cache_mb)
        self.selected, self.form, self.cache_mb = selected, form, cache_mb
        self._ends = np.cumsum([len(group) for group in selected.groups])
        self._groups = Groups(selected, cache_mb * 2**20)
        self._items = Items(selected, form)

    def __len__(self) -> int:
        return len(self.selected)

    def __getitem__(self, index: int) -> Item:
        group, place = self._at(index)
        return self._items(self._groups[group][place])

    def __getitems__(self, indices: Sequence[int]) -> list[Item]:
        """A batch, row group by row group, in the order asked for."""
        places = [self._at(index) for index in indices]
        found: dict[int, Item] = {}
        for n in sorted(range(len(places)), key=lambda n: places[n]):
            group, place = places[n]
            found[n] = self._items(self._groups[group][place])
        return [found[n] for n in range(len(places))]

    def _at(self, index: int) -> tuple[int, int]:
        place = int(index) + (len(self) if index < 0 else 0)
        if not 0 <= place < len(self):
            raise IndexError(f"index {index} of {len(self)} rows")
        group = int(np.searchsorted(self._ends, place, "right"))
        return group, place - int(self._ends[group]) + len(self.selected.groups[group])

    @property
    def channels(self) -> tuple[str, ...]:
        """Of every image, in order."""
        return self.selected.channels

    @property
    def label_names(self) -> tuple[str, ...]:
        """Code n + 1 of a label map is that of the n-th."""
        return self.selected.label_names

    @property
    def synthetic(self) -> np.ndarray:
        """bool (rows,): which items are augmented."""
        return np.concatenate([np.full(len(group), group.augmented) for group in self.selected.groups])

    @property
    def subjects(self) -> np.ndarray:
        """str (rows,): the subject of each item, for samplers that group them."""
        numbers = np.concatenate([group.subjects for group in self.selected.groups])
        return np.asarray(np.array(self.selected.subjects)[numbers])

    def has_lesion(self, *names: str) -> np.ndarray:
        """bool (rows,): which label maps show one of these labels, or any; for samplers that see to foreground.

        Reads the label maps of all rows once, no images.

        Raises:
            ConfigError: no such label.
        """
        for name in names:
            self._known(name)
        codes = [self.label_names.index(name) + 1 for name in names or self.label_names]
        return np.concatenate([self._shows(group, codes) for group in self.selected.groups])

    def _known(self, name: str) -> None:
        Labels.of([name]).within({known: n for n, known in enumerate(self.label_names, 1)})

    def _shows(self, group: Group, codes: Sequence[int]) -> np.ndarray:
        file = open_shard(self.selected.sources[group.source], group.name)
        table = read_group(file, group.group, ["label", "label_names", "label_codes"]).take(group.rows)
        labels, found = self.selected.request.labels, np.zeros(len(group), bool)
        schemes = zip(table["label_names"].to_pylist(), table["label_codes"].to_pylist(), strict=True)
        for n, scheme in enumerate(schemes):
            label = table["label"][n].as_buffer()
            if label is not None:
                present = np.flatnonzero(np.bincount(np.frombuffer(label, np.uint8), minlength=256))
                found[n] = bool(np.isin(labels.table(*scheme)[present], codes).any())
        return found

    def folds(
        self, folds: int, augmented: Sequence[Places] | None = None
    ) -> Iterator[tuple[ShardDataset, ShardDataset]]:
        """Training and validation for each of some folds of the subjects; a subject is in one fold alone.

        Validation holds real rows alone, training holds the real and augmented rows in which no subject of the fold
        has a part. Folds are those of `data.fold` in a training recipe, so that there can be a generator for each.

        Args:
            augmented: the runs of each fold, from a generator that did not see its subjects; None takes this data
                set's own for all of them.

        Raises:
            DataError: too few subjects, or augmented rows.
            LeakageError: a generator was trained on a fold's subjects.
        """
        request = self.selected.request
        real = sorted({self.selected.subjects[n] for g in self.selected.groups if not g.augmented for n in g.subjects})
        parts = folds_of(real, folds)
        runs = (
            [request.augmented] * folds
            if augmented is None
            else [stores_of(run, request.real[0].like) for run in augmented]
        )
        if len(runs) != folds:
            raise ConfigError("augmented names the runs of every fold", found=f"{len(runs)} for {folds} folds")
        for fold, run in zip(parts, runs, strict=True):
            training = replace(request, augmented=run, exclude_subjects=request.exclude_subjects | fold)
            validation = replace(request, augmented=(), augmented_per_real=None, only_subjects=fold)
            yield self._with(training), self._with(validation)

    def _with(self, request: Request) -> ShardDataset:
        return ShardDataset.of(select(request), self.form, self.cache_mb)

    def sampler(self, seed: int = 0, window: int | None = None) -> WindowSampler:
        """A shuffled order that reads each row group once an epoch; rows are mixed among `window` row groups.

        None takes as many as `cache_mb` holds, 16 at most.
        """
        largest = max(group.nbytes for group in self.selected.groups)
        fitting = min(max(self.cache_mb * 2**20 // largest, 1), 16)
        return WindowSampler([len(group) for group in self.selected.groups], seed, window or fitting)

    def dry_iter(self) -> range:
        """What `torchio.Queue` counts its subjects by."""
        return range(len(self))
