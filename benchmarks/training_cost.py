"""The arithmetic of the paper-size recipes: parameters, memory, operations, and hours on one GPU; trains nothing.

    python benchmarks/training_cost.py [--only NAME ...]

Rows of the papers' sizes are blank: nothing but their shape counts. Hours are operations over `PEAK` times
`UTILISATION`, which is arithmetic and no measurement; reading, validation and pictures come on top.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _generators import RECIPES
from _record import record

from augengine.diffusion.build import build
from augengine.diffusion.spec import ModelSpec
from augengine.io.dataset import write_dataset
from augengine.io.shards import to_table
from augengine.records import Acquisition, Sample
from augengine.train.config import read_recipe
from augengine.train.estimate import estimate
from augengine.train.loop import make_reader
from augengine.train.model import model_spec
from augengine.train.objectives import objective
from augengine.train.precision import Precision
from augengine.train.rows import DatasetFacts, dataset_facts

PEAK, UTILISATION = 790e12, 0.3
"""Of an H200 in bfloat16, operations per second; and the share of it that training is taken to reach."""
BREAST = {"fat": 1, "fibroglandular": 2}
BRAIN = {"csf": 1, "grey_matter": 2, "white_matter": 3, "necrosis": 4, "oedema": 5, "enhancing": 6}
MODALITIES = ("t1", "t1ce", "t2", "flair")
# Image size, channels, and the recipes of parts by role.
CASES: dict[str, tuple[tuple[int, ...], tuple[str, ...], dict[str, str]]] = {
    "cddgm": ((224, 224), ("t1",), {}),
    "iap_predictor": ((224, 224), ("t1",), {}),
    "unet_duke": ((224, 224), ("t1",), {}),
    "labeller_duke": ((224, 224), ("t1",), {}),
    "structure_duke": ((224, 224), ("t1",), {}),
    "seg_m1": ((256, 256), ("flair",), {}),
    "seg_m2": ((256, 256), ("flair",), {}),
    "seg_m3_paper": ((256, 256), ("flair",), {}),
    "referee": ((256, 256), ("flair",), {}),
    "pcf_unet": ((128, 128), MODALITIES, {}),
    "pcf_vae": ((128, 128), MODALITIES, {}),
    "pcf_dit": ((128, 128), MODALITIES, {"autoencoder": "pcf_vae"}),
    "label_autoencoder": ((240, 240, 155), MODALITIES, {}),
    "label_ldm": ((240, 240, 155), MODALITIES, {"autoencoder": "label_autoencoder"}),
    "ldm_seg_controlnet": ((240, 240, 155), MODALITIES, {"prior": "label_ldm"}),
    "unet3d": ((120, 120, 79), MODALITIES, {}),
    "dmcie_error": ((120, 120, 79), MODALITIES, {"fold_0": "unet3d", "fold_1": "unet3d"}),
}


def main() -> None:
    """Count every recipe, and write JSON; `make pages` shows it in docs/papers.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=list(CASES))
    asked = parser.parse_args()
    figures = {}
    for name in CASES:
        if name in asked.only:
            figures[name] = cost(name)
            print(name, figures[name], flush=True)
    if set(figures) == set(CASES):
        record("training_cost", {"peak_flops": PEAK, "utilisation": UTILISATION, "recipes": figures})


def cost(name: str) -> dict[str, Any]:
    """Of one recipe, with the micro-batch that it accumulates."""
    with tempfile.TemporaryDirectory() as folder:
        spec, data = described(name, Path(folder))
        recipe = read_recipe(str(RECIPES / f"{name}.yaml"))
        rows = max(1, recipe.optimiser.batch_size // recipe.optimiser.accumulation)
        seen = 1 if len(spec.image_size) == 3 else min(rows, 2)  # volumes fill the memory of a small machine
        batch = make_reader(data, recipe.data.rows("train"), recipe, spec, seen).batch(0)
        network = build(spec).train()
        measured = estimate(
            objective(recipe, spec, network).train(),
            (batch, recipe.seed, 0),
            rows=seen,
            precision=Precision("bfloat16", torch.device("cpu")),
        )
    activations = measured.activation_bytes / seen * rows
    state = measured.total_bytes - measured.activation_bytes
    operations = measured.training_flops * recipe.optimiser.batch_size * recipe.steps
    return {
        "size": list(spec.image_size),
        "channels": len(spec.channels),
        "parameters": measured.parameters,
        "trainable": measured.trainable,
        "gflop_per_row": round(measured.training_flops / 1e9, 1),
        "batch": recipe.optimiser.batch_size,
        "accumulation": recipe.optimiser.accumulation,
        "steps": recipe.steps,
        "gib": round((activations + state) / 2**30, 1),
        "hours": operations / (PEAK * UTILISATION) / 3600,
    }


def described(name: str, folder: Path) -> tuple[ModelSpec, str]:
    """What `model.json` of a recipe would say on blank rows of its size, and those rows; parts with random weights."""
    size, channels, roles = CASES[name]
    data = blank_rows(folder / name, size, channels)
    recipe = read_recipe(str(RECIPES / f"{name}.yaml"))
    parts = {}
    for n, (role, of) in enumerate(roles.items()):
        part, _ = described(of, folder / role)
        changes: dict[str, Any] = {}
        if role.startswith("fold_"):  # an experiment trains both on the protocol's classes
            regions = {region: tuple(labels) for region, labels in recipe.data.regions.items()}
            changes = {"subject_hashes": (f"fold {n}",), "regions": regions}
        parts[role] = part.model_copy(update=changes)
    return model_spec(recipe, found_in(recipe, data), parts), data


def found_in(recipe: Any, data: str) -> DatasetFacts:
    """The training rows' metadata."""
    return dataset_facts(data, recipe.data.rows("train"))


def blank_rows(folder: Path, size: tuple[int, ...], channels: tuple[str, ...]) -> str:
    """Two rows of two subjects that show every label."""
    labels = BREAST if len(channels) == 1 and size == (224, 224) else BRAIN
    label = np.zeros(size, np.uint8)
    for code in labels.values():
        label[code] = code
    rows = [
        Sample(
            image=np.zeros((len(channels), *size), np.float32),
            affine=np.eye(4),
            channels=channels,
            subject_id=f"S{n}",
            volume_id=f"S{n}",
            label=label,
            labels=labels,
            split="train",
            slice_index=0 if len(size) == 2 else None,
            intensity_range=((0.0, 1.0),) * len(channels),
            acquisition=Acquisition(vendor, "A", 1.5 + n, "FS", 10.0, 2.0, 2.4, 5.3),
        )
        for n, vendor in enumerate(("SIEMENS", "GE MEDICAL SYSTEMS"))
    ]
    return write_dataset(str(folder), [to_table(rows)]).uri


if __name__ == "__main__":
    main()
