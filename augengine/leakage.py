"""Test subjects, training rows and the models that made them in; an error if any test subject had a part in them.

The lineage of a row: its own subject, the donors that its plan borrowed from, and the training subjects of every
model that its provenance names, parts of models included.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from augengine.diffusion.checkpoint import subject_hash
from augengine.diffusion.spec import GENERATORS, ModelSpec
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
    held_out_manufacturer: str | None = None,
) -> Lineage:
    """Resolve the lineage of every row that a segmenter is to be trained on; memory grows with subjects, not rows.

    Args:
        test_subjects: ids that must not occur in it.
        rows: metadata of the training rows, as `iter_metadata` streams them from any number of folders.
        checkpoints: what `model.json` says of every model that had a part (`read_spec`), by any name.
        held_out_manufacturer: for the protocol `strict`: no generator may have seen this manufacturer's scans.

    Raises:
        LeakageError: naming the first test subject, the row and the way that it came in; a generator that saw
            the held-out manufacturer; or a lineage that cannot be resolved, since nothing is proven then.
    """
    tested = set(test_subjects)
    by_hash = {subject_hash(subject): subject for subject in tested}
    by_sha256 = {spec.sha256: (name, spec) for name, spec in checkpoints.items()}
    subjects: set[str] = set()
    borrowed: set[str] = set()
    models: set[str] = set()
    count = synthetic = 0
    for row in rows:
        count += 1
        where = row["sample_id"]
        _refuse(tested, row["subject_id"], "the row's own subject", where)
        subjects.add(row["subject_id"])
        if not row["synthetic"]:
            continue
        synthetic += 1
        provenance = _provenance(row)
        for donor in _donors(provenance["plan"]):
            _refuse(tested, donor, "a donor of its plan", where)
            borrowed.add(donor)
        for role, sha256 in provenance["models"].items():
            if sha256 in models or role.endswith(".reference"):  # label maps that a gate compared with made nothing
                continue
            if sha256 not in by_sha256:
                raise LeakageError(
                    "every model in a row's provenance must be known, or its training subjects are not",
                    found=f"{role} with weights {sha256[:12]}…", where=where, next_step="pass its checkpoint, too",
                )  # fmt: skip
            name, spec = by_sha256[sha256]
            _check_model(name, spec, by_hash, f"{where}, {role}")
            if held_out_manufacturer is not None and spec.kind in GENERATORS:
                _check_manufacturer(name, spec, held_out_manufacturer, f"{where}, {role}")
            models.add(sha256)
    return Lineage(count, synthetic, len(subjects), len(borrowed), len(models))


def donors(row: Mapping[str, Any]) -> frozenset[str]:
    """The subjects whose labels or metadata an augmented row borrowed, besides its own.

    Raises:
        LeakageError: its provenance does not say.
    """
    return frozenset(_donors(_provenance(row)["plan"]))


def _refuse(tested: Collection[str], subject: str, way: str, where: str) -> None:
    if subject in tested:
        raise LeakageError(
            f"a test subject must have no part in a training row, but {subject} is {way}",
            found=subject, where=where, next_step="split by subject before augmenting, and augment the training split",
        )  # fmt: skip


def _check_model(name: str, spec: ModelSpec, by_hash: Mapping[str, str], where: str) -> None:
    for part, described in _with_parts(name, spec):
        for hashed in described.subject_hashes:
            if hashed in by_hash:
                raise LeakageError(
                    f"a test subject must have no part in a training row, but {by_hash[hashed]} trained model '{part}'",
                    found=by_hash[hashed], where=where, next_step="train it without the test subjects",
                )  # fmt: skip


def _check_manufacturer(name: str, spec: ModelSpec, manufacturer: str, where: str) -> None:
    if spec.manufacturers is None:
        raise LeakageError(
            f"a generator must state the manufacturers that it saw, or it may have seen {manufacturer}",
            found=f"'{name}', a {spec.kind}", where=where, next_step="train it anew, or use the protocol transductive",
        )  # fmt: skip
    seen = set(spec.manufacturers)
    if manufacturer in seen:
        raise LeakageError(
            f"under the strict protocol no generator may have seen {manufacturer}",
            found=f"'{name}' saw {', '.join(sorted(seen))}", where=where,
            next_step="train it on the other manufacturers, or use the protocol transductive",
        )  # fmt: skip


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
            "a synthetic row must state its plan and models", found=str(row["provenance"])[:80],
            where=row["sample_id"], next_step="augment again with this version",
        ) from None  # fmt: skip


def _donors(plan: Any) -> Iterator[str]:
    """Every `donors` list in a plan, those of chained steps included."""
    if isinstance(plan, Mapping):
        for key, value in plan.items():
            if key == "donors":
                yield from value
            else:
                yield from _donors(value)
    elif isinstance(plan, list):
        for value in plan:
            yield from _donors(value)
