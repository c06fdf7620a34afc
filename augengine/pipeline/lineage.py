"""An output id and its run folder in; the row, its source and its regeneration from provenance alone out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from augengine.diffusion.checkpoint import load_model
from augengine.edits.base import Plan
from augengine.errors import CheckpointError, DataError, RunError
from augengine.io.dataset import dataset_files, run_files
from augengine.io.shards import from_row, read_group
from augengine.io.store import Place, Store
from augengine.load import LoadedPolicy, Mixture
from augengine.pipeline.augment import INPUTS, OUTCOMES, POLICY
from augengine.pipeline.models import checkpoint_of
from augengine.pipeline.row_maker import remake
from augengine.plugins import check_versions, is_installed
from augengine.records import Provenance, Sample
from augengine.runtime.network import under
from augengine.yaml_config import Document

WITH_PIXELS = ("accepted", "rejected")


@dataclass(frozen=True)
class Row:
    """One output row of a run: where it ended, and why; `sample` is None where it has no pixels."""

    outcome: str
    values: Mapping[str, Any]
    sample: Sample | None

    @property
    def provenance(self) -> Provenance:
        """How it was made; of a row without pixels a `DataError` with the reason."""
        if self.sample is None or self.sample.provenance is None:
            where = f"{self.values['output_id']} ({self.outcome})"
            raise DataError("this row was never made", found=self.values["reason"], where=where)
        return self.sample.provenance


@dataclass(frozen=True)
class Replay:
    """A row made again beside the stored one.

    Attributes:
        equal: image, label and its confidence, geometry and acquisition are the same bytes.
        largest_difference: of the images, in grey levels of the source …
        largest_share: … and relative to the intensity range of the channel; NaN where the source has none.
        batch: padded batch size with which it was made again …
        full_batch: … and the policy's, which is larger where memory ran out then.
    """

    stored: Sample
    again: Sample
    equal: bool
    largest_difference: float
    largest_share: float
    batch: int
    full_batch: int


class Run:
    """A folder that `augment` wrote, finished or not; `policy.yaml` and `inputs.json` are there from the start.

    Raises:
        RunError: no such folder, or a plug-in of the run that is not installed.
    """

    def __init__(self, out: Place) -> None:
        self.store = Store.at(out)
        try:
            policy = Document(self.store.read_text(POLICY), self.store.path(POLICY)).data
            self.inputs = {"plugins": {}, **self.store.read_mapping(INPUTS, data=str, models=dict, device=str)}
        except FileNotFoundError:
            raise RunError(
                f"an augmented run holds {POLICY} and {INPUTS}",
                where=self.store.uri,
                next_step="give the folder that `augengine augment` reported (…/augmented)",
            ) from None
        plugins = self.inputs["plugins"]
        if not isinstance(plugins, dict) or "" in plugins:
            raise RunError("plug-ins are package and version", found=repr(plugins)[:80], where=self.store.path(INPUTS))
        made = {package: v for package, v in plugins.items() if not is_installed(package)}
        check_versions(made, "the run was made", self.store.uri)
        self.mixture = Mixture.from_dict(policy)

    def row(self, output_id: str) -> Row:
        """Find a row by its id, in whichever outcome it ended.

        Raises:
            DataError: this run has no such row.
        """
        for outcome in OUTCOMES:
            key = "sample_id" if outcome in WITH_PIXELS else "output_id"
            for values in _where(self.store, run_files(self.store, outcome), key, output_id):
                return Row(outcome, values, from_row(values) if outcome in WITH_PIXELS else None)
        raise DataError(
            "no such row in this run",
            found=output_id,
            where=self.store.uri,
            next_step="ids stand in the column sample_id of accepted/ and rejected/, output_id of failed/ and skipped/",
        )

    def source(self, sample_id: str, data: Place | None = None) -> Sample:
        """The row's parent, from the folder that the run read or from `data`."""
        store = Store.at(data) if data else self.store.like(self.inputs["data"])
        for values in _where(store, dataset_files(store), "sample_id", sample_id):
            return from_row(values)
        raise DataError(
            "the source row is not in this data",
            found=sample_id,
            where=store.uri,
            next_step="give the folder that it came from by --data",
        )

    def policy(self, provenance: Provenance) -> LoadedPolicy:
        """The policy that made a row: of a mix, the member; a folder that no longer holds it is a `RunError`."""
        for member in self.mixture.members:
            if member.digest == provenance.policy_digest:
                return member
        raise RunError(
            f"the row was made under the policy digest {provenance.policy_digest}",
            found=", ".join(m.digest for m in self.mixture.members),
            where=self.store.path(POLICY),
            next_step="restore the policy.yaml that the run wrote",
        )

    def checkpoints(self, policy: LoadedPolicy) -> dict[str, str]:
        """The folders that a policy's models were read from, by role."""
        try:
            asked = self.mixture.by_member(self.inputs["models"])[policy.name]
            return {role: str(model["ref"]) for role, model in asked.items()}
        except (KeyError, TypeError, AttributeError) as error:
            raise RunError(
                f"{INPUTS} says of each policy which models it took",
                found=f"{type(error).__name__}: {error}",
                where=self.store.path(INPUTS),
                next_step="restore the file that the run wrote",
            ) from None

    def models(self, provenance: Provenance, checkpoints: Mapping[str, Place], device: str) -> dict[str, Any]:
        """The models of a row by role; other weights than those that made it are a `CheckpointError`."""
        models: dict[str, Any] = {}
        policy = self.policy(provenance)
        for role, ref in self.checkpoints(policy).items():
            place = Store.at(checkpoint_of(checkpoints, self.mixture.named(policy, role)) or self.store.like(ref))
            models[role] = under(load_model(place, device=device), policy.policy.runtime)
            if models[role].sha256 != provenance.models[role]:
                raise CheckpointError(
                    f"the row was made by weights {provenance.models[role]}",
                    found=models[role].sha256,
                    where=place.uri,
                    next_step=f"give the checkpoint of that hash by --models {role}=FOLDER",
                )
        return models

    def replay(
        self, output_id: str, data: Place | None = None, checkpoints: Mapping[str, Place] | None = None
    ) -> Replay:
        """Make a row again from its source, plan, policy and models, and compare.

        Raises:
            AugengineError: the row, its source or its models are not to be had.
        """
        row = self.row(output_id)
        provenance = row.provenance
        assert row.sample is not None  # `provenance` saw to it
        check_versions(provenance.plugins, "the row was made", f"{self.store.uri}, {output_id}")
        policy = self.policy(provenance)
        full = policy.policy.output.micro_batch
        source = self.source(provenance.parent_id, data)
        device = self.inputs["device"] if torch.cuda.is_available() else "cpu"
        if device == "cpu":
            torch.set_num_threads(1)  # as the actors do: the thread count decides the last bits
        models = self.models(provenance, checkpoints or {}, device)
        plan = Plan.from_dict(provenance.plan)
        tried = []
        for size in _halves(full):
            again = remake(policy, models, source, plan, size).replace(provenance=provenance)
            tried.append(_compare(row.sample, again, size, full))
            if tried[-1].equal:
                return tried[-1]
        return min(tried, key=lambda r: r.largest_difference)


def _halves(size: int) -> Iterator[int]:
    while size:
        yield size
        size //= 2


def _compare(stored: Sample, again: Sample, size: int, full: int) -> Replay:
    if stored.image.shape != again.image.shape:
        return Replay(stored, again, False, float("inf"), float("inf"), size, full)
    equal = (
        stored.image.tobytes() == again.image.tobytes()
        and _bytes(stored.label) == _bytes(again.label)
        and _bytes(stored.label_confidence) == _bytes(again.label_confidence)
        and bool((stored.affine == again.affine).all())
        and stored.acquisition == again.acquisition
    )
    difference = np.abs(stored.image - again.image).max(axis=tuple(range(1, stored.image.ndim)))
    share = np.nan if stored.intensity_range is None else (difference / np.ptp(stored.intensity_range, axis=1)).max()
    return Replay(stored, again, equal, float(difference.max()), float(share), size, full)


def _bytes(labels: np.ndarray | None) -> bytes | None:
    return None if labels is None else labels.tobytes()


def _where(store: Store, names: Sequence[str], key: str, value: str) -> Iterator[dict[str, Any]]:
    """Rows of shards whose column `key` is `value`; pixels are read for those alone."""
    for name in names:
        file = store.parquet(name)
        for group in range(file.num_row_groups):
            ids = file.read_row_group(group, columns=[key])[key].to_pylist()
            if value in ids:
                yield read_group(file, group).slice(ids.index(value), 1).to_pylist()[0]
