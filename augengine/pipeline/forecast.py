"""A policy and its data in; what a run would select, skip, make and cost out. Reads model descriptions, no weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from augengine.diffusion.checkpoint import read_spec
from augengine.edits.base import Context, Skip
from augengine.errors import AugengineError, RunError
from augengine.io.shards import from_row
from augengine.io.store import Store
from augengine.load import LoadedPolicy
from augengine.pipeline.augment import THROUGHPUT, Source, resolve_models, survey
from augengine.pipeline.augment_worker import draw, selected
from augengine.pipeline.units import Actors
from augengine.records import Acquisition, Sample

ROWS_DRAWN = 200
# zstd leaves this much of noisy float32 pixels; whole-numbered ones take half of it or less.
COMPRESSION = 0.9


@dataclass(frozen=True)
class Forecast:
    """What a run would do.

    Attributes:
        source: the rows of the data; `left_out` by the policy's select.
        requested: rows that the run would file, `per_input` for each selected one.
        drawn: rows whose plan was drawn as the run would draw it; 0 without checkpoints.
        skipped: of the drawn ones, those that the edit cannot serve, by reason.
        outputs: rows with pixels to be expected, retries and gates aside.
        seconds, gpu_hours: None where no speed is known.
        bytes_per_row: measured by a former run, or from the shapes of the rows that were looked at.
    """

    source: Source
    requested: int
    drawn: int
    skipped: Mapping[str, int]
    outputs: int
    seconds: float | None
    gpu_hours: float | None
    bytes_per_row: float

    @property
    def disk_bytes(self) -> float:
        """Size of the output."""
        return self.outputs * self.bytes_per_row


def forecast(
    loaded: LoadedPolicy,
    data: str,
    checkpoints: Mapping[str, str],
    *,
    actors: Actors = Actors(),  # noqa: B008  (frozen)
    rows_per_second: float | None = None,
    run: str | None = None,
    rows_drawn: int = ROWS_DRAWN,
) -> Forecast:
    """Survey the data and draw plans for an even choice of at most `rows_drawn` rows.

    Args:
        checkpoints: model role to checkpoint folder, as of `augment`; may be missing where the policy names none.
        rows_per_second: of one actor; default: what the finished run in the folder `run` measured.

    Raises:
        AugengineError: bad policy, data or checkpoint, or `run` holds no finished run.
    """
    policy, store = loaded.policy, Store(data)
    source = survey(store, policy.select)
    measured = _measured(run) if run else {}
    speed = rows_per_second or measured.get("rows_per_second")
    rows = list(_some(store, source, loaded, rows_drawn))
    drawn, skipped = 0, Counter[str]()
    if all(role in checkpoints or _has_ref(loaded, role) for role in loaded.edit.MODELS):
        uris, _ = resolve_models(loaded, checkpoints, source.channels)
        context = Context(source.donors, {role: read_spec(uri) for role, uri in uris.items()})
        drawn, skipped = len(rows), _skips(loaded, context, rows)
    requested = source.selected * policy.output.per_input
    outputs = round(requested * (1 - skipped.total() / drawn)) if drawn else requested
    per_row = measured.get("bytes_per_row") or (sum(map(_raw_bytes, rows)) / len(rows) if rows else 0.0)
    busy = outputs / speed if speed else None
    return Forecast(
        source, requested, drawn, skipped, outputs,
        None if busy is None else busy / actors.count,
        None if busy is None else busy * actors.num_gpus / 3600,
        per_row,
    )  # fmt: skip


def _has_ref(loaded: LoadedPolicy, role: str) -> bool:
    return role in loaded.policy.models and loaded.policy.models[role].ref is not None


def _measured(run: str) -> dict[str, Any]:
    store = Store(run)
    if not store.exists(THROUGHPUT):
        raise RunError(
            f"a finished run holds {THROUGHPUT}", where=store.uri,
            next_step="give the folder of a finished run, or --rows-per-second",
        )  # fmt: skip
    measured: dict[str, Any] = store.read_json(THROUGHPUT)
    return measured


def _some(store: Store, source: Source, loaded: LoadedPolicy, count: int) -> Iterator[Sample]:
    """Every n-th selected row, at most `count` of them."""
    stride, seen = max(1, -(-source.selected // count)), 0
    for name, group, rows in source.groups:
        if not any((seen + n) % stride == 0 for n in range(rows)):
            seen += rows
            continue
        for row in store.parquet(name).read_row_group(group).to_pylist():
            if selected(loaded.policy.select, row["split"], Acquisition(**row["acquisition"])):
                if seen % stride == 0:
                    yield from_row(row)
                seen += 1


def _skips(loaded: LoadedPolicy, context: Context, rows: list[Sample]) -> Counter[str]:
    """Reasons for which the first replicate of some rows would be skipped, or would fail in planning."""
    reasons: Counter[str] = Counter()
    for sample in rows:
        try:
            _, drawing = draw(loaded, context, sample, 0, 0)
        except Exception as error:  # the run would file this row as failed, with this text
            text = str(error) if isinstance(error, AugengineError) else f"{type(error).__name__}: {error}"
            reasons[f"fails: {text}"] += 1
        else:
            if isinstance(drawing, Skip):
                reasons[drawing.reason] += 1
    return reasons


def _raw_bytes(sample: Sample) -> float:
    return COMPRESSION * sample.image.nbytes
