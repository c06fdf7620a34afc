"""What a resumed run needs, to and from a folder of safetensors and JSON, and the numbers that a run reports."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from augengine.diffusion.ema import Ema
from augengine.errors import AugengineError
from augengine.io.sealed import sealed, unsealed
from augengine.io.store import Store
from augengine.train.best import Best
from augengine.train.metrics_file import MetricsFile
from augengine.train.precision import Precision
from augengine.train.sharding import load_moments, load_network, moments, share, whole

PROGRESS, SUMS = "progress.json", "sums.json"


@dataclass
class Progress:
    """Optimiser steps done and seconds of training so far, over all restarts, and where the workers' number changed.

    `worlds` holds the numbers of workers one after the other, each once until another one follows.
    """

    step: int = 0
    elapsed_s: float = 0.0
    worlds: list[int] = field(default_factory=list)


def save(
    folder: Path,
    progress: Progress,
    objective: nn.Module,
    optimiser: torch.optim.Optimizer,
    ema: Ema,
    precision: Precision,
    best: Best | None,
    *,
    write: bool,
) -> None:
    """Write weights, averaged weights, those of the best validation, optimiser moments and progress.

    Every worker calls it, since shards are gathered; those without `write` leave nothing in `folder`.
    """
    files = {"objective": objective.state_dict(), "ema": ema.weights, "optimiser": moments(objective, optimiser)}
    for name, tensors in files.items():
        gathered = whole(tensors, keep=write)
        if write:
            safetensors.torch.save_file(gathered, folder / f"{name}.safetensors")
    if write:
        values = {"progress": dataclasses.asdict(progress), "precision": precision.state_dict()}
        if best is not None:
            values["best"] = best.state_dict()
            safetensors.torch.save_file(dict(best.weights), folder / "best.safetensors")
        text = json.dumps(values)
        (folder / PROGRESS).write_text(text, encoding="utf-8")
        seal(folder)


def seal(folder: Path) -> None:
    """Write the sha256 of every file of a state beside them, last."""
    sums = {file.name: _sha256(file) for file in sorted(folder.iterdir()) if file.name != SUMS}
    (folder / SUMS).write_text(json.dumps(sealed({"sha256": sums})), encoding="utf-8")


def damage(folder: Path) -> str | None:
    """What is wrong with a state, None if nothing is; states of older versions have no sums to tell by."""
    try:
        text = (folder / SUMS).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None if (folder / PROGRESS).exists() else "it is not whole"
    except (OSError, ValueError):
        return f"{SUMS} cannot be read"
    try:
        sums = unsealed(json.loads(text), SUMS)["sha256"]
        wrong = [name for name, told in sums.items() if _sha256(folder / name) != told]
    except (AugengineError, OSError, ValueError, KeyError, TypeError, AttributeError):
        return f"{SUMS} or a file that it names is damaged"
    return f"{', '.join(wrong)}: another content than was written" if wrong else None


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def load(
    folder: Path,
    objective: nn.Module,
    optimiser: torch.optim.Optimizer,
    ema: Ema,
    precision: Precision,
    best: Best | None,
) -> Progress:
    """Inverse of `save`, into objects that were built the same way, for any number of workers, sharded or not."""
    read = {name: safetensors.torch.load_file(folder / f"{name}.safetensors") for name in ("objective", "ema")}
    load_network(objective, read["objective"])
    average(ema, read["ema"])
    load_moments(objective, optimiser, safetensors.torch.load_file(folder / "optimiser.safetensors"))
    values = json.loads((folder / PROGRESS).read_text(encoding="utf-8"))
    precision.load_state_dict(values["precision"])
    if best is not None:
        kept = safetensors.torch.load_file(folder / "best.safetensors")
        best.load_state_dict(values["best"], {name: value.clone() for name, value in kept.items()})  # files may go
    return Progress(**values["progress"])


def average(ema: Ema, weights: Mapping[str, Tensor]) -> None:
    """Make whole `weights`, the same on every worker, the averaged ones; sharded as those are."""
    for name, value in weights.items():
        ema.weights[name] = share(value, ema.weights[name])


class Metrics:
    """The metrics of a run: one line every few seconds and one for every validation."""

    def __init__(self, store: Store, resumed_step: int, every_s: float = 2.0) -> None:
        self.file, self.every_s = MetricsFile(store, resumed_step), every_s
        self.pending: list[dict[str, Any]] = []
        self.last: dict[str, Any] = {}
        self.recent: dict[str, float] = {}
        self._wrote, self._since = time.monotonic(), (resumed_step, time.monotonic())

    def add(self, progress: Progress, losses: Mapping[str, float], grad_norm: float, fraction: float) -> bool:
        """Take note of a step; write, and return True, when it is time."""
        for name, value in losses.items():
            self.recent[name] = 0.98 * self.recent.get(name, value) + 0.02 * value
        now = time.monotonic()
        if now - self._wrote < self.every_s:
            return False
        step, when = self._since
        rate = (progress.step - step) / (now - when)
        left = progress.elapsed_s * (1 - fraction) / fraction if fraction else None
        self._line(progress, loss=self.loss, grad_norm=grad_norm, steps_per_s=rate, eta_s=left, **self._terms())
        self._wrote, self._since = now, (progress.step, now)
        self.flush()
        return True

    @property
    def loss(self) -> float:
        """Moving average of the total."""
        return self.recent.get("total", float("nan"))

    def _terms(self) -> dict[str, float]:
        return {f"loss_{name}": value for name, value in self.recent.items() if name != "total"}

    def add_validation(self, progress: Progress, value: float, best_step: int | None) -> None:
        """Take note of a validation, and of the step of the best one so far where that chooses the checkpoint."""
        self._line(progress, validation_loss=value)
        if best_step is not None:
            self.last["best_step"] = best_step

    def flush(self) -> None:
        """Write what was not written yet."""
        self.file.append(self.pending)
        self.pending = []

    def _line(self, progress: Progress, **values: float | None) -> None:
        rounded = {k: float(f"{v:.6g}") for k, v in values.items() if v is not None}
        self.last = {"step": progress.step, "elapsed_s": round(progress.elapsed_s, 2), **rounded}
        self.pending.append(self.last)
