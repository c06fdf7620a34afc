"""Sample shards and a policy in; accepted, rejected, failed and skipped rows out, each requested row exactly once."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow.parquet as pq
import yaml

from augengine import __version__
from augengine.diffusion.checkpoint import read_spec
from augengine.diffusion.spec import ModelSpec
from augengine.edits.base import Donor
from augengine.errors import CheckpointError, ConfigError, DataError
from augengine.gates import gate_hashes
from augengine.io.commits import committed_files, finish, sample_files, version
from augengine.io.shards import METADATA_COLUMNS, check_schema
from augengine.io.store import Store
from augengine.load import LoadedPolicy
from augengine.pipeline.augment_worker import AugmentWorker, selected
from augengine.pipeline.units import Actors, Progress, Summary, Unit, run_units
from augengine.policy.spec import Select
from augengine.records import Acquisition
from augengine.rng import canonical_json, digest

OUTCOMES = ("accepted", "rejected", "failed", "skipped")
POLICY, INPUTS, THROUGHPUT = "policy.yaml", "inputs.json", "throughput.json"


@dataclass(frozen=True)
class Source:
    """What one pass over the metadata of a data set tells.

    Attributes:
        groups: shard, row group, selected rows.
        left_out: rows that `select` does not take, by reason.
    """

    groups: tuple[tuple[str, int, int], ...]
    donors: tuple[Donor, ...]
    channels: tuple[tuple[str, ...], ...]
    digest: str
    rows: int
    left_out: Mapping[str, int]

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
    max_reject_rate: float
    max_fail_rate: float
    out: str

    @property
    def reject_rate(self) -> float:
        """Rejected rows of those that were judged."""
        return _share(self.counts["rejected"], self.counts["accepted"])

    @property
    def fail_rate(self) -> float:
        """Failed rows of those that were tried."""
        return _share(self.counts["failed"], self.counts["accepted"] + self.counts["rejected"])

    @property
    def shortcoming(self) -> str | None:
        """Which limit of the policy the run breaks; None if it is acceptable."""
        if self.fail_rate > self.max_fail_rate:
            return f"at most {self.max_fail_rate:.0%} of the rows may fail, found {self.fail_rate:.0%}"
        if self.reject_rate > self.max_reject_rate:
            return f"at most {self.max_reject_rate:.0%} of the rows may be rejected, found {self.reject_rate:.0%}"
        return None if self.counts["accepted"] else "some rows must be accepted, found none"

    @property
    def acceptable(self) -> bool:
        """True if something was accepted, and no more was rejected or failed than the policy allows."""
        return self.shortcoming is None


def _share(part: int, rest: int) -> float:
    return part / (part + rest) if part else 0.0


def survey(store: Store, select: Select) -> Source:
    """Stream the metadata once; memory grows with subjects and row groups, not with rows."""
    groups: list[tuple[str, int, int]] = []
    donors: dict[str, Acquisition] = {}
    channels: set[tuple[str, ...]] = set()
    running, rows, left_out = hashlib.blake2b(digest_size=16), 0, Counter[str]()
    for name in sample_files(store):
        file = store.parquet(name)
        check_schema(file, store.path(name))
        for group in range(file.num_row_groups):
            count = 0
            running.update(canonical_json(_pixel_bytes(file, group)).encode())
            for row in file.read_row_group(group, columns=METADATA_COLUMNS).to_pylist():
                acquisition = Acquisition(**row["acquisition"])
                rows += 1
                if selected(select, row["split"], acquisition):
                    count += 1
                    channels.add(tuple(row["channels"]))
                else:
                    other = select.split is not None and row["split"] != select.split
                    left_out[f"split is {row['split']}" if other else "select.where"] += 1
                running.update(canonical_json([name, row["sample_id"], row["split"], row["acquisition"]]).encode())
                if row["split"] == "train" and not row["synthetic"]:
                    donors[row["subject_id"]] = acquisition
            groups.append((name, group, count))
    found = tuple(Donor(s, a) for s, a in sorted(donors.items()))
    return Source(tuple(groups), found, tuple(sorted(channels)), running.hexdigest(), rows, left_out)


def _pixel_bytes(file: pq.ParquetFile, group: int) -> list[int]:
    """Compressed sizes of the pixel columns: other pixels under the same ids are noticed without reading them."""
    meta = file.metadata.row_group(group)
    columns = (meta.column(n) for n in range(meta.num_columns))
    return [c.total_compressed_size for c in columns if c.path_in_schema in ("image", "label")]


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
    for role, kinds in loaded.edit.MODELS.items():
        asked = loaded.policy.models.get(role)
        uri = checkpoints.get(role) or (asked.ref if asked else None)
        if uri is None:
            raise ConfigError(
                f"policy '{loaded.policy.name}' needs a checkpoint for the role '{role}'",
                next_step=f"pass --checkpoint, or set models.{role}.ref",
            )
        spec = read_spec(uri)
        if spec.kind not in kinds:
            wanted = "' or '".join(kinds)
            raise CheckpointError(f"the role '{role}' needs a model of kind '{wanted}'", found=spec.kind, where=uri)
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
    new_version: bool = False,
) -> AugmentSummary:
    """Apply a policy to a data set; the same call again makes only what is missing.

    Args:
        data: folder of shards (path or URI), as written by ingest.
        out: output folder; gets accepted/, rejected/, failed/, skipped/ and manifest.json, and at the start what
            replay needs: policy.yaml and inputs.json (data, models, device).
        checkpoints: model role to checkpoint folder; overrides the policy's `ref`.
        new_version: where `out` holds rows of another policy, model or source, write to `out/v2`, `v3`, …

    Raises:
        AugengineError: bad policy, data, checkpoint or output folder.
    """
    policy = loaded.policy
    source = survey(Store(data), policy.select)
    uris, weights = resolve_models(loaded, checkpoints, source.channels)
    hashes = {**weights, **gate_hashes(policy.gates)}
    if not source.selected:
        raise DataError(
            "the policy's select takes no row of this data", where=data,
            found=f"{source.rows} rows, select: {policy.select.model_dump(exclude_none=True)}",
            next_step="loosen select, or check split and acquisition values with `augengine plan`",
        )  # fmt: skip
    device = "cuda" if actors.num_gpus else "cpu"
    args = {
        "policy": loaded.to_dict(), "data": data, "models": uris, "hashes": hashes,
        "donors": [asdict(d) for d in source.donors], "device": device,
    }  # fmt: skip
    fingerprint = {"policy": policy.name, "policy_digest": loaded.digest, "models": hashes, "source": source.digest}
    models = {role: {"ref": Store(uri).uri, "sha256": hashes[role]} for role, uri in uris.items()}
    inputs = {"data": Store(data).uri, "models": models, "device": device, "engine_version": __version__}
    store = version(Store(out), fingerprint, new_version)
    run = run_units(
        make_units(source, loaded.run_digest(hashes), policy.output.per_input), AugmentWorker, args, store, fingerprint,
        files={
            POLICY: yaml.safe_dump(loaded.to_dict(), sort_keys=False, allow_unicode=True),
            INPUTS: json.dumps(inputs, indent=1) + "\n",
        },
        actors=actors, progress=progress,
    )  # fmt: skip
    counts = {k: run.counts.get(k, 0) for k in OUTCOMES}
    requested = source.selected * policy.output.per_input
    if sum(counts.values()) != requested:
        raise DataError("rows were lost: requested = accepted + rejected + failed + skipped must hold",
                        found=f"{requested} requested, {counts}", where=store.uri)  # fmt: skip
    output = policy.output
    summary = AugmentSummary(requested, counts, run, output.max_reject_rate, output.max_fail_rate, store.uri)
    files = {k: committed_files(store, k) for k in OUTCOMES}
    manifest = {
        "engine_version": __version__, "policy": loaded.to_dict(), "fingerprint": fingerprint, "requested": requested,
        "counts": counts, "reject_rate": summary.reject_rate, "fail_rate": summary.fail_rate,
        "shortcoming": summary.shortcoming, "files": files,
    }  # fmt: skip
    store.write_json(THROUGHPUT, _throughput(store, counts, files, run, device))
    finish(store, manifest)
    return summary


def _throughput(
    store: Store, counts: Mapping[str, int], files: Mapping[str, Sequence[str]], run: Summary, device: str
) -> dict[str, Any]:
    """What `augengine plan` estimates the next run with: speed of one actor, and size of a row that has pixels."""
    kept = counts["accepted"] + counts["rejected"]
    size = sum(store.fs.size(store.path(name)) for kind in ("accepted", "rejected") for name in files[kind])
    return {
        "rows_per_second": round((kept + counts["failed"]) / run.busy_s, 4) if run.busy_s else None,
        "bytes_per_row": round(size / kept) if kept else None, "device": device, "rows": sum(counts.values()),
    }  # fmt: skip
