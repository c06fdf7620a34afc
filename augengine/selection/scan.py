"""The shards' metadata in, row group by row group; which rows a request takes, and what they have in common, out."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from augengine.errors import DataError
from augengine.io.row_problems import SeenIds, row_problem
from augengine.io.shards import has_labels, read_group
from augengine.io.store import Store
from augengine.leakage import donors_of
from augengine.records import IntensityRule
from augengine.selection import ratio
from augengine.selection.agreement import Scheme
from augengine.selection.balance import AUGMENTED, KEPT, REAL, kind_told, shows
from augengine.selection.conditions import GATE, Condition, columns_of
from augengine.selection.group import Group
from augengine.selection.reading import Metadata, metadata
from augengine.selection.request import Request
from augengine.yaml_config import unknown_name

_COLUMNS = [
    "sample_id",
    "subject_id",
    "split",
    "synthetic",
    "channels",
    "image_shape",
    "label_names",
    "label_codes",
    "intensity_rule",
    "intensity_low",
    "intensity_high",
    "acquisition",
    "affine",
    "image_dtype",
]


def damaged(row: Mapping[str, Any]) -> str | None:
    """Why no item can be made of a row, as far as its metadata say."""
    problem = row_problem(row)
    return None if problem is None else f"damaged row ({problem})"


class Scan:
    """What one pass over the metadata has found so far."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.columns = sorted({*_COLUMNS, *columns_of(request.where)})
        self.held_out = set(request.exclude_subjects)
        self.groups: list[tuple[Group, np.ndarray]] = []  # with the ranks of augmented rows
        self.subjects: dict[str, int] = {}
        self.channels: dict[tuple[str, ...], str] = {}  # with the first row that has them
        self.schemes: dict[Scheme, str] = {}
        self.rules: dict[IntensityRule, str] = {}
        self.shapes: set[tuple[int, ...]] = set()
        self.splits: set[str | None] = set()
        self.unknown = set(request.exclude_subjects)  # of these no row was seen
        self.left_out: Counter[str] = Counter()
        self.silent = dict.fromkeys(
            request.where, ""
        )  # conditions on which no row said anything, with one that did not
        self.gates: set[str] = set()  # gates that rows name, where a condition asks for one that they do not
        self.trained_on = 0  # real rows for training
        self.ids = hashlib.blake2b(digest_size=16)
        self.label_names: set[str] = set()  # that rows know, where some are balanced

    def rows(self, source: int, store: Store, augmented: bool) -> Iterator[dict[str, Any]]:
        """Go through a data set, keep the places of wanted rows, and hand these rows on."""
        columns, seen = sorted({*self.columns, "provenance"}) if augmented else self.columns, SeenIds()
        for about in metadata(store, columns):
            found = about.rows.to_pylist()
            seen.add(row["sample_id"] for row in found)
            reasons = [damaged(row) or self._reason(row, store, augmented) for row in found]
            kept = [n for n, reason in enumerate(reasons) if reason is None]
            kept = self._labelled(about, found, kept, reasons)
            self.left_out.update(reason for reason in reasons if reason)
            for n in kept:
                self._note(found[n], augmented)
                yield found[n]
            if kept:
                self._keep(source, about, [found[n] for n in kept], kept, augmented)
        seen.check(store.uri)

    def _reason(self, row: Mapping[str, Any], store: Store, augmented: bool) -> str | None:
        """Why a row is not wanted; None if it is, as far as the metadata say."""
        request, split, subject = self.request, row["split"], row["subject_id"]
        if row["synthetic"] != augmented:
            kinds = ("augmented rows", "real ones") if augmented else ("real rows", "augmented ones")
            raise DataError(
                f"this data set must hold {kinds[0]}",
                found=f"{kinds[1]}, such as {row['sample_id']}",
                where=store.uri,
                next_step="give ingested data sets as real, and runs of augment as augmented",
            )
        self.splits.add(split)
        self.unknown.discard(subject)
        if not augmented and request.splits is not None and split not in (*request.training, None):
            self.held_out.add(subject)
        if request.splits is not None and split not in (request.training if augmented else request.splits):
            return "split"
        if request.only_subjects is not None and subject not in request.only_subjects:
            return "subject"
        if subject in request.exclude_subjects:
            return "excluded subject"
        for condition in request.where:
            if (augmented or not condition.of_making) and not self._meets(condition, row):
                return str(condition)
        if augmented and request.exclude_subjects and donors_of(row) & request.exclude_subjects:
            return "donor is an excluded subject"
        return None

    def _meets(self, condition: Condition, row: Mapping[str, Any]) -> bool:
        value = condition.value(row)
        if value is not None:
            self.silent.pop(condition, None)
        elif condition in self.silent:
            self.silent[condition] = row["sample_id"]
            if condition.field.startswith(GATE):
                self.gates |= {gate["name"] for gate in json.loads(row["provenance"])["gates"]}
        return condition.met_by(value)

    def _labelled(
        self, about: Metadata, found: Sequence[Mapping[str, Any]], kept: list[int], reasons: list[str | None]
    ) -> list[int]:
        """Those of the `kept` rows that have a label map, if they must."""
        if self.request.unlabelled == "keep" or not kept:
            return kept
        there = has_labels(about.file, about.group)
        for n in kept:
            if not there[n] and self.request.unlabelled == "refuse":
                raise DataError(
                    "every row must have a label map",
                    found="none",
                    where=found[n]["sample_id"],
                    next_step="say unlabelled='skip' to leave such rows out, or 'keep'",
                )
            reasons[n] = None if there[n] else "no label map"
        return [n for n in kept if there[n]]

    def _note(self, row: Mapping[str, Any], augmented: bool) -> None:
        where = row["sample_id"]
        self.channels.setdefault(tuple(row["channels"]), where)
        self.rules.setdefault(IntensityRule.from_dict(row["intensity_rule"]), where)
        self.shapes.add(tuple(row["image_shape"]))
        if row["label_names"] or self.request.unlabelled != "keep":
            self.schemes.setdefault((tuple(row["label_names"]), tuple(row["label_codes"])), where)
        self.trained_on += not augmented and self._trains(row)
        self.ids.update(f"{where}\n".encode())

    def _trains(self, row: Mapping[str, Any]) -> bool:
        return self.request.splits is None or row["split"] in self.request.training

    def _keep(
        self, source: int, about: Metadata, rows: list[dict[str, Any]], places: list[int], augmented: bool
    ) -> None:
        numbers = [self.subjects.setdefault(row["subject_id"], len(self.subjects)) for row in rows]
        ranks = [ratio.rank(row["sample_id"]) for row in rows] if augmented and self._by_ratio else []
        arrays = np.array(places, np.int32), np.array(numbers, np.int32)
        kinds = self._kinds(about, rows, places, augmented) if self.request.balance else None
        kept = Group(source, about.name, about.group, augmented, *arrays, about.nbytes, kinds)
        self.groups.append((kept, np.array(ranks, np.int64)))

    def _kinds(self, about: Metadata, rows: list[dict[str, Any]], places: list[int], augmented: bool) -> np.ndarray:
        """Kinds of rows by what their label maps show; uint8 (rows,)."""
        labels, names = read_group(about.file, about.group, ["label"])["label"], self.request.balance
        kinds = np.full(len(rows), AUGMENTED if augmented else REAL, np.uint8)
        for n, (row, place) in enumerate(zip(rows, places, strict=True)):
            self.label_names.update(row["label_names"])
            kinds[n] += shows({**row, "label": labels[place].as_buffer()}, names)
            if not augmented and not self._trains(row):
                kinds[n] = KEPT
        return kinds

    @property
    def _by_ratio(self) -> bool:
        return self.request.augmented_per_real is not None

    def chosen(self) -> list[Group]:
        """The row groups with what the ratio leaves of them.

        Raises:
            DataError: no rows, too few augmented ones, or a condition or an excluded subject that no row knows.
        """
        if self.unknown:
            raise DataError(
                "an excluded subject must be one of the data's",
                found=sorted(self.unknown)[0],
                where=", ".join(store.uri for store in self.request.real),
                next_step="mend its id, or leave it out",
            )
        for condition, where in self.silent.items():
            self._explain(condition, where)
        limit = None
        if self.request.balance:
            self._check_balance()
        elif self.request.augmented_per_real is not None:
            ranks = np.concatenate([np.empty(0, np.int64), *(ranks for _, ranks in self.groups)]).tolist()
            where = ", ".join(store.uri for store in self.request.augmented)
            limit = ratio.rank_limit(
                ranks, self.trained_on, self.request.augmented_per_real, ", ".join(self.request.training), where
            )
        groups = []
        for group, ranks in self.groups:
            taken = group if limit is None or not group.augmented else group.take(ranks < limit)
            self.left_out["augmented_per_real"] += len(group) - len(taken)
            if len(taken):
                groups.append(taken)
        if not groups:
            raise self._nothing()
        return groups

    def _check_balance(self) -> None:
        """Refuse labels that no row knows, and fewer augmented rows of a kind than an epoch would take."""
        request = self.request
        if unknown := [name for name in request.balance if name not in self.label_names]:
            raise unknown_name("label", unknown[0], sorted(self.label_names), "balance")
        kinds = np.concatenate([np.empty(0, np.uint8), *(g.kinds for g, _ in self.groups if g.kinds is not None)])
        where, training = ", ".join(store.uri for store in request.augmented), ", ".join(request.training)
        for kind in (0, 1):
            real, made = (int((kinds == of + kind).sum()) for of in (REAL, AUGMENTED))
            if made:
                ratio.rank_limit(
                    range(made),
                    real,
                    request.augmented_per_real or 0,
                    training,
                    where,
                    kind_told(kind, request.balance),
                )

    def _explain(self, condition: Condition, where: str) -> None:
        """Refuse a condition that rows were asked, and none could answer."""
        if not where:
            return
        if condition.field.startswith(GATE):
            raise unknown_name("gate", condition.field.removeprefix(GATE), sorted(self.gates), str(condition))
        raise DataError(f"no row says its {condition.field}", where=where, next_step=f"leave out '{condition}'")

    def _nothing(self) -> DataError:
        request, left = self.request, {reason: n for reason, n in self.left_out.items() if n}
        found = ", ".join(f"{n} left out for {reason}" for reason, n in left.items()) or "no rows at all"
        if set(left) == {"split"}:
            found = f"rows of {', '.join(sorted(map(str, self.splits)))}"
        wanted = "no rows" if request.splits is None else f"no rows of split {', '.join(request.splits)}"
        where = ", ".join(store.uri for store in (*request.real, *request.augmented))
        return DataError(f"{wanted} are left", found=found, where=where, next_step="ask for less, or for other rows")
