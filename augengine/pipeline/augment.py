"""Sample shards and a policy or mix in; accepted, rejected, failed and skipped rows out, each requested row once."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import yaml

from augengine import __version__
from augengine.diffusion.checkpoint import read_spec
from augengine.errors import DataError
from augengine.io.commits import version
from augengine.io.dataset import finish, licence_of
from augengine.io.parts import Part
from augengine.io.store import Place, Store
from augengine.load import LoadedPolicy, Mixture
from augengine.pipeline.augment_worker import AugmentWorker
from augengine.pipeline.choices import check_choices
from augengine.pipeline.early_stop import Watch, top_reasons
from augengine.pipeline.models import gate_files, resolve_models
from augengine.pipeline.runtime import settled
from augengine.pipeline.survey import Survey, survey
from augengine.pipeline.units import Actors, Progress, Summary, run_units
from augengine.pipeline.workers import Unit
from augengine.rng import digest

OUTCOMES = ("accepted", "rejected", "failed", "skipped")
POLICY, INPUTS, THROUGHPUT = "policy.yaml", "inputs.json", "throughput.json"


@dataclass(frozen=True)
class Tally:
    """Rows by outcome."""

    requested: int
    counts: Mapping[str, int]

    @property
    def reject_rate(self) -> float:
        """Rejected rows of those that were judged."""
        return _share(self.counts["rejected"], self.counts["accepted"])

    @property
    def fail_rate(self) -> float:
        """Failed rows of those that were tried."""
        return _share(self.counts["failed"], self.counts["accepted"] + self.counts["rejected"])


@dataclass(frozen=True)
class MemberTally(Tally):
    """Rows of one policy, and the limits that it sets them."""

    max_reject_rate: float
    max_fail_rate: float

    @property
    def shortcoming(self) -> str | None:
        """Which limit of the policy the run breaks; None if it is acceptable."""
        if self.fail_rate > self.max_fail_rate:
            return f"at most {self.max_fail_rate:.0%} of the rows may fail, found {self.fail_rate:.0%}"
        if self.reject_rate > self.max_reject_rate:
            return f"at most {self.max_reject_rate:.0%} of the rows may be rejected, found {self.reject_rate:.0%}"
        return "some rows must be accepted, found none" if self.requested and not self.counts["accepted"] else None


@dataclass(frozen=True)
class AugmentSummary(Tally):
    """The outcome of a run; `requested` = accepted + rejected + failed + skipped holds, or `augment` raised.

    `members` has the same by policy: the only one, or those of a mix.
    """

    run: Summary
    out: str
    members: Mapping[str, MemberTally]

    @property
    def shortcoming(self) -> str | None:
        """The first limit of a policy that its rows break; None if the run is acceptable."""
        found = [(name, text) for name, tally in self.members.items() if (text := tally.shortcoming)]
        if not found:
            return None
        name, text = found[0]
        return text if len(self.members) == 1 else f"policy {name}: {text}"

    @property
    def reasons(self) -> dict[str, list[tuple[str, int]]]:
        """The commonest reasons of rows that were not accepted, by outcome, with their number; gates by name."""
        records = self.run.records.values()
        found = {outcome: top_reasons(records, outcome) for outcome in OUTCOMES}
        return {outcome: reasons for outcome, reasons in found.items() if reasons}

    @property
    def acceptable(self) -> bool:
        """True if something was accepted of every policy, and no more was rejected or failed than it allows."""
        return self.shortcoming is None


def _share(part: int, rest: int) -> float:
    return part / (part + rest) if part else 0.0


Inputs = tuple[Survey, dict[str, dict[str, Place]], dict[str, dict[str, str]]]
"""What the metadata of the rows say; policy name → role → folder of the model, and the same to its sha256."""


def make_units(surveyed: Survey, mixture: Mixture, run_digest: str) -> list[Unit]:
    """One unit per row group with selected rows, replicate and policy."""
    return [
        Unit(
            digest(run_digest, surveyed.digest, g.name, g.group, r, *([policy] if mixture.mix else []), length=16),
            {"name": g.name, "group": g.group, "replicate": r, "policy": policy},
        )
        for g in surveyed.groups
        for policy, r in sorted(g.requested, key=lambda key: key[::-1])
    ]


def check_inputs(mixture: Mixture, data: Store, checkpoints: Mapping[str, Place]) -> Inputs:
    """Refuse models and rows that do not fit the policy or each other, before anything is made.

    Raises:
        AugengineError: bad data or checkpoint.
    """
    surveyed = survey(data, mixture)
    uris, weights = resolve_models(mixture, checkpoints, surveyed.scales)
    check_choices(data, mixture, surveyed)
    return surveyed, uris, weights


def augment(
    loaded: LoadedPolicy | Mixture,
    data: Place,
    out: Place,
    checkpoints: Mapping[str, Place],
    *,
    actors: Actors = Actors(),  # noqa: B008  (frozen)
    progress: Progress | None = None,
    new_version: bool = False,
    keep_going: bool = False,
    retry_failed: bool = False,
) -> AugmentSummary:
    """Apply a policy, or a mix of policies, to a data set; the same call again makes only what is missing.

    Args:
        data: data set as written by ingest: path, URI, or a `Store` with storage options.
        out: output folder; gets accepted/, rejected/, failed/, skipped/ and manifest.json, and at the start what
            replay needs: policy.yaml and inputs.json (data, models, device).
        checkpoints: model role to checkpoint folder (see `checkpoint_of`); overrides the policy's `ref`.
        new_version: where `out` holds rows of another policy, model or source, write to `out/v2`, `v3`, …
        keep_going: make all rows, even where the first units show that the run cannot succeed.
        retry_failed: try the failed rows of a former run again; those that it made stay as they are.

    Raises:
        AugengineError: bad policy, data, checkpoint or output folder.
        ConfigError: a runtime that this machine cannot obey.
        EarlyStopError: the run cannot succeed (`augengine.pipeline.early_stop`).
    """
    mixture = Mixture((loaded,)) if isinstance(loaded, LoadedPolicy) else loaded
    read = Store.at(data)
    surveyed, uris, weights = check_inputs(mixture, read, checkpoints)
    licence = licence_of(read)
    hashes = {member.name: {**weights[member.name], **gate_files(member)} for member in mixture.members}
    device = "cuda" if actors.num_gpus else "cpu"
    described = {name: {role: read_spec(place) for role, place in roles.items()} for name, roles in uris.items()}
    mixture = settled(mixture, described, device, Store.at(out), POLICY)
    args = {
        "policy": mixture.to_dict(),
        "data": read,
        "hashes": hashes,
        "models": {name: {role: Store.at(place) for role, place in roles.items()} for name, roles in uris.items()},
        "donors": [asdict(d) for d in surveyed.donors],
        "device": device,
        "licence": licence,
        "plugins": mixture.plugins,
    }
    fingerprint = {
        "policy": mixture.name,
        "policy_digest": mixture.digest,
        "models": mixture.plain(hashes),
        "source": surveyed.digest,
    }
    if licence is not None:
        fingerprint["licence"] = licence
    if mixture.plugins:
        fingerprint["plugins"] = mixture.plugins
    models = {
        name: {role: {"ref": Store.at(uri).uri, "sha256": hashes[name][role]} for role, uri in roles.items()}
        for name, roles in uris.items()
    }
    inputs = {
        "data": read.uri,
        "models": mixture.plain(models),
        "device": device,
        "engine_version": __version__,
        **({"plugins": mixture.plugins} if mixture.plugins else {}),
    }
    store = version(Store.at(out), fingerprint, new_version, {"policy_digest": (POLICY, mixture.to_dict())})
    units = make_units(surveyed, mixture, mixture.run_digest(hashes))
    limits = {m.name: (m.policy.output.max_reject_rate, m.policy.output.max_fail_rate) for m in mixture.members}
    watch = Watch(limits, {unit.unit_id: unit.spec["policy"] for unit in units}, store.uri)
    run = run_units(
        units,
        AugmentWorker,
        args,
        store,
        fingerprint,
        files={
            POLICY: yaml.safe_dump(mixture.to_dict(), sort_keys=False, allow_unicode=True),
            INPUTS: json.dumps(inputs, indent=1) + "\n",
        },
        actors=actors,
        progress=progress,
        watch=None if keep_going else watch,
        retry_failed=retry_failed,
    )
    counts = {k: run.counts.get(k, 0) for k in OUTCOMES}
    requested = surveyed.selected * mixture.per_input
    members = _tallies(mixture, surveyed, units, run)
    summary = AugmentSummary(requested, counts, run, store.uri, members)
    for tally in (summary, *members.values()):
        if sum(tally.counts.values()) != tally.requested:
            raise DataError(
                "rows were lost: requested = accepted + rejected + failed + skipped must hold",
                found=f"{tally.requested} requested, {tally.counts}",
                where=store.uri,
            )
    files = {k: run.files.get(k, []) for k in OUTCOMES}
    manifest = {
        "engine_version": __version__,
        "policy": mixture.to_dict(),
        "fingerprint": fingerprint,
        "licence": licence,
        **_figures(summary),
    }
    if run.retried:
        manifest["retried"] = run.retried
    if mixture.mix is not None:
        manifest["members"] = {m.name: {"digest": m.digest, **_figures(members[m.name])} for m in mixture.members}
    store.write_json(THROUGHPUT, _throughput(counts, files, run, device))
    finish(store, manifest, files)
    return summary


def _figures(tally: AugmentSummary | MemberTally) -> dict[str, Any]:
    return {
        "requested": tally.requested,
        "counts": dict(tally.counts),
        "reject_rate": tally.reject_rate,
        "fail_rate": tally.fail_rate,
        "shortcoming": tally.shortcoming,
    }


def _tallies(mixture: Mixture, surveyed: Survey, units: Sequence[Unit], run: Summary) -> dict[str, MemberTally]:
    """Outcomes by policy; those of a mix are summed over the commit records of its units."""
    counts: dict[str, Counter[str]] = {m.name: Counter() for m in mixture.members}
    if mixture.mix is None:
        counts[mixture.name].update(run.counts)
    else:
        for unit in units:
            counts[unit.spec["policy"]].update(run.records[unit.unit_id].counts)
    return {
        m.name: MemberTally(
            surveyed.requested(m.name),
            {k: counts[m.name][k] for k in OUTCOMES},
            m.policy.output.max_reject_rate,
            m.policy.output.max_fail_rate,
        )
        for m in mixture.members
    }


def _throughput(
    counts: Mapping[str, int], files: Mapping[str, Sequence[Part]], run: Summary, device: str
) -> dict[str, Any]:
    """What `augengine plan` estimates the next run with: speed of one actor, and size of a row that has pixels."""
    kept = counts["accepted"] + counts["rejected"]
    size = sum(part.bytes for kind in ("accepted", "rejected") for part in files[kind])
    return {
        "rows_per_second": round((kept + counts["failed"]) / run.busy_s, 4) if run.busy_s else None,
        "bytes_per_row": round(size / kept) if kept else None,
        "device": device,
        "rows": sum(counts.values()),
    }
