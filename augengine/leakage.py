"""Test subjects, training rows and the models that made them in; an error if any test subject had a part in them.

The lineage of a row: its own subject, the donors that its plan borrowed from, and the training subjects of every model
that its provenance names: of its parts, and of the models that made, judged or labelled what it was trained on. What is
not stated is unknown, and then nothing is proven.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from augengine.acquisition_terms import manufacturer
from augengine.diffusion.checkpoint import subject_hash
from augengine.diffusion.spec import ModelSpec
from augengine.errors import DataError


class LeakageError(DataError):
    """A test subject, or a scanner that nothing was to be known of, in the lineage of a training row."""


@dataclass(frozen=True)
class Lineage:
    """What was looked at, and found free of test subjects."""

    rows: int
    synthetic: int
    subjects: int
    donors: int
    models: int


def check_leakage(
    test_subjects: Collection[str],
    rows: Iterable[Mapping[str, Any]],
    checkpoints: Mapping[str, ModelSpec],
    *,
    held_out_manufacturers: Collection[str] = (),
    others: Mapping[str, str] | None = None,
) -> Lineage:
    """Resolve the lineage of every row that a segmenter is to be trained on; memory grows with subjects, not rows.

    Args:
        test_subjects: ids that must not occur in it.
        rows: metadata of the training rows, as `iter_metadata` streams them from any number of folders.
        checkpoints: what `model.json` says of every model that had a part (`read_spec`), by any name.
        held_out_manufacturers: for the protocol `strict`: no row may be of their scanners, no target may be borrowed
            from their subjects, and no model may have seen their scans.
        others: role → sha256 of models that had a part and that no row names: those that labelled rows, and those that
            the segmenter is built on.

    Raises:
        LeakageError: naming the first test subject, the row and the way that it came in; a row or model of a held-out
            manufacturer; or a lineage that cannot be resolved, since nothing is proven then.
    """
    models = _Models(test_subjects, checkpoints, held_out_manufacturers)
    for role, sha256 in (others or {}).items():
        models.check(sha256, role)
    tested, subjects, donors = set(test_subjects), set[str](), set[str]()
    count = synthetic = 0
    for row in rows:
        count += 1
        where = row["sample_id"]
        _refuse(tested, row["subject_id"], "the row's own subject", where)
        subjects.add(row["subject_id"])
        if not row["synthetic"]:
            _refuse_scanner(models.held_out, row["acquisition"]["manufacturer"], "a training row", where)
            continue
        synthetic += 1
        provenance = _provenance(row)
        for step in _borrowing(provenance["plan"]):
            for donor in step["donors"]:
                _refuse(tested, donor, "a donor of its plan", where)
                donors.add(donor)
            if _lent_acquisition(step):
                _refuse_scanner(models.held_out, _lender(step["params"]), "a donor of the row's plan", where)
        for role, sha256 in provenance["models"].items():
            if not role.endswith(".reference"):  # label maps that a gate compared with made nothing
                models.check(sha256, f"{where}, {role}")
    return Lineage(count, synthetic, len(subjects), len(donors), len(models.checked))


def donors_of(row: Mapping[str, Any]) -> frozenset[str]:
    """The subjects whose labels or metadata an augmented row borrowed, besides its own.

    Raises:
        LeakageError: its provenance does not say.
    """
    return frozenset(donor for step in _borrowing(_provenance(row)["plan"]) for donor in step["donors"])


class _Models:
    """Models by their weights; each is looked at once."""

    def __init__(
        self, test_subjects: Collection[str], checkpoints: Mapping[str, ModelSpec], held_out: Collection[str]
    ) -> None:
        self.by_hash = {subject_hash(subject): subject for subject in test_subjects}
        self.by_sha256 = {spec.sha256: (name, spec) for name, spec in checkpoints.items()}
        self.held_out = {manufacturer(name): name for name in held_out}
        self.checked: set[str] = set()

    def check(self, sha256: str, where: str) -> None:
        """Refuse a model that is not known, or whose lineage holds what it must not."""
        if sha256 in self.checked:
            return
        self.checked.add(sha256)
        if sha256 not in self.by_sha256:
            raise LeakageError(
                "every model in a row's lineage must be known, or its training subjects are not",
                found=f"weights {sha256[:12]}…",
                where=where,
                next_step="pass its checkpoint, too",
            )
        for name, spec in _with_parts(*self.by_sha256[sha256]):
            self._check_subjects(name, spec, where)
            self._check_manufacturers(name, spec, where)
            for teacher in spec.teachers:
                self.check(teacher, f"{where}, what '{name}' was trained on")

    def _check_subjects(self, name: str, spec: ModelSpec, where: str) -> None:
        trained = bool(spec.subject_hashes or spec.teachers or spec.metrics)
        if spec.untrained_seed is not None and not trained:
            return
        if not spec.subject_hashes or spec.untrained_seed is not None:
            raise LeakageError(
                "a model must state its training subjects, or that nobody trained it: else nothing is proven",
                found=f"'{name}', a {spec.kind} that states {'both' if spec.untrained_seed is not None else 'neither'}",
                where=where,
                next_step="train it anew; controls are made by `augengine.diffusion.checkpoint.untrained`",
            )
        ways = (
            ("trained", spec.subject_hashes),
            ("chose the checkpoint of", spec.selection_hashes),
            ("lent to the training rows of", spec.donor_hashes),
        )
        for way, hashes in ways:
            for hashed in hashes:
                if hashed in self.by_hash:
                    subject = self.by_hash[hashed]
                    raise LeakageError(
                        f"a test subject must have no part in a training row, but {subject} {way} model '{name}'",
                        found=subject,
                        where=where,
                        next_step="train it without the test subjects",
                    )

    def _check_manufacturers(self, name: str, spec: ModelSpec, where: str) -> None:
        if not self.held_out or spec.untrained_seed is not None:
            return
        if not spec.manufacturers:
            raise LeakageError(
                f"a model must state the manufacturers that it saw, or it may have seen {_named(self.held_out)}",
                found=f"'{name}', a {spec.kind}",
                where=where,
                next_step="train it anew, on rows that state them, or use the protocol transductive",
            )
        for seen in spec.manufacturers:
            _refuse_scanner(self.held_out, seen, f"what model '{name}' saw", where)


def _refuse(tested: Collection[str], subject: str, way: str, where: str) -> None:
    if subject in tested:
        raise LeakageError(
            f"a test subject must have no part in a training row, but {subject} is {way}",
            found=subject,
            where=where,
            next_step="split by subject before augmenting, and augment the training split",
        )


def _refuse_scanner(held_out: Mapping[str, str], stated: str | None, way: str, where: str) -> None:
    """Refuse a held-out manufacturer (by normal form), and one that is not stated."""
    if held_out and (stated is None or manufacturer(stated) in held_out):
        raise LeakageError(
            f"under the strict protocol nothing may be known of {_named(held_out)}, but {way} is of "
            f"{'a manufacturer that it does not state' if stated is None else stated}",
            found=stated,
            where=where,
            next_step="leave it out, or use the protocol transductive",
        )


def _named(held_out: Mapping[str, str]) -> str:
    return " and ".join(sorted(held_out.values()))


def _with_parts(name: str, spec: ModelSpec) -> Iterator[tuple[str, ModelSpec]]:
    yield name, spec
    for role, part in spec.parts.items():
        yield from _with_parts(f"{name}.{role}", part)


def _provenance(row: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        found = json.loads(row["provenance"])
        return {"plan": found["plan"], "models": found["models"]}
    except (TypeError, ValueError, KeyError):
        raise LeakageError(
            "a synthetic row must state its plan and models",
            found=str(row["provenance"])[:80],
            where=row["sample_id"],
            next_step="augment again with this version",
        ) from None


def _borrowing(plan: Any) -> Iterator[Mapping[str, Any]]:
    """Every part of a plan that names donors, steps of chains included."""
    if isinstance(plan, Mapping):
        if plan.get("donors"):
            yield plan
        for key, value in plan.items():
            if key != "donors":
                yield from _borrowing(value)
    elif isinstance(plan, list):
        for value in plan:
            yield from _borrowing(value)


def _lent_acquisition(step: Mapping[str, Any]) -> bool:
    """True if what the donors of a step lent is how they were scanned."""
    params = step.get("params")
    return isinstance(params, Mapping) and isinstance(params.get("acquisition"), Mapping)


def _lender(params: Mapping[str, Any]) -> str | None:
    """Their manufacturer, which a row may have been filed without (`edits.targets.Target.unseen`)."""
    found: str | None = params["acquisition"].get("manufacturer") or params.get("unseen", {}).get("manufacturer")
    return found
