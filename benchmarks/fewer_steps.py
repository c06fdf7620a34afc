"""How far edits of few steps are from those of fifty: the paper's method on a phantom model trained for a few minutes.

    python benchmarks/fewer_steps.py [--steps 600] [--out runs/fewer_steps]

The same noise and targets, solver by solver and step by step; a difference is a root mean square relative to that of
the edit (edited less source), over the rows of subjects that training never saw. Beside it stands what another draw of
the noise changes, which no solver can be asked to beat.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _record import record

from augengine.diffusion.checkpoint import load_generator
from augengine.diffusion.counterfactual import sdedit
from augengine.diffusion.guidance import Guidance
from augengine.intensity import normalise
from augengine.phantom.cohort import Cohort
from augengine.pipeline.phantom import shard_cohort
from augengine.pipeline.units import INLINE
from augengine.prepare import Preparation, prepare
from augengine.records import Sample
from augengine.train.config import read_recipe
from augengine.train.run import train

SIZE, ROWS = 48, 12
TRAINED = Cohort(subjects=30, seed=5, matrix=SIZE, slices=10)
HELD_OUT = Cohort(subjects=ROWS, seed=6, matrix=SIZE, slices=10)
# Paper 004's method on a small network: noise is predicted, cosine schedule, no structure image, guidance 3.
NETWORK = (
    "network={body: compact, channels: [16, 32, 48], head_channels: 16, norm_groups: 8, token_dim: 32, unshuffle: 2, "
    "structure: false}"
)
OTHERS = (
    "optimiser={batch_size: 8, learning_rate: 2.0e-3, decay: constant, ema_decay: 0.99}",
    "data.validation_rows=16",
    "validate_every=10000",
)
WAYS = [("dpmpp_2m", n) for n in (5, 8, 10, 15, 25, 50)] + [("unipc", 10), ("ddim", 10), ("ddim", 50), ("ddpm", 50)]


def trained(out: Path, steps: int) -> str:
    """Folder of the checkpoint."""
    data = str(out / "data")
    shard_cohort(TRAINED, data, Preparation(size=SIZE), actors=INLINE)
    recipe = read_recipe("cddgm", [NETWORK, *OTHERS, f"steps={steps}"])
    return train(recipe, data, str(out / "model"), num_workers=0, threads_per_worker=1)


def rows() -> list[Sample]:
    """The middle slice of every subject that is held out."""
    volumes = [prepare(HELD_OUT.scan(n), Preparation(size=SIZE)) for n in range(ROWS)]
    return [slices[len(slices) // 2] for slices in volumes]


def differences(folder: str, strength: float) -> dict[str, Any]:
    """By solver and steps: from the fifty-step edit of `dpmpp_2m`, and of its own second draw, over the edit's RMS."""
    generator, samples = load_generator(folder), rows()
    x = np.stack([normalise(sample) for sample in samples])
    other = {sample.acquisition.manufacturer: sample.acquisition for sample in samples}
    first, second = sorted(other, key=str)[:2]
    targets = [other[second if s.acquisition.manufacturer == first else first] for s in samples]

    def made(solver: str, steps: int, seed: int = 0) -> np.ndarray:
        seeds = range(seed, seed + len(samples))
        guidance = Guidance(3.0)
        return sdedit(generator, x, targets, seeds, steps=steps, strength=strength, guidance=guidance, solver=solver)  # type: ignore[arg-type]

    wanted = made("dpmpp_2m", 50)
    edit = _rms(wanted - x)
    found = {f"{solver} {steps}": _rms(made(solver, steps) - wanted) / edit for solver, steps in WAYS}
    found["dpmpp_2m 50, other noise"] = _rms(made("dpmpp_2m", 50, 1000) - wanted) / edit
    return {"edit_rms": round(edit, 4), "difference_over_edit": {name: round(v, 4) for name, v in found.items()}}


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.square(values, dtype=np.float64).mean()))


def main() -> None:
    """Train, compare at the paper's strength and at half the chain, record."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--out", default="runs/fewer_steps")
    asked = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    folder = trained(Path(asked.out), asked.steps)
    figures = {str(strength): differences(folder, strength) for strength in (0.05, 0.5)}
    for strength, found in figures.items():
        print(strength, found)
    print(record("fewer_steps", {"training_steps": asked.steps, "rows": ROWS, "size": SIZE, "strengths": figures}))


if __name__ == "__main__":
    main()
