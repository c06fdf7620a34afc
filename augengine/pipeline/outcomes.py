"""What became of the rows of one unit in; its accepted, rejected, failed and skipped tables out."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence

import pyarrow as pa

from augengine.edits.base import Skip
from augengine.errors import AugengineError
from augengine.gates import GateResult, image_digest
from augengine.io.shards import SCHEMA, to_table
from augengine.records import Sample

REASON = pa.field("reason", pa.string())
LOST = pa.schema([(n, pa.string()) for n in ("output_id", "sample_id", "subject_id", "stage", "kind")] + [REASON])

REASONS_KEPT, REASON_LENGTH = 8, 160
_NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?(?!\w)")


class Outcomes:
    """The outcome of one unit, filed by kind.

    Attributes:
        kept: digests of the accepted images, for the gate `duplicate`.
    """

    def __init__(self) -> None:
        self.kept: set[str] = set()
        self._accepted: list[Sample] = []
        self._rejected: list[tuple[Sample, str]] = []
        self._lost: dict[str, list[dict[str, str]]] = {"failed": [], "skipped": []}

    def keep(self, sample: Sample, broken: Sequence[GateResult]) -> None:
        """File an edited row as accepted, or as rejected with the gates that it broke."""
        if broken:
            self._rejected.append((sample, "; ".join(str(g) for g in broken)))
        else:
            self._accepted.append(sample)
            self.kept.add(image_digest(sample))

    def lost(self, output_id: str, sample_id: str, subject_id: str, stage: str, why: Exception | Skip) -> None:
        """File a row without pixels, as skipped or failed, with stage, kind and reason."""
        outcome, reason, kind = "failed", str(why), type(why).__name__
        if isinstance(why, Skip):
            outcome, reason = "skipped", why.reason
        elif not isinstance(why, AugengineError):
            reason = f"{kind}: {reason}"
        values = (output_id, sample_id, subject_id, stage, kind, reason)
        self._lost[outcome].append(dict(zip(LOST.names, values, strict=True)))

    def tables(self) -> dict[str, pa.Table]:
        """One table per outcome, empty ones included, so that the counts are complete."""
        rejected = to_table(s for s, _ in self._rejected)
        reasons = pa.array([r for _, r in self._rejected], pa.string())
        return {
            "accepted": to_table(self._accepted),
            "rejected": rejected.append_column(REASON, reasons).replace_schema_metadata(SCHEMA.metadata),
            **{outcome: pa.Table.from_pylist(rows, schema=LOST) for outcome, rows in self._lost.items()},
        }


def general(reason: str) -> str:
    """A reason without its numbers, so that rows are counted together which one rule left out.

    >>> general("the body has 4.4e+03 mm², theirs 6.27e+03 at least; labels are those of brats2021")
    'the body has … mm², theirs … at least; labels are those of brats2021'
    """
    return _NUMBER.sub("…", reason)


def count_reasons(tables: Mapping[str, pa.Table]) -> dict[str, dict[str, int]]:
    """Why rows of `Outcomes.tables` were rejected (gates by name), failed or skipped; the commonest, with how many.

    Numbers in reasons of skipped rows stand as "…"; every row keeps its own words.
    """
    found: dict[str, Counter[str]] = {outcome: Counter() for outcome in ("rejected", "failed", "skipped")}
    for text in tables["rejected"]["provenance"].to_pylist():
        broken = [gate for gate in json.loads(text)["gates"] if not gate["passed"]]
        found["rejected"].update(gate["name"] + (f" ({gate['error']})" if gate["error"] else "") for gate in broken)
    found["failed"].update(text[:REASON_LENGTH] for text in tables["failed"]["reason"].to_pylist())
    found["skipped"].update(general(text)[:REASON_LENGTH] for text in tables["skipped"]["reason"].to_pylist())
    return {outcome: dict(counts.most_common(REASONS_KEPT)) for outcome, counts in found.items() if counts}
