"""One row group of samples in; its accepted, rejected, failed and skipped rows as tables out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from augengine import __version__
from augengine.diffusion.checkpoint import load_generator
from augengine.edits.base import Context, Donor, Drawing, Plan, Skip
from augengine.errors import AugengineError, DataError
from augengine.gates import GateResult, Gates, image_digest
from augengine.io.shards import SCHEMA, from_row, to_table
from augengine.io.store import Store
from augengine.load import LoadedPolicy
from augengine.policy.spec import Select, matches
from augengine.records import Acquisition, Provenance, Sample
from augengine.rng import derive, digest

ID_COLUMNS = ["sample_id", "subject_id", "split", "acquisition"]
REASON = pa.field("reason", pa.string())
LOST = pa.schema([(n, pa.string()) for n in ("output_id", "sample_id", "subject_id", "stage", "kind")] + [REASON])


def selected(select: Select, split: str | None, acquisition: Acquisition) -> bool:
    """True if a policy's `select` takes a row of this split and acquisition."""
    return (select.split is None or split == select.split) and matches(select.where, acquisition)


Planned = Sequence[tuple[Sample, Plan]]


def draw(
    loaded: LoadedPolicy, context: Context, sample: Sample, replicate: int, attempt: int
) -> tuple[int, Drawing | Skip]:
    """A row's seed and the parameters that the edit draws from it, or why it cannot serve the row."""
    seed = derive(loaded.digest, sample.sample_id, replicate, attempt)
    rng = np.random.Generator(np.random.Philox(seed))
    return seed, loaded.edit.plan(sample, loaded.params, rng, context)


def apply_padded(loaded: LoadedPolicy, models: Mapping[str, Any], batch: Planned, size: int) -> list[Sample]:
    """Edit a batch of at most `size` rows of equal shape.

    At a fixed batch size a row's bits depend on no neighbour, so short batches repeat their last row.
    """
    padded = [*batch, *[batch[-1]] * (size - len(batch))]
    samples, plans = [s for s, _ in padded], [p for _, p in padded]
    return loaded.edit.apply(samples, plans, models, loaded.params, loaded.policy.sampler)[: len(batch)]


def out_of_memory(error: Exception) -> bool:
    """True if a smaller batch may succeed; PyTorch's CPU allocator has no class of its own for it."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def _chunks(rows: Planned, size: int) -> list[Planned]:
    return [rows[n : n + size] for n in range(0, len(rows), size)]


class AugmentWorker:
    """Holds the models; turns one row group and replicate into the four outcome tables."""

    def __init__(
        self,
        policy: dict[str, Any],
        data: str,
        models: Mapping[str, str],
        hashes: Mapping[str, str],
        donors: Sequence[dict[str, Any]],
        device: str,
    ) -> None:
        if device == "cpu":
            torch.set_num_threads(1)  # the thread count decides the last bits; one thread per actor is also fastest
        self.loaded = LoadedPolicy.from_dict(policy)
        self.data = Store(data)
        self.models = {role: load_generator(uri, device=device) for role, uri in models.items()}
        self.hashes = dict(hashes)
        self.run_digest = self.loaded.run_digest(self.hashes)
        found = tuple(Donor(d["subject_id"], Acquisition(**d["acquisition"])) for d in donors)
        self.context = Context(found, {role: model.spec for role, model in self.models.items()})
        self.gates = Gates(self.loaded.policy.gates, device)

    def __call__(self, spec: dict[str, Any]) -> dict[str, pa.Table]:
        """Tables by outcome; every selected row of the group ends in exactly one of them."""
        rows = Rows()
        replicate = int(spec["replicate"])
        pending = list(self._read(spec, replicate, rows))
        for attempt in range(self.loaded.policy.output.retries + 1):
            last = attempt == self.loaded.policy.output.retries
            planned = [(s, p) for s in pending if (p := self._plan(s, replicate, attempt, rows)) is not None]
            pending = []
            for before, plan, after in self._apply(planned, rows):
                if not self._judge(before, plan, after, rows, last):
                    pending.append(before)
        return rows.tables()

    def _output_id(self, sample_id: str, replicate: int) -> str:
        return digest(self.run_digest, sample_id, replicate, length=24)

    def divide(self, spec: dict[str, Any]) -> list[dict[str, Any]]:
        """One row each; alone in its padded batch a row has the same bits."""
        return [{**spec, "row": n} for n, _ in self._selected(spec, ID_COLUMNS)]

    def quarantine(self, spec: dict[str, Any], why: AugengineError) -> dict[str, pa.Table]:
        """The rows of the unit as failed, without touching them."""
        rows = Rows()
        for _, row in self._selected(spec, ID_COLUMNS):
            output_id = self._output_id(row["sample_id"], int(spec["replicate"]))
            rows.lost("failed", output_id, row["sample_id"], row["subject_id"], "process", why)
        return rows.tables()

    def _selected(self, spec: dict[str, Any], columns: list[str] | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
        """Place in the row group and values of the unit's rows that the policy takes."""
        table = self.data.parquet(spec["name"]).read_row_group(int(spec["group"]), columns=columns)
        start, length = (int(spec["row"]), 1) if "row" in spec else (0, None)
        for n, row in enumerate(table.slice(start, length).to_pylist(), start):
            if selected(self.loaded.policy.select, row["split"], Acquisition(**row["acquisition"])):
                yield n, row

    def _read(self, spec: dict[str, Any], replicate: int, rows: Rows) -> Iterator[Sample]:
        for _, row in self._selected(spec):
            try:
                yield from_row(row)
            except DataError as error:
                output_id = self._output_id(row["sample_id"], replicate)
                rows.lost("failed", output_id, row["sample_id"], row["subject_id"], "read", error)

    def _plan(self, sample: Sample, replicate: int, attempt: int, rows: Rows) -> Plan | None:
        output_id = self._output_id(sample.sample_id, replicate)
        try:
            seed, drawing = draw(self.loaded, self.context, sample, replicate, attempt)
        except Exception as error:  # one row's failure is that row's outcome
            rows.lost("failed", output_id, sample.sample_id, sample.subject_id, "plan", error)
            return None
        if isinstance(drawing, Skip):
            rows.lost("skipped", output_id, sample.sample_id, sample.subject_id, "plan", drawing)
            return None
        return Plan(output_id, sample.sample_id, replicate, attempt, seed, drawing.params, drawing.donors)

    def _apply(self, planned: Sequence[tuple[Sample, Plan]], rows: Rows) -> Iterator[tuple[Sample, Plan, Sample]]:
        """Run padded micro-batches of equal shape."""
        size = self.loaded.policy.output.micro_batch
        shapes = Counter(s.image.shape for s, _ in planned)
        for shape in shapes:
            same = [(s, p) for s, p in planned if s.image.shape == shape]
            for batch in _chunks(same, size):
                yield from self._batch(batch, size, rows)

    def _batch(self, batch: Planned, size: int, rows: Rows) -> Iterator[tuple[Sample, Plan, Sample]]:
        """Where memory runs out the padded size is halved; where a batch fails otherwise, its rows are tried alone."""
        try:
            made = apply_padded(self.loaded, self.models, batch, size)
        except Exception as error:  # which row it was is found by trying each alone
            if out_of_memory(error) and size > 1:
                # Not before this block ends: the error's traceback still holds the tensors.
                size, parts = size // 2, _chunks(batch, size // 2)
            elif len(batch) > 1:
                parts = _chunks(batch, 1)
            else:
                sample, plan = batch[0]
                rows.lost("failed", plan.output_id, sample.sample_id, sample.subject_id, "apply", error)
                return
        else:
            yield from zip(*zip(*batch, strict=True), made, strict=True)
            return
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        for part in parts:
            yield from self._batch(part, size, rows)

    def _judge(self, before: Sample, plan: Plan, after: Sample, rows: Rows, last: bool) -> bool:
        """File the row; False if it shall be tried again."""
        if not np.isfinite(after.image).all():
            error = DataError("the edit made values that are no numbers", found=int((~np.isfinite(after.image)).sum()))
            rows.lost("failed", plan.output_id, before.sample_id, before.subject_id, "apply", error)
            return True
        region = self.loaded.edit.region(before, plan)
        if region is not None and (before.image != after.image)[:, ~region].any():
            error = DataError("the edit changed voxels outside its declared region")
            rows.lost("failed", plan.output_id, before.sample_id, before.subject_id, "locality", error)
            return True
        gates = self.gates(before, after, region, rows.kept)
        broken = [g for g in gates if not g.passed]
        if broken and not last:
            return False
        provenance = Provenance(
            output_id=plan.output_id, parent_id=before.sample_id, policy=self.loaded.policy.name,
            policy_digest=self.loaded.digest, edit=self.loaded.policy.edit, plan=plan.to_dict(), models=self.hashes,
            gates=[g.to_dict() for g in gates], engine_version=__version__,
        )  # fmt: skip
        rows.keep(after.replace(provenance=provenance), broken)
        return True


class Rows:
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

    def lost(
        self, outcome: str, output_id: str, sample_id: str, subject_id: str, stage: str, why: Exception | Skip
    ) -> None:
        """File a row without pixels, with stage, kind and reason."""
        reason = why.reason if isinstance(why, Skip) else str(why)
        kind = "Skip" if isinstance(why, Skip) else type(why).__name__
        if not isinstance(why, Skip | AugengineError):
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
