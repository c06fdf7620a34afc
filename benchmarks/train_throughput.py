"""The paper-size recipes through Ray Train: rows per second, memory and model FLOP utilisation.

    python benchmarks/train_throughput.py --steps 200 --peak-tflops 790          on a GPU (790: an H200 in bfloat16)
    python benchmarks/train_throughput.py --steps 2 --batch-size 1 --size-factor 0.25    anywhere, to see that it runs

Utilisation is the arithmetic of forward and backward pass, counted by `augengine.train.estimate`, over the peak. The
phantom has four channels where paper 001 has FLAIR alone.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import torch
from _generators import RECIPES
from _record import record

from augengine.diffusion.build import build
from augengine.diffusion.checkpoint import read_spec
from augengine.io.store import Store
from augengine.phantom.brain_cohort import BrainCohort
from augengine.phantom.cohort import Cohort
from augengine.pipeline.cluster import connect
from augengine.pipeline.phantom import shard_cohort
from augengine.pipeline.units import INLINE
from augengine.prepare import Preparation
from augengine.report.console import console, table
from augengine.train.config import Recipe, read_recipe
from augengine.train.estimate import Estimate, estimate
from augengine.train.loop import make_reader
from augengine.train.metrics_file import read_metrics
from augengine.train.objectives import objective
from augengine.train.precision import Precision
from augengine.train.rows import SplitRows
from augengine.train.run import train

# Recipe: image side in the paper (240 x 240 x 155 volumes are padded to 240 x 240 x 160; 96 fits more cards) and parts.
CASES: dict[str, tuple[str, int, dict[str, str]]] = {
    "cddgm": ("breast", 224, {}),
    "seg_m3": ("slices", 256, {}),
    "pcf_vae": ("slices", 128, {}),
    "pcf_dit": ("slices", 128, {"autoencoder": "pcf_vae"}),
    "label_autoencoder": ("volumes", 96, {}),
    "label_ldm": ("volumes", 96, {"autoencoder": "label_autoencoder"}),
}


def main() -> None:
    """Train every case for a few steps, print and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default="runs/throughput")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch-size", type=int, help="default: the recipe's")
    parser.add_argument("--size-factor", type=float, default=1.0, help="of the image's side")
    parser.add_argument("--peak-tflops", type=float, help="of the card at the recipe's precision")
    parser.add_argument("--only", nargs="*", default=list(CASES))
    given = parser.parse_args()
    root = Path(given.root).resolve()
    shutil.rmtree(root / "models", ignore_errors=True)
    connect()
    figures = {name: _case(given, root, name) for name in CASES if name in given.only}
    rows = [
        [
            name,
            f["batch"],
            f["steps"],
            f["rows_per_s"],
            f["gflop_per_row"],
            f["peak_gib"] or "–",
            f["utilisation"] or "–",
        ]
        for name, f in figures.items()
    ]
    columns = ["recipe", "batch", "steps", "rows/s", "GFLOP/row", "GPU GiB", "utilisation"]
    table("Training throughput of the paper-size recipes", columns, rows)
    console.print(record("train_throughput", figures))


def _case(given: argparse.Namespace, root: Path, name: str) -> dict[str, object]:
    data, side, parts = CASES[name]
    uri = _data(root, data, max(32, round(side * given.size_factor / 16) * 16))
    recipe = read_recipe(str(RECIPES / f"{name}.yaml"), _settings(given))
    trained = {role: str(root / "models" / part / "checkpoint") for role, part in parts.items()}
    out = root / "models" / name
    train(recipe, uri, str(out), parts=trained, progress=console.print)
    spec, lines = read_spec(f"{out}/checkpoint"), read_metrics(Store(out))
    rates = [line["steps_per_s"] for line in lines if "steps_per_s" in line][1:]
    batch = recipe.optimiser.batch_size
    # Steps are logged every two seconds; a run shorter than that has its mean only.
    rate = sorted(rates)[len(rates) // 2] if rates else spec.metrics["steps"] / spec.metrics["train_seconds"]
    counted = _counted(recipe, uri, spec)
    achieved = rate * batch * counted.training_flops
    return {
        "batch": batch,
        "steps": int(spec.metrics["steps"]),
        "image": list(spec.image_size),
        "rows_per_s": rate * batch,
        "gflop_per_row": counted.training_flops / 1e9,
        "parameters": counted.parameters,
        "trainable": counted.trainable,
        "peak_gib": round(spec.metrics.get("peak_gpu_bytes", 0) / 2**30, 2),
        "utilisation": achieved / (given.peak_tflops * 1e12) if given.peak_tflops else None,
        "loss": spec.metrics["loss"],
    }


def _settings(given: argparse.Namespace) -> list[str]:
    settings = [f"steps={given.steps}", "pictures_every=0", "data.validation_rows=0"]
    if given.batch_size:
        settings += [f"optimiser.batch_size={given.batch_size}", "optimiser.accumulation=1"]
    return settings


def _data(root: Path, name: str, side: int) -> str:
    """A few subjects of the right size."""
    uri = str(root / f"{name}-{side}")
    if name == "breast":
        cohort: Cohort | BrainCohort = Cohort(subjects=8, matrix=side, slices=4)
    else:
        cohort = BrainCohort(subjects=8, matrix=side, slices=side if name == "volumes" else 4, labels="tissue")
    shard_cohort(cohort, uri, Preparation(slices=name != "volumes"), actors=INLINE)
    return uri


def _counted(recipe: Recipe, uri: str, spec: object) -> Estimate:
    reader = make_reader(uri, SplitRows("train"), recipe, spec, 1)
    made = objective(recipe, spec, build(spec)).train()
    precision = Precision("float32", torch.device("cpu"))
    return estimate(made, (reader.batch(0), recipe.seed, 0), rows=1, precision=precision)


if __name__ == "__main__":
    main()
