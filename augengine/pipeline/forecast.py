"""A policy or mix and its data in; what a run would select, skip, make and cost out. Reads no weights."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from augengine.diffusion.checkpoint import read_spec
from augengine.diffusion.spec import ModelSpec
from augengine.edits.base import Skip
from augengine.errors import AugengineError, DataError, RunError
from augengine.io.shards import from_row, has_labels, read_group
from augengine.io.store import Place, Store
from augengine.load import LoadedPolicy, Mixture
from augengine.pipeline.augment import THROUGHPUT
from augengine.pipeline.choices import check_choices
from augengine.pipeline.models import folders, resolve_models
from augengine.pipeline.outcomes import general
from augengine.pipeline.row_maker import first_draft
from augengine.pipeline.survey import Survey, survey
from augengine.pipeline.units import Actors

ROWS_DRAWN = 200
# zstd leaves this much of noisy float32 pixels; whole-numbered ones take half of it or less.
COMPRESSION = 0.9


@dataclass(frozen=True)
class Forecast:
    """What a run would do.

    Attributes:
        surveyed: the rows of the data; `left_out` by the policy's select.
        requested: rows that the run would file, `per_input` for each selected one.
        drawn: rows whose plan was drawn as the run would draw it; 0 without checkpoints. Of a chain only the first
            step's: the later ones plan on pixels that nobody has painted yet.
        skipped: of the drawn ones, those that the edit cannot serve, by reason.
        outputs: rows with pixels to be expected, retries and gates aside.
        seconds, gpu_hours: None where no speed is known.
        bytes_per_row: measured by a former run, or from the shapes of the selected rows.
        idle: policies of a mix that take no row, with the reason.
    """

    surveyed: Survey
    requested: int
    drawn: int
    skipped: Mapping[str, int]
    outputs: int
    seconds: float | None
    gpu_hours: float | None
    bytes_per_row: float
    idle: Mapping[str, str] = field(default_factory=dict)

    @property
    def disk_bytes(self) -> float:
        """Size of the output."""
        return self.outputs * self.bytes_per_row


def forecast(
    loaded: LoadedPolicy | Mixture,
    data: Place,
    checkpoints: Mapping[str, Place],
    *,
    actors: Actors = Actors(),  # noqa: B008  (frozen)
    rows_per_second: float | None = None,
    run: Place | None = None,
    rows_drawn: int = ROWS_DRAWN,
) -> Forecast:
    """Survey the data and draw plans for an even choice of at most `rows_drawn` rows.

    Args:
        checkpoints: model role to checkpoint folder, as of `augment`; may be missing where the policy names none.
        rows_per_second: of one actor; default: what the finished run in the folder `run` measured.

    Raises:
        AugengineError: bad policy, data or checkpoint, a policy that takes no row of the data (with the nearest
            values that it has), or `run` holds no finished run.
    """
    mixture, store = Mixture((loaded,)) if isinstance(loaded, LoadedPolicy) else loaded, Store.at(data)
    surveyed = survey(store, mixture)
    idle = check_choices(store, mixture, surveyed)
    measured = _measured(run) if run else {}
    speed = rows_per_second or measured.get("rows_per_second")
    drawn, skipped = 0, Counter[str]()
    if all(folders(mixture, checkpoints).values()):
        uris, _ = resolve_models(mixture, checkpoints, surveyed.scales)
        specs = {name: {role: read_spec(uri) for role, uri in roles.items()} for name, roles in uris.items()}
        rows = list(_some(store, surveyed, mixture, rows_drawn))
        drawn, skipped = len(rows), _skips(mixture, surveyed, specs, rows)
    requested = surveyed.selected * mixture.per_input
    outputs = round(requested * (1 - skipped.total() / drawn)) if drawn else requested
    per_row = measured.get("bytes_per_row") or _row_bytes(surveyed)
    busy = outputs / speed if speed else None
    return Forecast(
        surveyed,
        requested,
        drawn,
        skipped,
        outputs,
        None if busy is None else busy / (actors.count or 1),
        None if busy is None else busy * actors.num_gpus / 3600,
        per_row,
        idle,
    )


def output_bytes(surveyed: Survey, mixture: Mixture) -> float:
    """Size of all rows that a run would make of a data set, from the shapes of its rows."""
    return surveyed.selected * mixture.per_input * _row_bytes(surveyed)


def _measured(run: Place) -> dict[str, Any]:
    store = Store.at(run)
    if not store.exists(THROUGHPUT):
        raise RunError(
            f"a finished run holds {THROUGHPUT}",
            where=store.uri,
            next_step="give the folder of a finished run, or --rows-per-second",
        )
    number = (int, float, type(None))
    measured = store.read_mapping(THROUGHPUT, rows_per_second=number, bytes_per_row=number)
    for name in ("rows_per_second", "bytes_per_row"):
        if (value := measured.get(name)) is not None and not 0 < value < math.inf:
            raise DataError(
                f"'{name}' is a number above 0",
                found=value,
                where=store.path(THROUGHPUT),
                next_step="give the folder of another finished run, or --rows-per-second",
            )
    return measured


def _some(store: Store, surveyed: Survey, mixture: Mixture, count: int) -> Iterator[dict[str, Any]]:
    """Every n-th selected row, at most `count` of them."""
    stride, seen = max(1, -(-surveyed.selected // count)), 0
    for group in surveyed.groups:
        if not any((seen + n) % stride == 0 for n in range(group.selected)):
            seen += group.selected
            continue
        file = store.parquet(group.name)
        rows, labelled = read_group(file, group.group), has_labels(file, group.group)
        for n, row in enumerate(rows.select(["split", "acquisition"]).to_pylist()):
            if row["acquisition"] is not None and mixture.takes({**row, "labelled": labelled[n]}):
                if seen % stride == 0:
                    yield rows.slice(n, 1).to_pylist()[0]
                seen += 1


def _skips(
    mixture: Mixture, surveyed: Survey, specs: Mapping[str, Mapping[str, ModelSpec]], rows: Sequence[dict[str, Any]]
) -> Counter[str]:
    """Why the first replicate of some rows would be skipped (numbers stand as "…"), or would fail in planning."""
    reasons: Counter[str] = Counter()
    for values in rows:
        member = mixture.drawn(values, 0)
        assert member is not None  # one of those that take it
        draft = first_draft(member, from_row(values), "", 0, 0)
        try:
            plan = member.steps[0].plan(draft.sample, draft.row, surveyed.donors, specs[member.name])
        except Exception as error:  # the run would file this row as failed, with this text
            text = str(error) if isinstance(error, AugengineError) else f"{type(error).__name__}: {error}"
            reasons[mixture.named(member, f"fails: {text}", ": ")] += 1
        else:
            if isinstance(plan, Skip):
                reasons[mixture.named(member, general(plan.reason), ": ")] += 1
    return reasons


def _row_bytes(surveyed: Survey) -> float:
    return COMPRESSION * np.dtype(np.float32).itemsize * surveyed.mean_voxels
