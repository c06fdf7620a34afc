"""How fast a training loop gets its items, and what that takes: shards beside the same slices in other forms.

    python benchmarks/loading.py

Slices of the breast phantom are written as shards and, for MONAI, as NIfTI.gz, image and label map. Every way to load
them runs in a process of its own, on one thread, in turns; each gives batches of float32 images and label maps. Rows
per second are of the clock, from opening the data to the last batch; beside them those of processor time, which other
work on the machine changes less. The documented loop is that of docs/shards.md; to get at a row by its number it
goes on until that row. All give intensities as the data state them. Rows are shuffled, by Hugging Face in a buffer
of as many as `ShardStream` has in a window, but for the two ways `in order` and the documented loop. Memory is the peak
of a process that reads ten times as many rows, over that for one time; the cache of `ShardDataset` is 64 MiB then,
which both fill.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from _record import record
from rich.console import Console
from rich.table import Table

BATCH, LOOKED_UP, LOOPED_UP = 8, 400, 8
EPOCHS = (
    "ShardStream",
    "ShardDataset, sampler",
    "ShardDataset, shuffle",
    "MONAI, NIfTI.gz",
    "Hugging Face, streaming",
    "documented loop",
    "ShardStream, in order",
    "Hugging Face, in order",
)
BUFFER = 8 * 64
CACHE_MB = 64
ACCESSES = ("ShardDataset", "documented loop")


def main() -> None:
    """Write the data, take turns, print the tables and write the record."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--rounds", type=int, default=3)
    flags.add_argument("--subjects", type=int, default=20)
    flags.add_argument("--slices", type=int, default=48, help="of a subject")
    flags.add_argument("--matrix", type=int, default=224)
    flags.add_argument("--one", help=argparse.SUPPRESS)
    given = flags.parse_args()
    if given.one:
        print(json.dumps(_one(**json.loads(given.one))))
        return
    with tempfile.TemporaryDirectory() as folder:
        rows = _write(Path(folder), given.subjects, given.slices, given.matrix)
        figures = {
            "rows": rows,
            "matrix": given.matrix,
            "epoch": _turns({name: {"epoch": name} for name in EPOCHS}, folder, given.rounds),
            "epoch, 2 workers": _turns(
                {name: {"epoch": name, "workers": 2} for name in EPOCHS[:4]}, folder, given.rounds
            ),
            "random access": _turns({name: {"access": name} for name in ACCESSES}, folder, given.rounds),
            "memory": {name: _memory(name, folder) for name in EPOCHS[:2]},
        }
    epoch, workers, access = figures["epoch"], figures["epoch, 2 workers"], figures["random access"]
    figures["ratios"] = {
        "ShardStream / MONAI": _ratio(epoch, "ShardStream", "MONAI, NIfTI.gz"),
        "ShardStream / MONAI, 2 workers": _ratio(workers, "ShardStream", "MONAI, NIfTI.gz"),
        "ShardStream / Hugging Face": _ratio(epoch, "ShardStream", "Hugging Face, streaming"),
        "ShardStream / Hugging Face, in order": _ratio(epoch, *EPOCHS[6:]),
        "ShardDataset / documented loop, random access": _ratio(access, *ACCESSES),
        "ShardDataset, sampler / documented loop, epoch": _ratio(epoch, EPOCHS[1], EPOCHS[5]),
    }
    _print(figures)
    Console().print(record("loading", figures))


def _ratio(found: dict[str, Any], ours: str, theirs: str) -> dict[str, float]:
    return {by: round(found[ours][by] / found[theirs][by], 2) for by in ("rows_per_s", "rows_per_cpu_s")}


def _turns(cases: dict[str, dict[str, Any]], folder: str, rounds: int) -> dict[str, Any]:
    """Medians of every case over some rounds, in each of which all have a turn."""
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, case in cases.items():
            runs[name].append(_apart({"folder": folder, **case}))
    return {
        name: {key: round(statistics.median(run[key] for run in found), 1) for key in found[0]}
        for name, found in runs.items()
    }


def _memory(name: str, folder: str) -> dict[str, float]:
    once, ten = (
        _apart({"folder": folder, "epoch": name, "times": times, "cache_mb": CACHE_MB})["peak_mib"] for times in (1, 10)
    )
    return {"peak_mib": once, "peak_mib_10x": ten, "growth": round(ten / once, 3)}


def _apart(case: dict[str, Any]) -> dict[str, float]:
    """One case in a process of its own."""
    command = [sys.executable, __file__, "--one", json.dumps(case)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **_ONE_THREAD})
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


_ONE_THREAD = {"OMP_NUM_THREADS": "1", "ARROW_IO_THREADS": "1"}


def _one(
    folder: str, epoch: str = "", access: str = "", workers: int = 0, times: int = 1, cache_mb: int = 256
) -> dict[str, float]:
    import pyarrow as pa
    import torch

    torch.set_num_threads(1)
    pa.set_cpu_count(1)
    run: Callable[[], Iterator[int]] = (
        (lambda: _epoch(epoch, Path(folder), workers, times, cache_mb))
        if epoch
        else (lambda: _access(access, Path(folder)))
    )
    next(run())  # what is imported late, and files in the page cache, count for none
    started, cpu = time.perf_counter(), _cpu()
    rows = sum(run())
    seconds, cpu = time.perf_counter() - started, _cpu() - cpu
    status = Path("/proc/self/status").read_text()  # what `getrusage` says is that of the parent, too
    peak_mib = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024
    return {"rows_per_s": rows / seconds, "rows_per_cpu_s": rows / cpu, "peak_mib": round(peak_mib, 1), "rows": rows}


def _cpu() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _epoch(name: str, folder: Path, workers: int, times: int, cache_mb: int) -> Iterator[int]:
    """Rows of each batch of an epoch."""
    from torch.utils.data import DataLoader

    from augengine.torch import ShardDataset, ShardStream

    shards: Any = str(folder / "shards") if times == 1 else [str(folder / f"copy{n}") for n in range(times)]
    if name == "documented loop":
        yield from (1 for _ in _documented(folder))
        return
    if name == "MONAI, NIfTI.gz":
        loader = _monai(folder, workers)
    elif name.startswith("Hugging Face"):
        loader = _hugging_face(folder, "in order" not in name)
    elif name.startswith("ShardStream"):
        order: dict[str, Any] = {"shuffle": False, "window": 1} if "in order" in name else {}
        stream = ShardStream(shards, split=None, batch_size=BATCH, normalise=None, **order)
        loader = DataLoader(stream, BATCH, num_workers=workers)
    else:
        data = ShardDataset(shards, split=None, normalise=None, cache_mb=cache_mb)
        order = {"sampler": data.sampler()} if "sampler" in name else {"shuffle": True}
        loader = DataLoader(data, BATCH, num_workers=workers, **order)
    for batch in loader:
        yield len(batch["image"])


def _access(name: str, folder: Path) -> Iterator[int]:
    """Rows looked up by their number, in no order."""
    from augengine.torch import ShardDataset

    data = ShardDataset(str(folder / "shards"), split=None, normalise=None, cache_mb=0)
    numbers = np.random.default_rng(0).integers(0, len(data), LOOKED_UP).tolist()
    if name == "ShardDataset":
        for n in numbers:
            yield len(data[n]["image"][:1])
    else:
        for n in numbers[:LOOPED_UP]:
            yield next(islice(_documented(folder), n, None))["row"]


def _documented(folder: Path) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet as pq

    for row in pq.read_table(_files(folder)).to_pylist():
        image = np.frombuffer(row["image"], row["image_dtype"]).reshape(row["image_shape"])
        label = np.frombuffer(row["label"], np.uint8).reshape(image.shape[1:])
        yield {"image": image, "label": label, "row": 1}


def _monai(folder: Path, workers: int) -> Any:
    from monai.data import DataLoader, Dataset
    from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged

    keys = ["image", "label"]
    names = sorted(path.name for path in (folder / "nifti" / "image").iterdir())
    items = [{key: str(folder / "nifti" / key / name) for key in keys} for name in names]
    transform = Compose([LoadImaged(keys), EnsureChannelFirstd(keys)])
    return DataLoader(Dataset(items, transform), batch_size=BATCH, shuffle=True, num_workers=workers)


def _hugging_face(folder: Path, shuffle: bool) -> Any:
    from datasets import load_dataset
    from torch.utils.data import DataLoader

    def decoded(row: dict[str, Any]) -> dict[str, Any]:
        image = np.frombuffer(row["image"], row["image_dtype"]).reshape(row["image_shape"]).astype(np.float32)
        return {
            "image": image,
            "label": np.frombuffer(row["label"], np.uint8).reshape(image.shape[1:]).astype(np.int64),
        }

    stream = load_dataset("parquet", data_files=_files(folder), split="train", streaming=True)
    columns = stream.column_names
    if shuffle:
        stream = stream.shuffle(seed=0, buffer_size=BUFFER)
    return DataLoader(stream.map(decoded, remove_columns=columns), BATCH)


def _files(folder: Path) -> list[str]:
    from augengine.io.dataset import dataset_files
    from augengine.io.store import Store

    store = Store(str(folder / "shards"))
    return [store.path(name) for name in dataset_files(store)]


def _write(folder: Path, subjects: int, slices: int, matrix: int) -> int:
    """The same slices as shards, ten times as shards of other names, and as NIfTI.gz; returns how many."""
    import shutil

    import nibabel as nib

    from augengine.io.shards import iter_samples
    from augengine.io.store import Store
    from augengine.phantom.cohort import Cohort
    from augengine.pipeline.phantom import shard_cohort
    from augengine.pipeline.units import INLINE
    from augengine.prepare import Preparation

    uri = str(folder / "shards")
    shard_cohort(Cohort(subjects=subjects, matrix=matrix, slices=slices), uri, Preparation(), actors=INLINE)
    for n in range(10):
        shutil.copytree(uri, folder / f"copy{n}", copy_function=os.link)
    store = Store(uri)
    for key in ("image", "label"):
        (folder / "nifti" / key).mkdir(parents=True)
    count = 0
    for sample in iter_samples(store, [Path(name).relative_to(uri).as_posix() for name in _files(folder)]):
        name = f"{sample.sample_id.replace('#', '-')}.nii.gz"
        assert sample.label is not None
        for key, array in (
            ("image", np.moveaxis(sample.image, 0, -1).astype(np.int16)),
            ("label", sample.label[..., None]),
        ):
            nib.save(nib.Nifti1Image(array, sample.affine), folder / "nifti" / key / name)
        count += 1
    return count


def _print(figures: dict[str, Any]) -> None:
    for part in ("epoch", "epoch, 2 workers", "random access"):
        table = Table(part, "rows/s", "rows per CPU second", "peak MiB")
        for name, row in figures[part].items():
            table.add_row(name, *(f"{row[key]:.0f}" for key in ("rows_per_s", "rows_per_cpu_s", "peak_mib")))
        Console().print(table)
    for name in ("memory", "ratios"):
        Console().print(name, figures[name])


if __name__ == "__main__":
    main()
