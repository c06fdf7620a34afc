"""Recorded figures that three mended traps touch, old beside new.

    python jobs/evaluate.py --phantom --protocol phantom_transductive --quick --arms real,classical --out FOLDER
    python benchmarks/field_traps.py FOLDER

HD95 of one set of predictions with a lid on both ends of every stack, as MONAI closes it, and with open ends; the
classical arm's Dice as recorded, with MONAI's transforms, and with nnU-Net's; a constant image after either blur; and
what recipes that sample from noise lost of an image's mean level.
"""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _record import RESULTS, record
from monai.metrics.utils import get_edge_surface_distance
from monai.transforms import GaussianSmooth

from augengine.diffusion.schedules import ending_signal, lost_mean
from augengine.diffusion.spec import DiffusionSpec
from augengine.downstream.measures import _volumes
from augengine.downstream.predictions import MAPS, PREDICTIONS, TRUTH
from augengine.downstream.results import Plan, prediction_id
from augengine.io.commits import read_records
from augengine.io.store import Store
from augengine.metrics.surface import hd95_mm
from augengine.train.classical import blurred

NOT_RERUN = [
    "experiment (classical arm and HD95), 59 minutes",
    "experiment_random_contrast (classical arm and HD95), 68 minutes",
    "experiment_ratio_curve (HD95), 86 minutes",
    "home (classical arm)",
    "segmenters (Dice alone: not touched by surfaces; its recipes of papers' size were never trained here)",
]


def main() -> None:
    """Measure, print and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="of a finished jobs/evaluate.py")
    out = parser.parse_args().folder
    figures = {
        "hd95_mm": surfaces(out),
        "classical": classical(Path(out)),
        "blur_of_0.8": blur(),
        "lost_level": levels(),
        "not_rerun": NOT_RERUN,
    }
    for cell, of_class in figures["hd95_mm"].items():
        print(cell, *(f"{name}: lids {v['lids']:.2f}, open {v['open']:.2f} mm" for name, v in of_class.items()))
    for name in ("classical", "blur_of_0.8", "lost_level"):
        print(name, json.dumps(figures[name]))
    print(record("field_traps", figures))


def with_lids(a: np.ndarray, b: np.ndarray, spacing_mm: tuple[float, ...]) -> float:
    """HD95 as it was until November 2026: MONAI's surfaces, weighed by their areas."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        edges, distances, areas = get_edge_surface_distance(
            torch.from_numpy(a), torch.from_numpy(b), spacing=spacing_mm, use_subvoxels=True, symmetric=True
        )
    found = []
    for edge, distance, area in zip(edges, distances, areas, strict=True):
        order = np.argsort(distance.numpy())
        share = np.cumsum(area[edge].numpy().astype(np.float64)[order])
        found.append(float(distance.numpy()[order][min(np.searchsorted(share / share[-1], 0.95), len(order) - 1)]))
    return max(found)


def surfaces(out: str) -> dict[str, Any]:
    """Means over patients by cell and arm, and by class, of volumes in which prediction and truth have the class."""
    plan, store = Plan.read(out), Store(out)
    files = {name: read_records(store.folder(name)) for name in (PREDICTIONS, TRUTH)}
    found: dict[str, dict[str, dict[str, list[float]]]] = {}
    for trial in plan.trials:
        for cell in plan.protocol.cells:
            for chunk in plan.tested(trial, cell):
                rows = [
                    store.folder(name).parquet(files[name][unit].files[MAPS][0].name).read().to_pylist()
                    for name, unit in (
                        (PREDICTIONS, prediction_id(trial["trial_id"], chunk["chunk_id"])),
                        (TRUTH, chunk["chunk_id"]),
                    )
                ]
                by_id = {row["sample_id"]: row for row in rows[0]}
                for _, prediction, truth, spacing_mm, _ in _volumes(by_id, rows[1]):
                    for n, name in enumerate(plan.protocol.classes):
                        a, b = (m >> n & 1 == 1 for m in (prediction, truth))
                        if a.any() and b.any():
                            of = found.setdefault(f"{cell}, {trial['arm']}", {}).setdefault(
                                name, {"lids": [], "open": []}
                            )
                            of["lids"].append(with_lids(a, b, spacing_mm))
                            of["open"].append(hd95_mm(a, b, spacing_mm))
    return {
        cell: {
            name: {k: round(float(np.mean(v)), 3) for k, v in of.items()} | {"volumes": len(of["open"])}
            for name, of in classes.items()
        }
        for cell, classes in found.items()
    }


def classical(folder: Path) -> dict[str, Any]:
    """Gain in mean Dice of the classical arm over real rows: recorded by `experiment_quick`, and now."""

    def gains(comparisons: list[dict[str, Any]]) -> dict[str, float]:
        wanted = ("dice", "mean", "classical", "real")
        chosen = [c for c in comparisons if (c["metric"], c["class"], c["arm"], c["against"]) == wanted]
        return {c["cell"]: round(c["difference"]["estimate"], 4) for c in chosen}

    before = json.loads((RESULTS / "experiment_quick.json").read_text())["figures"]["comparisons"]
    return {"monai": gains(before), "nnunet": gains(json.loads((folder / "results.json").read_text())["comparisons"])}


def blur() -> dict[str, list[float]]:
    """Values of a constant 0.8 in 16 slices after a blur of 1 pixel: end slice, corner, middle; a slice's edge."""
    flat, slice_ = torch.full((16, 16, 16), 0.8), torch.full((16, 16), 0.8)
    old, new = GaussianSmooth(1.0)(flat[None])[0], blurred(flat, [1.0] * 3)
    thin, even = GaussianSmooth(1.0)(slice_[None])[0], blurred(slice_, [1.0] * 2)
    return {
        name: [round(float(v), 3) for v in (volume[8, 8, 0], volume[0, 0, 0], volume[8, 8, 8], plane[8, 0])]
        for name, volume, plane in (("zeros_beyond", old, thin), ("mirrored", new, even))
    }


def levels() -> dict[str, dict[str, float]]:
    """Share of an image's mean level that is lost at 64 x 64 latents, by the schedules before and now."""
    before = {"parametrisation": "epsilon", "schedule": "scaled_linear"}
    pairs = {
        "label_ldm": (before, {**before, "parametrisation": "v", "zero_terminal_snr": True}),
        "dmcie_error": (
            {"parametrisation": "x0", "schedule": "linear"},
            {"parametrisation": "x0", "schedule": "linear", "zero_terminal_snr": True},
        ),
    }
    return {
        name: {
            when: round(lost_mean(ending_signal(DiffusionSpec.model_validate(spec)), 64 * 64), 4)
            for when, spec in zip(("before", "now"), specs, strict=True)
        }
        for name, specs in pairs.items()
    }


if __name__ == "__main__":
    main()
