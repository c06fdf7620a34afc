"""Samples and one policy with its models in; every sample edited step by step, judged, retried and filed out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from augengine import __version__
from augengine.edits.base import Donor, Plan, Skip, SkippedError
from augengine.edits.chain import Step, joined, parted, union
from augengine.errors import DataError
from augengine.gates import GateResult, Gates, Tools
from augengine.load import LoadedPolicy
from augengine.pipeline.outcomes import Outcomes
from augengine.records import Provenance, Sample
from augengine.rng import derive, digest

Planned = Plan | Skip | Exception
"""A plan, or why there is none."""


@dataclass(frozen=True, eq=False)
class Draft:
    """A row in the making.

    Attributes:
        source: the row that is edited.
        sample: what the steps so far have made of it.
        row: which row this is, with its seed.
        plans: of the steps so far.
        region: bool (*), where they may have changed it; None: everywhere.
        judged: what the steps' own gates said.
    """

    source: Sample
    sample: Sample
    row: Plan
    plans: tuple[Plan, ...]
    region: np.ndarray | None
    judged: tuple[GateResult, ...] = ()


def first_draft(loaded: LoadedPolicy, sample: Sample, output_id: str, replicate: int, attempt: int) -> Draft:
    """A row before its first step."""
    seed = derive(loaded.digest, sample.sample_id, replicate, attempt)
    row = Plan(output_id, sample.sample_id, replicate, attempt, seed, {})
    return Draft(sample, sample, row, (), np.zeros(sample.image.shape[1:], bool))


def apply_padded(
    step: Step, models: Mapping[str, Any], samples: Sequence[Sample], plans: Sequence[Plan], size: int
) -> list[tuple[Sample, Mapping[str, float]]]:
    """Edit a batch of at most `size` rows of equal shape; each row with what the edit measured of it.

    At a fixed batch size a row's bits depend on no neighbour, so short batches repeat their last row; not where a step
    computes each row apart.
    """
    missing = 0 if step.apart(models) else size - len(samples)
    padded = [*samples, *[samples[-1]] * missing], [*plans, *[plans[-1]] * missing]
    return step.apply_measured(*padded, models)[: len(samples)]


def remake(loaded: LoadedPolicy, models: Mapping[str, Any], source: Sample, plan: Plan, size: int) -> Sample:
    """A row from its source and plan alone; nothing is drawn."""
    sample = source
    for step, own in zip(loaded.steps, parted(plan, loaded.steps), strict=True):
        ((sample, _),) = apply_padded(step, models, [sample], [own], size)
    return sample


def out_of_memory(error: Exception) -> bool:
    """True if a smaller batch may succeed; PyTorch's CPU allocator has no class of its own for it."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def _chunks(drafts: Sequence[Draft], size: int) -> list[Sequence[Draft]]:
    return [drafts[n : n + size] for n in range(0, len(drafts), size)]


class RowMaker:
    """One policy, its models by role, and its gates.

    Args:
        hashes: of the models and of the gates' files, by role.
        donors: of the data set.
        tools: models and maps that gates share.
        licence: of the sources, written to every row.
    """

    def __init__(
        self,
        loaded: LoadedPolicy,
        models: Mapping[str, Any],
        hashes: Mapping[str, str],
        donors: Sequence[Donor],
        tools: Tools,
        licence: str | None = None,
    ) -> None:
        self.loaded, self.models, self.hashes, self.donors = loaded, models, hashes, donors
        self.licence = licence
        self.specs = {role: model.spec for role, model in models.items()}
        self.run_digest, self.plugins = loaded.run_digest(hashes), loaded.plugins
        self.gates = {label: Gates(gates, tools=tools) for label, gates in loaded.gates.items()}

    def output_id(self, sample_id: str, replicate: int) -> str:
        """The id of an output row, from content alone."""
        return digest(self.run_digest, sample_id, replicate, length=24)

    def foreseen(self, samples: Sequence[Sample], replicate: int) -> list[Planned]:
        """What the first step plans for each row at the first attempt; uses no model, and may run in another thread."""
        return [self._plan(self.loaded.steps[0], draft) for draft in self._first(samples, replicate, 0)]

    def make(self, samples: Sequence[Sample], replicate: int, outcomes: Outcomes, foreseen: Sequence[Planned]) -> None:
        """File every sample under exactly one outcome.

        Args:
            foreseen: of the same samples and replicate.
        """
        pending, known = list(samples), iter(foreseen)
        for attempt in range(self.loaded.policy.output.retries + 1):
            last = attempt == self.loaded.policy.output.retries
            drafts = self._first(pending, replicate, attempt)
            for n, step in enumerate(self.loaded.steps):
                drafts = self._step(step, drafts, outcomes, known if not (attempt or n) else None)
            pending = [draft.source for draft in drafts if not self._filed(draft, outcomes, last)]

    def _first(self, samples: Sequence[Sample], replicate: int, attempt: int) -> Iterator[Draft]:
        for sample in samples:
            output_id = self.output_id(sample.sample_id, replicate)
            yield first_draft(self.loaded, sample, output_id, replicate, attempt)

    def _step(
        self, step: Step, drafts: Iterator[Draft], outcomes: Outcomes, foreseen: Iterator[Planned] | None
    ) -> Iterator[Draft]:
        """Plan each row on what the step before made of it, and compute micro-batches of equal shape as they fill."""
        size, waiting = self.loaded.policy.output.micro_batch, dict[tuple[int, ...], list[Draft]]()
        for draft in drafts:
            plan = self._plan(step, draft) if foreseen is None else next(foreseen)
            if not isinstance(plan, Plan):  # one row's failure is that row's outcome
                _lose(draft, "plan", plan, outcomes)
                continue
            planned = replace(draft, plans=(*draft.plans, plan))
            shape = draft.sample.image.shape
            waiting.setdefault(shape, []).append(planned)
            if len(waiting[shape]) == size:
                yield from self._batch(step, waiting.pop(shape), size, outcomes)
        for batch in waiting.values():
            yield from self._batch(step, batch, size, outcomes)

    def _plan(self, step: Step, draft: Draft) -> Planned:
        try:
            return step.plan(draft.sample, draft.row, self.donors, self.specs)
        except Exception as error:  # whatever it is, it is of this row alone
            return error

    def _batch(self, step: Step, batch: Sequence[Draft], size: int, outcomes: Outcomes) -> Iterator[Draft]:
        """Where memory runs out the padded size is halved; where a batch fails otherwise, its rows are tried alone."""
        try:
            made = apply_padded(step, self.models, [d.sample for d in batch], [d.plans[-1] for d in batch], size)
        except Exception as error:  # which row it was is found by trying each alone
            if out_of_memory(error) and size > 1:
                # Not before this block ends: the error's traceback still holds the tensors.
                size, parts = size // 2, _chunks(batch, size // 2)
            elif len(batch) > 1:
                parts = _chunks(batch, 1)
            else:
                why = Skip(str(error)) if isinstance(error, SkippedError) else error
                _lose(batch[0], "apply", why, outcomes)
                return
        else:
            for draft, (after, measured) in zip(batch, made, strict=True):
                if (grown := self._grown(step, _noted(draft, measured), after, outcomes)) is not None:
                    yield grown
            return
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        for part in parts:
            yield from self._batch(step, part, size, outcomes)

    def _grown(self, step: Step, draft: Draft, after: Sample, outcomes: Outcomes) -> Draft | None:
        """The row with one step more; one that is no image, or changed more than its step declared, fails."""
        if not np.isfinite(after.image).all():
            count = int((~np.isfinite(after.image)).sum())
            _lose(draft, "apply", DataError("the edit made values that are no numbers", found=count), outcomes)
            return None
        region = step.edit.region(draft.sample, draft.plans[-1])
        if region is not None and (draft.sample.image != after.image)[:, ~region].any():
            _lose(draft, "locality", DataError("the edit changed voxels outside its declared region"), outcomes)
            return None
        judged = draft.judged
        if step.gates:
            results = self.gates[step.label](draft.sample, after, region)
            judged += tuple(replace(g, name=step.named(g.name)) for g in results)
        return replace(draft, sample=after, region=union(draft.region, region), judged=judged)

    def _filed(self, draft: Draft, outcomes: Outcomes, last: bool) -> bool:
        """File the row; False if it shall be tried again."""
        gates = [*draft.judged, *self.gates[""](draft.source, draft.sample, draft.region, outcomes.kept)]
        broken = [g for g in gates if not g.passed]
        if broken and not last:
            return False
        plan = joined(draft.row, self.loaded.steps, draft.plans)
        provenance = Provenance(
            output_id=plan.output_id,
            parent_id=plan.sample_id,
            policy=self.loaded.name,
            policy_digest=self.loaded.digest,
            edit=self.loaded.edit_name,
            plan=plan.to_dict(),
            models=self.hashes,
            gates=[g.to_dict() for g in gates],
            engine_version=__version__,
            source_licence=self.licence,
            plugins=self.plugins,
        )
        outcomes.keep(draft.sample.replace(provenance=provenance), broken)
        return True


def _noted(draft: Draft, measured: Mapping[str, float]) -> Draft:
    """The draft, whose last plan says what was measured of it; `apply` does not read that."""
    if not measured:
        return draft
    last = draft.plans[-1]
    noted = replace(last, params={**last.params, "measured": dict(measured)})
    return replace(draft, plans=(*draft.plans[:-1], noted))


def _lose(draft: Draft, stage: str, why: Exception | Skip, outcomes: Outcomes) -> None:
    outcomes.lost(draft.row.output_id, draft.source.sample_id, draft.source.subject_id, stage, why)
