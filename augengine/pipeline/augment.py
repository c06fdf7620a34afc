"""Sample shards and a policy in; accepted, rejected, failed and skipped rows out, each requested row exactly once."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from augengine import __version__
from augengine.diffusion.checkpoint import read_spec
from augengine.diffusion.spec import ModelSpec
from augengine.edits.base import Donor
from augengine.errors import CheckpointError, ConfigError, DataError
from augengine.io.commits import committed_files, finish, sample_files
from augengine.io.shards import METADATA_COLUMNS, check_schema
from augengine.io.store import Store
from augengine.load import LoadedPolicy
from augengine.pipeline.augment_worker import AugmentWorker, selected
from augengine.pipeline.units import Actors, Progress, Summary, Unit, run_units
from augengine.policy.spec import Select
from augengine.records import Acquisition
from augengine.rng import canonical_json, digest

OUTCOMES = ("accepted", "rejected", "failed", "skipped")


@dataclass(frozen=True)
class Source:
    """What one pass over the metadata of a data set tells: row groups with selected rows, donors, digest."""

    groups: tuple[tuple[str, int, int], ...]
    donors: tuple[Donor, ...]
    channels: tuple[tuple[str, ...], ...]
    digest: str
    rows: int

    @property
    def selected(self) -> int:
        """Rows that the policy's `select` takes."""
        return sum(count for _, _, count in self.groups)


@dataclass(frozen=True)
class AugmentSummary:
    """The outcome of a run; `requested` = accepted + rejected + failed + skipped holds, or `augment` raised."""

    requested: int
    counts: Mapping[str, int]
    run: Summary
    reject_rate: float
    max_reject_rate: float
    out: str

    @property
    def acceptable(self) -> bool:
        """True if something was accepted and no more was rejected than the policy allows."""
        return self.counts["accepted"] > 0 and self.reject_rate <= self.max_reject_rate


def survey(store: Store, select: Select) -> Source:
    """Stream the metadata once; memory grows with subjects and row groups, not with rows."""
    groups: list[tuple[str, int, int]] = []
    donors: dict[str, Acquisition] = {}
    channels: set[tuple[str, ...]] = set()
    running, rows = hashlib.blake2b(digest_size=16), 0
    for name in sample_files(store):
        file = store.parquet(name)
        check_schema(file, store.path(name))
        for group in range(file.num_row_groups):
            count = 0
            for row in file.read_row_group(group, columns=METADATA_COLUMNS).to_pylist():
                acquisition = Acquisition(**row["acquisition"])
                rows += 1
                if selected(select, row["split"], acquisition):
                    count += 1
                    channels.add(tuple(row["channels"]))
                running.update(canonical_json([name, row["sample_id"], row["split"], row["acquisition"]]).encode())
                if row["split"] == "train" and not row["synthetic"]:
                    donors[row["subject_id"]] = acquisition
            groups.append((name, group, count))
    found = tuple(Donor(s, a) for s, a in sorted(donors.items()))
    return Source(tuple(groups), found, tuple(sorted(channels)), running.hexdigest(), rows)


def resolve_models(
    loaded: LoadedPolicy, checkpoints: Mapping[str, str], channels: Sequence[tuple[str, ...]]
) -> tuple[dict[str, str], dict[str, str]]:
    """Role → URI and role → sha256, from flags first and the policy's `ref` second.

    Raises:
        ConfigError: a role without a checkpoint.
        CheckpointError: a model of another kind, for other channels, or with weights other than the policy's sha256.
    """
    uris: dict[str, str] = {}
    hashes: dict[str, str] = {}
    specs: dict[str, ModelSpec] = {}
    for role, kind in loaded.edit.MODELS.items():
        asked = loaded.policy.models.get(role)
        uri = checkpoints.get(role) or (asked.ref if asked else None)
        if uri is None:
            raise ConfigError(
                f"policy '{loaded.policy.name}' needs a checkpoint for the role '{role}'",
                next_step=f"pass --checkpoint, or set models.{role}.ref",
            )
        spec = read_spec(uri)
        if spec.kind != kind:
            raise CheckpointError(f"the role '{role}' needs a model of kind '{kind}'", found=spec.kind, where=uri)
        for found in channels:
            if found != spec.channels:
                raise CheckpointError(
                    f"this generator was trained on channels {', '.join(spec.channels)}",
                    found=", ".join(found), where=uri, next_step="ingest these channels, or train another generator",
                )  # fmt: skip
        if asked and asked.sha256 and asked.sha256 != spec.sha256:
            raise CheckpointError(f"the policy asks for weights {asked.sha256}", found=spec.sha256, where=uri)
        uris[role], hashes[role], specs[role] = uri, spec.sha256, spec
    loaded.edit.check(loaded.params, loaded.policy.sampler, specs)
    return uris, hashes


def make_units(source: Source, run_digest: str, per_input: int) -> list[Unit]:
    """One unit per row group with selected rows and replicate."""
    return [
        Unit(
            digest(run_digest, source.digest, name, group, r, length=16), {"name": name, "group": group, "replicate": r}
        )
        for name, group, count in source.groups
        for r in range(per_input)
        if count
    ]


def augment(
    loaded: LoadedPolicy,
    data: str,
    out: str,
    checkpoints: Mapping[str, str],
    *,
    actors: Actors = Actors(),  # noqa: B008  (frozen)
    progress: Progress | None = None,
) -> AugmentSummary:
    """Apply a policy to a data set; the same call again makes only what is missing.

    Args:
        data: folder of shards (path or URI), as written by ingest.
        out: output folder; gets accepted/, rejected/, failed/, skipped/ and manifest.json.
        checkpoints: model role to checkpoint folder; overrides the policy's `ref`.

    Raises:
        AugengineError: bad policy, data, checkpoint or output folder.
    """
    store, policy = Store(out), loaded.policy
    source = survey(Store(data), policy.select)
    uris, hashes = resolve_models(loaded, checkpoints, source.channels)
    if not source.selected:
        raise DataError(
            "the policy's select takes no row of this data", where=data,
            found=f"{source.rows} rows, select: {policy.select.model_dump(exclude_none=True)}",
            next_step="loosen select, or check split and acquisition values with `augengine plan`",
        )  # fmt: skip
    run_digest = loaded.run_digest(hashes)
    args = {
        "policy": loaded.to_dict(), "data": data, "models": uris, "hashes": hashes,
        "donors": [asdict(d) for d in source.donors], "device": "cuda" if actors.num_gpus else "cpu",
    }  # fmt: skip
    fingerprint = {"policy": policy.name, "policy_digest": loaded.digest, "models": hashes, "source": source.digest}
    units = make_units(source, run_digest, policy.output.per_input)
    run = run_units(
        units, AugmentWorker, args, store, fingerprint,
        actors=actors, progress=progress,
    )  # fmt: skip
    counts = {k: run.counts.get(k, 0) for k in OUTCOMES}
    requested = source.selected * policy.output.per_input
    if sum(counts.values()) != requested:
        raise DataError("rows were lost: requested = accepted + rejected + failed + skipped must hold",
                        found=f"{requested} requested, {counts}", where=out)  # fmt: skip
    judged = counts["accepted"] + counts["rejected"]
    rate = counts["rejected"] / judged if judged else 0.0
    manifest = {
        "engine_version": __version__, "policy": loaded.to_dict(), "fingerprint": fingerprint, "requested": requested,
        "counts": counts, "reject_rate": rate, "files": {k: committed_files(store, k) for k in OUTCOMES},
    }  # fmt: skip
    finish(store, manifest)
    return AugmentSummary(requested, counts, run, rate, policy.output.max_reject_rate, out)
