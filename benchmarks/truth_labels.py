"""Synthetic label maps (paper 002) against held-out real ones: Fréchet and Kolmogorov–Smirnov distance, memorisation.

One map per held-out subject; distances of synthetic maps stand beside that of real from real ones at the same n.
Features describe shapes (`augengine.metrics.label_features`), so figures compare with no other extractor's.
"""

from __future__ import annotations

import argparse
import dataclasses

import numpy as np
from _generators import MODELS, RECIPES, Row, batches, model, regions, rows
from scipy import ndimage

from augengine import rng
from augengine.diffusion.checkpoint import Generator, untrained
from augengine.diffusion.conditioning import Conditioning
from augengine.diffusion.label_planes import regions as decode
from augengine.diffusion.painting import Sampling, generate
from augengine.metrics.frechet import label_distance
from augengine.metrics.label_statistics import label_distances, nested_share
from augengine.metrics.memorisation import memorised_share, nearest_training_dice
from augengine.report.comparison import Comparison, Target, Value
from augengine.report.console import stage
from augengine.train.config import read_recipe

REACH = 3
TARGET_RATIO, TARGET_MEMORISED = 1.0, 0.01
SAMPLINGS = {"ddpm": Sampling(solver="ddpm", steps=50), "dpmpp_2m": Sampling(solver="dpmpp_2m", steps=25)}
REAL = "held out"
MEASURES = {
    "ratio": "Fréchet ratio",
    "memorised": "memorised",
    "ks_volume": "KS volume",
    "ks_components": "KS components",
    "ks_place": "KS place",
    "nested": "nested",
    "empty": "empty",
    "frechet": "Fréchet",
    "real_real": "real–real",
}


def measure(given: argparse.Namespace) -> list[Comparison]:
    """Sample, measure and compare with the targets."""
    count, n = (40, 20) if given.quick else (400, 50)
    wanted = read_recipe(str(RECIPES / f"{MODELS['label_ldm'].recipe}.yaml")).data.regions
    real, subjects = _real(given.root, wanted)
    training = np.stack([regions(r, wanted) for r in _all(given.root, "brain", "train") if r.lesion.any()])
    prior = model(given.root, "label_ldm")
    sources: dict[str, np.ndarray] = {}
    for name, sampling in list(SAMPLINGS.items())[1 if given.quick else 0 :]:
        drawn = _drawn(prior, count, sampling)
        sources |= {name: drawn, f"{name}, one lesion": _one_lesion(drawn)}
    sources["untrained"] = _drawn(untrained(prior, seed=1), n, sampling)
    methods: dict[str, dict[str, Value]] = {}
    details: dict[str, object] = {}
    for name, maps in {**sources, REAL: real}.items():
        methods[name], details[name] = _measured(name, maps, real, subjects, training, n, list(wanted))
    ours = [name for name in sources if name != "untrained"]
    targets = [Target(f"Fréchet / upper end of real–real, {m}", methods[m]["ratio"], TARGET_RATIO, True) for m in ours]
    targets += [Target(f"memorised, {m}", methods[m]["memorised"], TARGET_MEMORISED, True) for m in ours]
    targets += [Target(f"nested, {m}", methods[m]["nested"], 1.0, False) for m in ours]
    return [
        Comparison(
            f"Synthetic label maps, {count} beside those of {len(real)} held-out subjects (Fréchet at n = {n})",
            MEASURES,
            methods,
            tuple(targets),
            {"n": n, "maps": count, "details": details},
            {name: _pictures(maps) for name, maps in {**sources, REAL: real}.items()},
        )
    ]


def _measured(
    name: str, maps: np.ndarray, real: np.ndarray, subjects: list[str], training: np.ndarray, n: int, names: list[str]
) -> tuple[dict[str, Value], dict[str, object]]:
    """The table's row of one source of maps, and what stands behind it. Real maps are halved to be compared."""
    shares = memorised_share(nearest_training_dice(maps, training)[0])
    one, other = (maps[::2], maps[1::2]) if name == REAL else (maps, real)
    gaps = label_distances(one, other, names)
    outer = gaps[names[0]]
    row: dict[str, Value] = {
        "memorised": shares.share,
        "nested": nested_share(maps),
        "empty": float((~maps.any(axis=tuple(range(1, maps.ndim)))).mean()),
        "ks_volume": outer["volume"].statistic,
        "ks_components": outer["components"].statistic,
        "ks_place": max(gap.statistic for what, gap in outer.items() if what.startswith("centre")),
    }
    details: dict[str, object] = {
        "memorised": dataclasses.asdict(shares),
        "kolmogorov_smirnov": {r: {w: dataclasses.asdict(g) for w, g in found.items()} for r, found in gaps.items()},
        "mean_area": maps.reshape(*maps.shape[:2], -1).mean((0, 2)).round(4).tolist(),
    }
    if name != REAL:
        found = label_distance(maps, real, subjects, n, rng=rng.generator("label prior", name))
        row |= {"frechet": found.distance, "real_real": found.real_real, "ratio": found.ratio}
        details["extractor"] = found.extractor
    return row, details


def _all(root: str, name: str, split: str) -> list[Row]:
    return list(rows(root, name, split, with_truth=False, per_subject=10**6))


def _real(root: str, wanted: dict[str, tuple[str, ...]]) -> tuple[np.ndarray, list[str]]:
    """One random slice with a tumour of every held-out subject: what the prior was trained on."""
    by_subject: dict[str, list[Row]] = {}
    for row in _all(root, "held_out", "all"):
        if row.lesion.any():
            by_subject.setdefault(row.sample.subject_id, []).append(row)
    chosen = [found[int(rng.generator("slice", s).integers(len(found)))] for s, found in by_subject.items()]
    return np.stack([regions(r, wanted) for r in chosen]), list(by_subject)


def _drawn(generator: Generator, count: int, sampling: Sampling) -> np.ndarray:
    """Nested bool maps (count, R, I, J)."""
    out = []
    with stage("sampling label maps") as report:
        for part in batches(list(range(count)), 50):
            report(part[0], count, {})
            values = generate(generator, Conditioning(), [rng.derive("label map", n) for n in part], sampling)
            out.append(decode(values).numpy())
    return np.concatenate(out)


def _one_lesion(maps: np.ndarray) -> np.ndarray:
    """The maps with their largest lesion alone, satellites within `REACH` voxels of it included.

    Every subject of the phantom has one tumour; two of them far apart are the prior's commonest mistake, and a few
    such maps outweigh all others in a distance of covariances.
    """
    kept = np.zeros_like(maps)
    for new, old in zip(kept, maps, strict=True):
        clusters, _ = ndimage.label(ndimage.binary_dilation(old[0], iterations=REACH))
        sizes = np.bincount(clusters[old[0]], minlength=1)
        new[:] = old & (clusters == sizes.argmax()) & old[0].any()
    return kept


def _pictures(maps: np.ndarray) -> list[np.ndarray]:
    """A few maps that are not empty, the innermost region brightest."""
    return [m.sum(0).astype(np.uint8) for m in maps if m.any()][:4]
