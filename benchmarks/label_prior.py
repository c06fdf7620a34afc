"""Synthetic label maps (paper 002) against held-out real ones: Fréchet distance at equal n, and memorisation.

    python benchmarks/label_prior.py

One map per subject on either side; the real–real distance between disjoint subjects at the same n is the yardstick.
Features describe shapes (`augengine.metrics.label_features`), so figures compare with no other extractor's.
Trains what is missing.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from _generators import MODELS, RECIPES, batches, flags, model, regions, rows
from _record import RESULTS, record
from scipy import ndimage

from augengine import rng
from augengine.diffusion.checkpoint import Generator, untrained
from augengine.diffusion.conditioning import Conditioning
from augengine.diffusion.label_planes import regions as decode
from augengine.diffusion.painting import Sampling, generate
from augengine.metrics.frechet import label_distance
from augengine.metrics.memorisation import memorised_share, nearest_training_dice
from augengine.report.console import console, stage, table
from augengine.report.image_grid import image_grid
from augengine.train.config import read_recipe

REACH = 3
TARGET_RATIO, TARGET_MEMORISED = 1.0, 0.01
SAMPLINGS = {"ddpm": Sampling(solver="ddpm", steps=50), "dpmpp_2m": Sampling(solver="dpmpp_2m", steps=25)}


def main() -> None:
    """Sample, measure, print, draw and record."""
    parser = flags(__doc__)
    parser.add_argument("--maps", type=int, default=400, help="synthetic maps")
    parser.add_argument("--n", type=int, default=50, help="maps on either side of a distance")
    given = parser.parse_args()
    wanted = read_recipe(str(RECIPES / f"{MODELS['label_ldm'].recipe}.yaml")).data.regions
    real, subjects = _real(given.root, wanted)
    training = np.stack([regions(r, wanted) for r in _all(given.root, "brain", "train") if r.lesion.any()])
    prior = model(given.root, "label_ldm")
    sources: dict[str, np.ndarray] = {}
    for name, sampling in SAMPLINGS.items():
        drawn = _drawn(prior, given.maps, sampling)
        sources |= {name: drawn, f"{name}, one lesion": _one_lesion(drawn)}
    sources["untrained"] = _drawn(untrained(prior, seed=1), given.n, sampling)
    figures: dict[str, dict[str, object]] = {}
    for name, maps in sources.items():
        distance = label_distance(maps, real, subjects, given.n, rng=rng.generator("label prior", name))
        shares = memorised_share(nearest_training_dice(maps, training)[0])
        areas = maps.reshape(*maps.shape[:2], -1).mean(-1)
        figures[name] = {
            "distance": distance.distance, "real_real": dataclasses.asdict(distance.real_real), "n": given.n,
            "ratio_to_upper_end": distance.ratio, "extractor": distance.extractor,
            "memorised": dataclasses.asdict(shares), "mean_area": areas.mean(0).round(4).tolist(),
            "empty_share": float((~maps.any(axis=(1, 2, 3))).mean()),
        }  # fmt: skip
    _draw(drawn, real, list(wanted))
    held_out = real.reshape(*real.shape[:2], -1).mean(-1).mean(0)
    figures["held_out"] = {
        "mean_area": held_out.round(4).tolist(), "empty_share": float((~real.any(axis=(1, 2, 3))).mean()),
        "memorised": dataclasses.asdict(memorised_share(nearest_training_dice(real, training)[0])),
    }  # fmt: skip
    ours = {name: figures[name] for name in sources if name != "untrained"}
    verdict = {
        "distance_met": {name: found["ratio_to_upper_end"] <= TARGET_RATIO for name, found in ours.items()},
        "memorised_met": {name: found["memorised"]["share"] <= TARGET_MEMORISED for name, found in ours.items()},
    }
    table(
        f"Synthetic label maps, n = {given.n}", ["maps", "Fréchet", "real–real [95 %]", "ratio", "memorised", "empty"],
        [[name, f["distance"], f"{f['real_real']['estimate']:.2f} [{f['real_real']['low']:.2f}, "
          f"{f['real_real']['high']:.2f}]", f["ratio_to_upper_end"], f["memorised"]["share"], f["empty_share"]]
         for name, f in figures.items() if "distance" in f],
    )  # fmt: skip
    console.print(record("label_prior", {**figures, **verdict}))


def _all(root: str, name: str, split: str) -> list:
    return list(rows(root, name, split, with_truth=False, per_subject=10**6))


def _real(root: str, wanted: dict[str, tuple[str, ...]]) -> tuple[np.ndarray, list[str]]:
    """One random slice with a tumour of every held-out subject: what the prior was trained on."""
    by_subject: dict[str, list] = {}
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


def _draw(maps: np.ndarray, real: np.ndarray, names: list[str]) -> None:
    """A few of either kind, the innermost region on top."""
    numbers = np.arange(1, len(names) + 1, dtype=np.uint8)[:, None, None]

    def line(title: str, found: np.ndarray) -> tuple[str, list[np.ndarray]]:
        some = [m for m in found if m.any()][:10]
        return title, [(m * numbers).max(0) for m in some]

    png = image_grid([line("synthetic", maps), line("held out", real)])
    (RESULTS / "label_prior.png").write_bytes(png)


if __name__ == "__main__":
    main()
