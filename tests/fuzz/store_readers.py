"""What the engine writes itself, with flipped bits or absurd rows: shards, manifests, records, checkpoints, states.

The oracle is what was written: whatever is read must be equal to it, or be refused. Of absurd rows the oracle is the
rule that they break.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from builders import slice_sample, write_checkpoint, write_samples
from fuzz import mutations
from fuzz.pool import Silent
from torch import nn

from augengine.diffusion.checkpoint import load_model
from augengine.diffusion.ema import Ema
from augengine.errors import AugengineError, CheckpointError, DataError
from augengine.io.commits import Record, commit, read_records
from augengine.io.dataset import dataset_files, listed_files, write_dataset
from augengine.io.parts import Part
from augengine.io.shards import SCHEMA, from_row, iter_metadata, iter_samples, to_row, to_table
from augengine.io.store import Store
from augengine.selection import Request, select
from augengine.train import state
from augengine.train.local_state import LocalState
from augengine.train.precision import Precision

Change = Callable[[np.random.Generator, bytes], bytes]


@cache
def _samples() -> tuple[Any, ...]:
    confidence = np.full((8, 8), 200, np.uint8)
    return tuple(slice_sample(s, k, size=8, label_confidence=confidence) for s in range(3) for k in range(2))


@cache
def _written() -> Path:
    """A folder with one of each, made once in a process."""
    torch.set_num_threads(1)
    root = Path(tempfile.mkdtemp(prefix="fuzz-written-"))
    write_samples(root / "data", list(_samples()), per_file=3)
    write_checkpoint(root / "checkpoint", kind="counterfactual", size=16)
    part = Part("samples/part-u-0123456789ab.parquet", 3, "ab" * 32, 77)
    commit(Store(root / "run"), Record("u", {"samples": 3}, {"samples": (part,)}, 1.5, 7, 12.5, {"failed": {"x": 2}}))
    for step in (10, 20):
        with tempfile.TemporaryDirectory() as folder:
            state.save(Path(folder), state.Progress(step, 1.0, [1]), *_training(step), None, write=True)
            LocalState(Store(root / "train")).save(Path(folder), step)
    return root


def _training(seed: int) -> tuple[nn.Module, torch.optim.Optimizer, Ema, Precision]:
    torch.manual_seed(seed)
    network = nn.Linear(3, 2)
    objective = nn.ModuleDict({"network": network})
    optimiser = torch.optim.AdamW(objective.parameters(), lr=0.1)
    network(torch.ones(1, 3)).sum().backward()
    optimiser.step()
    return objective, optimiser, Ema(network, 0.9), Precision("float32", torch.device("cpu"))


def _with_change(rng: np.random.Generator, folder: Path, what: str, pattern: str, change: Change) -> Path:
    """A copy of one of `_written` of which one file that matches the pattern is changed."""
    copy = folder / what
    shutil.copytree(_written() / what, copy)
    file = mutations.pick(rng, sorted(copy.glob(pattern)))
    file.write_bytes(change(rng, file.read_bytes()))
    return copy


def _flip_or_damage(rng: np.random.Generator, content: bytes) -> bytes:
    if rng.random() < 0.05:
        return content
    return mutations.flipped(rng, content) if rng.random() < 0.7 else mutations.damaged(rng, content)


def shard(rng: np.random.Generator, folder: Path, change: Change = _flip_or_damage) -> None:
    """A data set with one damaged shard, read whole and by its metadata."""
    store = Store(_with_change(rng, folder, "data", "samples/*.parquet", change))
    names = dataset_files(store)
    found = [str(to_row(sample)) for sample in iter_samples(store, names)]
    if found != _rows():
        raise Silent("other rows")
    if [_about(row) for row in iter_metadata(store, names)] != [_about(to_row(s)) for s in _samples()]:
        raise Silent("other metadata")


@cache
def _rows() -> list[str]:
    return [str(to_row(sample)) for sample in _samples()]


def _about(row: dict[str, Any]) -> str:
    values = [row[name] for name in ("sample_id", "subject_id", "split", "spacing_mm", "channels")]
    return str([*values, sorted(row["acquisition"].items())])


def manifest(rng: np.random.Generator, folder: Path, change: Change = _flip_or_damage) -> None:
    """A data set with a damaged manifest or mark of success."""
    store = Store(_with_change(rng, folder, "data", "*.json", change))
    if listed_files(store) != listed_files(Store(_written() / "data")):
        raise Silent("other files")


def record(rng: np.random.Generator, folder: Path, change: Change = _flip_or_damage) -> None:
    """A run with a damaged commit record."""
    store = Store(_with_change(rng, folder, "run", "_commits/*.json", change))
    if read_records(store) != read_records(Store(_written() / "run")):
        raise Silent("another record")


def checkpoint(rng: np.random.Generator, folder: Path, change: Change = _flip_or_damage) -> None:
    """A model with damaged weights or description."""
    found = load_model(str(_with_change(rng, folder, "checkpoint", "model.*", change)))
    wanted = load_model(str(_written() / "checkpoint"))
    if found.spec != wanted.spec:
        raise Silent("another description")
    for name, weight in wanted.network.state_dict().items():
        if not torch.equal(weight, found.network.state_dict()[name]):
            raise Silent(f"other weights {name}")


def training_state(rng: np.random.Generator, folder: Path, change: Change = _flip_or_damage) -> None:
    """Two states of a training, one of which is damaged: the newest good one is taken."""
    store = Store(_with_change(rng, folder, "train", "state/**/*.*", change))
    into = folder / "into"
    into.mkdir()
    there, _ = LocalState(store).load(into)
    if not there:
        raise Silent("neither state was taken")
    objective, optimiser, ema, precision = _training(99)
    progress = state.load(into, objective, optimiser, ema, precision, None)
    wanted, *_ = _training(progress.step)
    if progress.step not in (10, 20):
        raise Silent(f"step {progress.step}")
    for name, weight in wanted.state_dict().items():
        if not torch.equal(weight, objective.state_dict()[name]):
            raise Silent(f"other weights {name}")


# --- rows that are well stored and absurd
def _null(rng: np.random.Generator, row: dict[str, Any]) -> str:
    name = mutations.pick(rng, [n for n in row if n not in ("provenance",)])
    row[name] = None
    return name


def _number(rng: np.random.Generator, row: dict[str, Any]) -> str:
    name = mutations.pick(rng, ("flip_angle_deg", "slice_thickness_mm", "echo_time_ms", "field_strength_t"))
    row["acquisition"] = {**row["acquisition"], name: mutations.pick(rng, (-1.0, 1e300, float("nan"), float("inf")))}
    return "must be refused"


def _spacing(rng: np.random.Generator, row: dict[str, Any]) -> str:
    affine = np.reshape(row["affine"], (4, 4)).copy()
    affine[:3, :3] *= mutations.pick(rng, (1e9, 0.0, float("nan"), 1e-9))
    row["affine"], row["spacing_mm"] = affine.ravel().tolist(), np.linalg.norm(affine[:3, :3], axis=0).tolist()
    return "must be refused"


def _labels(rng: np.random.Generator, row: dict[str, Any]) -> str:
    changes = {"label_names": ["fat", "fat"], "label_codes": [1, 1]}, {"label_names": ["a", "b"], "label_codes": [1, 1]}
    row.update(mutations.pick(rng, (*changes, {"label_codes": [0]}, {"label_names": ["fat", "x"]})))
    return "must be refused"


def _shape(rng: np.random.Generator, row: dict[str, Any]) -> str:
    shapes = ([1, 8], [1, 8, 9], [1, 2**20, 2**20], [1, -8, -8], [], [0, 8, 8], [2, 8, 8])
    row["image_shape"] = mutations.pick(rng, shapes)
    return "must be refused"


def _bytes(rng: np.random.Generator, row: dict[str, Any]) -> str:
    name = mutations.pick(rng, ("image", "label", "label_confidence"))
    row[name] = mutations.pick(rng, (b"", row[name][:-1], row[name] + b"\0"))
    return "must be refused"


def _kind(rng: np.random.Generator, row: dict[str, Any]) -> str:
    row["image_dtype"] = mutations.pick(rng, ("<u9", "object", "", "<U4", "|V2", "M8[s]", "<c8"))
    return "must be refused"


def _range(rng: np.random.Generator, row: dict[str, Any]) -> str:
    row["intensity_low"], row["intensity_high"] = mutations.pick(
        rng, (([float("nan")], [1.0]), ([5.0], [1.0]), ([], []), ([0.0], [float("inf")]))
    )
    return "must be refused"


def rows(rng: np.random.Generator, folder: Path) -> None:
    """A data set whose files are whole and one of whose rows, or columns, is absurd; read, and selected for export."""
    found = [to_row(sample) for sample in _samples()]
    n = int(rng.integers(len(found)))
    change = mutations.pick(rng, (_null, _null, _number, _spacing, _labels, _shape, _bytes, _kind, _range))
    what = change(rng, found[n])
    if rng.random() < 0.1:
        found[n] = dict(found[n - 1])
        what = "sample ids twice"
    table = pa.Table.from_pylist(found, schema=SCHEMA)
    if rng.random() < 0.15:
        table, what = _lost_column(rng, to_table(_samples()))
    store = write_dataset(str(folder / "data"), [table])
    must = what in ("must be refused", "sample ids twice")
    problems = []
    try:
        selected = select(Request.of(store, split=None, unlabelled="keep"))
        if any(reason.startswith("damaged row") and n for reason, n in selected.left_out.items()):
            problems.append(DataError("a row is left out, and counted"))
        for row in selected.rows():
            _judge(row, problems)
    except AugengineError as error:
        problems.append(error)
    if not problems:
        if must:
            raise Silent(f"{what}: {change.__name__}")
        return
    raise problems[0]


def _judge(row: dict[str, Any], problems: list[AugengineError]) -> None:
    try:
        from_row(row)
    except (DataError, CheckpointError) as error:
        problems.append(error)


def _lost_column(rng: np.random.Generator, table: pa.Table) -> tuple[pa.Table, str]:
    name = mutations.pick(rng, table.column_names)
    place = table.column_names.index(name)
    kind = int(rng.integers(3))
    if kind == 0:
        return table.drop_columns([name]), "a missing column"
    if kind == 1:
        return table.set_column(place, name, pa.array([1.5] * len(table))), "another type"
    return table.set_column(place, name, pa.array(["x"] * len(table))), "another type"


READERS = {
    "shard": shard,
    "manifest": manifest,
    "record": record,
    "checkpoint": checkpoint,
    "state": training_state,
    "rows": rows,
}
FLIPS = {
    f"flip of {name}": lambda rng, folder, read=read: read(rng, folder, mutations.flipped)
    for name, read in READERS.items()
    if name != "rows"
}
