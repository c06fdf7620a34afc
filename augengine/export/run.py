"""A target and data sets in; a finished folder in that target's layout, and `export.json` that explains it, out.

While it is being made the folder holds `.augengine/`, with the commit record of every unit. `export.json` is written
last and says that the folder is whole; then the records go. Every file follows from the data and the options alone, so
a run that was killed at any moment ends, run again, in the same bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

import augengine
from augengine.errors import ConfigError, DataError, RunError
from augengine.export import TARGETS
from augengine.export.case import Case, cases_of
from augengine.export.record import RECORD, entry, files_of
from augengine.export.stack import stacked
from augengine.export.target import About, Target
from augengine.export.worker import CLEARED, FILES, ExportWorker
from augengine.io.commits import ATTEMPTS
from augengine.io.dataset import licence_of
from augengine.io.store import Store
from augengine.pipeline.units import Actors, Progress, Summary, run_units
from augengine.pipeline.workers import Unit
from augengine.rng import canonical_json, digest
from augengine.selection import Request, Selected, select

STATE = ".augengine"
_TEMPORARY = ".tmp-"


@dataclass(frozen=True)
class Exported:
    """What stands in the folder.

    Attributes:
        counts: cases by split and kind, e.g. `{"train real": 3}`.
        files: how many, without `export.json`.
        cleared: synthetic voxels that were set to 0 since their source has exactly 0 there.
        made, skipped: units written now and before.
        left_out: rows of the data that are not exported, by reason.
    """

    out: str
    counts: Mapping[str, int]
    files: int
    cleared: int
    made: int
    skipped: int
    left_out: Mapping[str, int]


def export(
    target: Target,
    request: Request,
    out: Store,
    *,
    stack: bool = False,
    clear: bool = True,
    licence: str | None = None,
    actors: Actors = Actors(),  # noqa: B008  (frozen)
    progress: Progress | None = None,
) -> Exported:
    """Write the rows of a request; the same call again does what is missing.

    Args:
        request: rows to export; the subjects of its splits but train are held out of augmented rows. Where it
            balances labels, augmented rows take the place of real ones as in the first epoch of a training.
        stack: put slices together to volumes.
        clear: set synthetic voxels to 0 where the source has exactly 0 in every channel and the case has no label.
        licence: of the source data, where their manifests state none.

    Raises:
        AugengineError: rows that this target cannot take, a leak, or a folder that holds something else.
    """
    if stack and request.balance:
        raise ConfigError(
            "balance chooses among rows, and a stack needs all slices of its volume",
            found=", ".join(request.balance),
            next_step="leave one of them out; nnunet takes --sampling-ratio, how often augmented cases are drawn",
        )
    selected = select(request).once()
    cases = cases_of(selected)
    cases = [replace(case, plan="") for case in (stacked(cases) if stack else cases)]
    folder = PurePosixPath(out.uri).name
    about = About(selected.channels, selected.label_names, _licence(selected, licence), folder)
    target.check(cases, about)
    fingerprint = {
        "stage": "export",
        "engine_version": augengine.__version__,
        "target": target.name,
        "options": {**target.identity(), "stack": stack, "clear": clear},
        "about": about.to_json(),
        "cases": digest([case.to_json() for case in cases]),
    }
    if made := TARGETS.made_by(target.name):
        fingerprint["plugins"] = made
    counts = dict(sorted(Counter(_kind(case) for case in cases).items()))
    units = _units(target, cases, about)
    state = out.folder(STATE)
    if held := _finished(out, fingerprint):
        state.remove_all()  # a run that was killed right at its end
        cleared = sum(case.get("cleared_voxels", 0) for case in held["cases"].values())
        return Exported(out.uri, counts, len(held["files"]), cleared, 0, len(units), selected.left_out)
    for name in state.names(ATTEMPTS):  # that a run was killed is no fault of its units
        state.remove(name)
    args = {
        "target": target,
        "sources": selected.sources,
        "labels": request.labels,
        "clear": clear,
        "about": about,
        "out": out,
    }
    run = run_units(units, ExportWorker, args, state, fingerprint, actors=actors, progress=progress)
    files = {row["name"]: row for row in _rows(state, run, FILES)}
    listed = files_of(files)
    for case in cases:
        if case.name not in listed:
            raise DataError("every case must stand in a file", found=f"{case.name} in none", where=out.uri)
    cleared_of = {row["case"]: row["voxels"] for row in _rows(state, run, CLEARED)}
    for file in target.finish(cases, about, listed):
        out.write(file.name, file.content)
        sha256 = hashlib.sha256(file.content).hexdigest()
        files[file.name] = {"sha256": sha256, "bytes": len(file.content), "cases": []}
    _remove_temporary(out, files)
    record = {
        "engine_version": augengine.__version__,
        "target": target.name,
        **about.to_json(),
        "fingerprint": fingerprint,
        "counts": counts,
        "left_out": {k: n for k, n in selected.left_out.items() if n},
        "files": {name: {"sha256": row["sha256"], "bytes": row["bytes"]} for name, row in files.items()},
        "cases": {case.name: entry(case, listed[case.name], cleared_of.get(case.name)) for case in cases},
    }
    out.write_json(RECORD, record)
    state.remove_all()
    cleared = sum(cleared_of.values())
    return Exported(out.uri, counts, len(files), cleared, run.made, run.skipped, selected.left_out)


def _kind(case: Case) -> str:
    return f"{case.split or 'no split'} {'augmented' if case.synthetic else 'real'}"


def _licence(selected: Selected, stated: str | None) -> str | None:
    """The licence of the source data: that of all manifests, or what the user states.

    Raises:
        DataError: data sets of several licences.
    """
    found: dict[str, str] = {}
    for store in selected.sources[: len(selected.request.real)]:
        if (licence := licence_of(store)) is not None:
            found[licence] = store.uri
    if len(found) > 1:
        raise DataError(
            "data of one export must have one licence",
            found=", ".join(sorted(found)),
            next_step="export the data sets apart from each other",
        )
    if found and stated not in (None, *found):
        raise DataError(
            "--licence must not contradict the data",
            found=f"{stated}, and the data set says {next(iter(found))}",
            where=next(iter(found.values())),
            next_step="leave --licence out",
        )
    return next(iter(found), stated)


def _units(target: Target, cases: Sequence[Case], about: About) -> list[Unit]:
    units = []
    for name, members in target.units(cases, about):
        spec = {"unit": name, "cases": [case.to_json() for case in members]}
        units.append(Unit(f"{name}-{digest(spec, length=12)}", spec))
    return units


def _finished(out: Store, fingerprint: Mapping[str, Any]) -> dict[str, Any] | None:
    """What `export.json` says, if this export is done; None if it is to be made or gone on with.

    Raises:
        RunError: the folder holds something else.
    """
    if out.exists(RECORD):
        held = out.read_mapping(RECORD)
        with contextlib.suppress(ValueError):  # NaN, which no fingerprint holds
            if canonical_json(held.get("fingerprint")) == canonical_json(fingerprint):
                return held
        raise RunError(
            "this folder holds another export, of other rows or with other options",
            where=out.uri,
            next_step="choose another --out, or delete it",
        )
    there = [*out.folders(), *out.sizes("")]
    if there and STATE not in there:
        raise RunError(
            "an export needs a folder of its own",
            found=f"{len(there)} files and folders",
            where=out.uri,
            next_step="choose another --out",
        )
    return None


def _rows(state: Store, run: Summary, kind: str) -> Iterator[dict[str, Any]]:
    for part in run.files.get(kind, ()):
        yield from state.parquet(part.name).read().to_pylist()


def _remove_temporary(out: Store, files: Mapping[str, Any]) -> None:
    """Delete what writers left that were killed; nobody else writes here, as the lock says."""
    for folder in sorted({"", *(str(PurePosixPath(name).parent) for name in files)} - {"."}):
        for name in out.sizes(folder):
            if PurePosixPath(name).name.startswith(_TEMPORARY):
                out.remove(name)
