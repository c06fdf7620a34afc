"""Tumour removal against the true healthy anatomy: M1, M2, M3 and PCF beside fills, on held-out phantom subjects.

Paper 001's table with its corrections: residual inside the lesion beside the referee's floor on truly healthy tissue,
DiffMap IoU at a threshold chosen on validation rows, error against the same subject rendered without its lesion and
with the same noise.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
from collections.abc import Callable

import numpy as np
import torch
from _generators import Row, batches, model, rows
from _lesions import CLASSES, TUMOUR, seeds, segmented, stack, void_level
from scipy import ndimage

from augengine import rng
from augengine.diffusion.checkpoint import Generator, untrained
from augengine.diffusion.guidance import Guidance
from augengine.diffusion.painting import Sampling, generate, healthy, paint, unhealthy
from augengine.metrics.fidelity import fidelity, texture_ratio
from augengine.metrics.removal import (
    Edited,
    IouCurve,
    diffmap_iou,
    gen_dice,
    local_variance_ratio,
    tumor_residual,
    void_fraction,
    voids,
)
from augengine.report.classical_fills import FILLS
from augengine.report.comparison import Comparison, best, intervals, target
from augengine.report.console import stage

MARGIN = 1  # pixels of 3 mm around the lesion that are filled, too
SAMPLING = Sampling(solver="ddpm", steps=25)
GENERATORS = ("m1", "m2", "m3_paper", "m3", "pcf_unet", "pcf_dit")
AVERAGED = 8
RMSE_OF_BEST_FILL, RESIDUAL_OVER_FLOOR = 0.8, 0.05
LESS_RESIDUAL = ("m3", "m3_paper", "m2")
MEASURES = {
    "rmse_lesion": "RMSE in lesion",
    "ssim_lesion": "SSIM",
    "texture_ratio": "texture ratio",
    "tumor_residual": "residual",
    "diffmap_iou": "DiffMap IoU",
    "gen_dice": "GenDice",
    "psnr_db_lesion": "PSNR dB",
    "rmse_outside": "RMSE outside",
    "ssim_outside": "SSIM outside",
    "void_fraction": "void",
    "variance_ratio": "variance",
}
Method = Callable[[list[Row]], np.ndarray]


def measure(given: argparse.Namespace) -> list[Comparison]:
    """Heal, measure and compare with the targets."""
    referee, found = model(given.root, "referee"), {}
    names = given.generators or (("m3",) if given.quick else GENERATORS)
    generators = {name: model(given.root, name) for name in names}
    averaged = f"m3, mean of {AVERAGED}"
    methods: dict[str, Method] = {
        "none": lambda part: np.stack([r.image for r in part]),
        **{name: _filled(name) for name in FILLS},
        **{name: _healed(generator) for name, generator in generators.items()},
        averaged: _healed(generators["m3"], AVERAGED),
        "m3, untrained": _healed(untrained(generators["m3"], seed=1)),
        "white matter's mean": lambda part: np.stack([_white_matter(r) for r in part]),
        "tissue means by the true healthy map": lambda part: np.stack([_tissue_means(r) for r in part]),
        "truth": lambda part: np.stack([r.truth for r in part if r.truth is not None]),
    }
    test = list(rows(given.root, "brain", "test", with_truth=True, per_subject=1 if given.quick else 4, min_lesion=20))
    validation = list(rows(given.root, "brain", "val", with_truth=True, per_subject=1, min_lesion=20))
    test, validation = (test[:3], validation[:2]) if given.quick else (test, validation)
    subjects, dark = [r.sample.subject_id for r in test], void_level(validation)
    shown: dict[str, np.ndarray] = {}
    with stage("removal") as report:
        for n, (name, method) in enumerate(methods.items()):
            report(n, len(methods), {"method": name})
            shown[name] = _all(method, test)
            before = [Edited(r.image, x, r.lesion) for r, x in zip(validation, _all(method, validation), strict=True)]
            found[name] = _measured(referee, test, shown[name], IouCurve.of(before).best, dark)
            if name in generators:
                found[name]["gen_dice"] = _gen_dice(referee, generators[name], test)
    fill = best(found, list(FILLS), "rmse_lesion", subjects)
    targets = [
        *(
            target(
                f"RMSE in lesion, {ours} / {fill}",
                found[ours]["rmse_lesion"],
                found[fill]["rmse_lesion"],
                subjects,
                RMSE_OF_BEST_FILL,
            )
            for ours in ("m3", averaged)
        ),
        target(
            "residual, m3 − floor (truth)",
            found["m3"]["tumor_residual"],
            found["truth"]["tumor_residual"],
            subjects,
            RESIDUAL_OVER_FLOOR,
            ratio=False,
        ),
        *(
            target(
                f"residual, {less} − {more}",
                found[less]["tumor_residual"],
                found[more]["tumor_residual"],
                subjects,
                0.0,
                ratio=False,
            )
            for less, more in itertools.pairwise(n for n in LESS_RESIDUAL if n in found)
        ),
    ]
    picks = np.unique(np.linspace(0, len(test) - 1, 4).round().astype(int))
    return [
        Comparison(
            f"Tumour removal, {len(test)} slices of {len(set(subjects))} test subjects",
            MEASURES,
            intervals(found, subjects),
            tuple(targets),
            {"void_below": dark, "best_fill": fill},
            {name: [images[p, -1] for p in picks] for name, images in shown.items()},
        )
    ]


def _measured(
    referee: Generator, test: list[Row], after: np.ndarray, threshold: float, dark: float
) -> dict[str, list[float]]:
    """Every measure, one value per row."""
    values: dict[str, list[float]] = {}
    for row, image, labels in zip(test, after, segmented(referee, after), strict=True):
        assert row.truth is not None
        painted = _edit(row)
        healthy_side = row.brain & ~ndimage.binary_dilation(row.lesion, iterations=3)
        measured = {
            **fidelity(image, row.truth, {"lesion": row.lesion, "outside": row.brain & ~painted}),
            "texture_ratio": texture_ratio(image, row.truth, row.lesion),
            "tumor_residual": tumor_residual(labels == TUMOUR, row.lesion, voids(image, row.brain, dark)),
            "void_fraction": void_fraction(image, row.lesion, dark),
            "diffmap_iou": diffmap_iou(row.image, image, row.lesion, threshold),
            "variance_ratio": local_variance_ratio(image, row.lesion, healthy_side),
        }
        for name, value in measured.items():
            values.setdefault(name, []).append(value if np.isfinite(value) else np.nan)
    return values


def _edit(row: Row) -> np.ndarray:
    return np.asarray(ndimage.binary_dilation(row.lesion, iterations=MARGIN))


def _filled(name: str) -> Method:
    return lambda part: np.stack([FILLS[name](r.image, r.brain, _edit(r)) for r in part])


def _white_matter(row: Row) -> np.ndarray:
    """The edit region filled by white matter's mean: what a network need not learn if one knows where gliomas grow."""
    image, edit = row.image.copy(), _edit(row)
    known = (row.sample.label == row.sample.labels["white_matter"]) & ~edit
    if known.any():
        image[:, edit] = row.image[:, known].mean(1, keepdims=True)
    return image


def _tissue_means(row: Row) -> np.ndarray:
    """The edit region filled by each tissue's mean elsewhere in the slice: what knowing the anatomy would reach."""
    assert row.healthy is not None
    image, edit = row.image.copy(), _edit(row)
    for code in np.unique(row.healthy[edit]):
        same = (row.tissue == code) & ~edit & row.brain
        if same.any():
            image[:, edit & (row.healthy == code)] = row.image[:, same].mean(1, keepdims=True)
    return image


def _healed(generator: Generator, samples: int = 1) -> Method:
    """Heal by a model; the mean of several samples estimates the posterior mean, which alone minimises RMSE."""
    guidance = Guidance(2.0) if generator.spec.kind == "counterfactual" else Guidance()
    sampling = dataclasses.replace(SAMPLING, guidance=guidance)

    def method(part: list[Row]) -> np.ndarray:
        edit = torch.from_numpy(np.stack([_edit(r) for r in part]))[:, None]
        x, wanted = stack(part, "image"), healthy(generator, stack(part, "tissue"), edit)
        drawn = [
            paint(generator, x, edit, wanted, [rng.derive("removal", s, n) if n else s for s in seeds(part)], sampling)
            for n in range(samples)
        ]
        return torch.stack(drawn).mean(0).numpy()

    return method


def _gen_dice(referee: Generator, generator: Generator, test: list[Row]) -> list[float]:
    """Whole images drawn for the rows' masks (or for none), judged by the referee."""
    found: list[float] = []
    for part in batches(test):
        wanted = unhealthy(generator, stack(part, "tissue"))
        drawn = generate(generator, wanted, seeds(part), SAMPLING).numpy()
        for row, labels in zip(part, segmented(referee, drawn), strict=True):
            asked = [np.isin(row.sample.label, [row.sample.labels[n] for n in names]) for names in CLASSES.values()]
            seen = [labels == code for code in range(1, len(CLASSES) + 1)]
            found.append(gen_dice(np.stack(seen), np.stack(asked)))
    return found


def _all(method: Method, chosen: list[Row]) -> np.ndarray:
    return np.concatenate([method(part) for part in batches(chosen)])
