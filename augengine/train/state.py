"""What a resumed run needs, to and from a folder of safetensors and JSON, and the metrics file of a run."""

from __future__ import annotations

import dataclasses
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from augengine.diffusion.ema import Ema
from augengine.io.store import Store

METRICS = "metrics.jsonl"


@dataclass
class Progress:
    """Optimiser steps done and seconds of training so far, over all restarts."""

    step: int = 0
    elapsed_s: float = 0.0

    def to_json(self) -> str:
        """JSON text."""
        return json.dumps(dataclasses.asdict(self))


def save(folder: Path, progress: Progress, network: nn.Module, optimiser: torch.optim.Optimizer, ema: Ema) -> None:
    """Write weights, averaged weights, optimiser moments and progress."""
    _write(folder / "network.safetensors", network.state_dict())
    _write(folder / "ema.safetensors", ema.weights)
    moments: dict[str, Tensor] = {}
    for index, entry in optimiser.state_dict()["state"].items():
        moments.update({f"{index}.{name}": torch.as_tensor(value) for name, value in entry.items()})
    _write(folder / "optimiser.safetensors", moments)
    (folder / "progress.json").write_text(progress.to_json(), encoding="utf-8")


def load(folder: Path, network: nn.Module, optimiser: torch.optim.Optimizer, ema: Ema) -> Progress:
    """Inverse of `save`, into objects that were built the same way."""
    network.load_state_dict(safetensors.torch.load_file(folder / "network.safetensors"))
    device = next(network.parameters()).device
    for name, value in safetensors.torch.load_file(folder / "ema.safetensors").items():
        ema.weights[name] = value.to(device)
    entries: dict[int, dict[str, Tensor]] = {}
    for name, value in safetensors.torch.load_file(folder / "optimiser.safetensors").items():
        index, key = name.split(".", 1)
        entries.setdefault(int(index), {})[key] = value
    optimiser.load_state_dict({"state": entries, "param_groups": optimiser.state_dict()["param_groups"]})
    return Progress(**json.loads((folder / "progress.json").read_text(encoding="utf-8")))


def _write(path: Path, tensors: dict[str, Tensor]) -> None:
    safetensors.torch.save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, path)


class Metrics:
    """`metrics.jsonl` of a run: one line every few seconds and one for every validation.

    The file is rewritten as a whole, since object stores cannot append; lines of steps that a restart will repeat
    are dropped.
    """

    def __init__(self, store: Store, resumed_step: int, every_s: float = 2.0) -> None:
        self.store, self.every_s = store, every_s
        self.lines = [line for line in read_metrics(store) if line["step"] <= resumed_step]
        self.recent_loss = float("nan")
        self._wrote, self._since = time.monotonic(), (resumed_step, time.monotonic())

    def add(self, progress: Progress, loss: float, grad_norm: float, fraction: float) -> None:
        """Take note of a step; write when it is time."""
        decay = 0.98 if self.recent_loss == self.recent_loss else 0.0
        self.recent_loss = decay * (self.recent_loss if decay else 0.0) + (1 - decay) * loss
        now = time.monotonic()
        if now - self._wrote < self.every_s:
            return
        step, when = self._since
        rate = (progress.step - step) / (now - when)
        left = progress.elapsed_s * (1 - fraction) / fraction if fraction else None
        self._line(progress, loss=self.recent_loss, grad_norm=grad_norm, steps_per_s=rate, eta_s=left)
        self._since = (progress.step, now)
        self.flush()

    def add_validation(self, progress: Progress, value: float) -> None:
        """Take note of a validation."""
        self._line(progress, validation_loss=value)

    def flush(self) -> None:
        """Write the file."""
        self._wrote = time.monotonic()
        self.store.write(METRICS, "".join(json.dumps(line) + "\n" for line in self.lines).encode())

    def _line(self, progress: Progress, **values: float | None) -> None:
        rounded = {k: float(f"{v:.6g}") for k, v in values.items() if v is not None}
        self.lines.append({"step": progress.step, "elapsed_s": round(progress.elapsed_s, 2), **rounded})


def read_metrics(store: Store) -> list[dict[str, Any]]:
    """Lines written so far; none if there is no file."""
    try:
        text = store.read(METRICS).decode()
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in text.splitlines()]
