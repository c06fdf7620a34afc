"""Counterfactual acquisition against real scans: one volunteer on several scanners, each at two flip angles.

    python benchmarks/truth_real.py --data B1_spine_generic_one_volunteer [--volumes] [--folds] [--methods METHOD ...]

Spoiled gradient echoes at 9° and 15° of spine-generic's travelling volunteer (CC0; doi:10.18112/openneuro.ds002900),
both of one scanner on one grid: what the 9° scan would have been at 15° is known, and the other way round. Scanners
are left out one by one, or in three groups (`--folds`); rows are slices, or whole volumes (`--volumes`). The claim is
"another scanner, the same volunteer", never "another patient". Errors are in units of the 99th percentile within the
body, every image first brought to its own. Intervals are over scanners. Writes truth_real.json and the contact sheet
truth_real.png to benchmarks/results.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _record import HERE, RESULTS, record
from scipy import ndimage

from augengine import rng
from augengine.acquisition_terms import manufacturer
from augengine.diffusion.checkpoint import Model, load_model
from augengine.diffusion.slices import Slices, View
from augengine.edits.acquisition import AcquisitionEdit, AcquisitionParams
from augengine.edits.base import Plan
from augengine.errors import DataError
from augengine.intensity import normalise
from augengine.io.dataset import write_dataset
from augengine.io.layouts import open_layout
from augengine.io.shards import to_table
from augengine.io.sources import SourceOptions
from augengine.metrics.intervals import bootstrap_interval
from augengine.pipeline.ingest_plan import plan_ingest
from augengine.policy.spec import Sampler
from augengine.prepare import Preparation, prepare
from augengine.records import Acquisition, Sample
from augengine.report.console import console, table
from augengine.report.image_grid import image_grid
from augengine.train.config import read_recipe
from augengine.train.run import train

KINDS = {"9°": "acq-MToff_MTS", "15°": "acq-T1w_MTS"}
DIRECTIONS = {"9° → 15°": ("9°", "15°"), "15° → 9°": ("15°", "9°")}
RECIPES = HERE.parent / "augengine/recipes"
RECIPE = {"local_contrast": "local_contrast.yaml", "structure": "cddgm_small.yaml"}
# Three groups that mix vendors, sites and habits; scanners that are not named form further groups.
FOLDS = (
    ("chiba750", "juntendoPrisma", "tokyoSigna1", "mgh"),
    ("juntendo750w", "juntendoSkyra", "tokyoIngenia", "tokyoSigna2"),
    ("tokyo750w", "poly", "unf"),
)
# Of the body alone, which fills a quarter to a half of these fields of view.
PREPARATION = Preparation(percentiles=(0.0, 99.0), foreground="body")
INTENSITY = ["intensity.percentiles=[0.0, 99.0]", "intensity.foreground=body"]
MEASURES = ("rmse", "correlation", "gradient", "structure", "texture")
METHODS = (
    "identity",
    "gamma",
    "histogram",
    "ridge, unpaired",
    "ridge, paired",
    "local_contrast",
    "local_contrast, paired",
)
# Every scan has its partner here: all steps go from real scan to real scan, whose rows cost nothing to make.
PAIRED = ["back_translation.pairs=true", "back_translation.rounds=1", "back_translation.rows_per_scan=32"]


@dataclass(frozen=True)
class Scanner:
    """One scanner's two volumes as rows, the voxels that count, and how they were acquired, by kind."""

    name: str
    rows: Mapping[str, list[Sample]]
    body: np.ndarray

    def acquisition(self, kind: str) -> Acquisition:
        """Of one of the two."""
        return self.rows[kind][0].acquisition

    def images(self, kind: str) -> np.ndarray:
        """Normalised (I, J, K)."""
        return _together(self.rows[kind])


def main() -> None:
    """Train on other scanners, measure, print and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of the data set in BIDS layout")
    parser.add_argument("--volumes", action="store_true", help="rows are volumes, not slices; without ridge")
    parser.add_argument("--folds", action="store_true", help="leave three groups of scanners out, not one scanner")
    parser.add_argument("--only", type=int, nargs="+", help="these groups or scanners alone, from 0")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes, each of one thread")
    parser.add_argument("--every", type=int, default=3, help="every n-th slice is measured")
    parser.add_argument("--methods", nargs="+", choices=[*METHODS, "structure"], help="all but structure by default")
    parser.add_argument("--set", nargs="+", default=[], help="changes to the recipe of local_contrast")
    parser.add_argument("--seeds", type=int, default=1, help="trainings of each local_contrast method, from seed 0")
    parser.add_argument("--name", default="truth_real", help="of the files that are written")
    given = parser.parse_args()
    given.methods = given.methods or [m for m in METHODS if not (given.volumes and m.startswith("ridge"))]
    started = time.monotonic()
    scanners = read(Path(given.data), given.volumes)
    left_out = divided(scanners) if given.folds else [[s] for s in scanners]
    found: dict[str, dict[str, dict[str, dict[str, float]]]] = {d: {} for d in DIRECTIONS}
    seconds: dict[str, float] = {}
    pictures: list[tuple[str, list[np.ndarray]]] = []
    numbers = [n for n in range(len(left_out)) if not given.only or n in given.only]
    # A fresh process for each: the threads of a former training do not survive a fork.
    with ProcessPoolExecutor(given.workers, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        jobs = [pool.submit(without, [s.name for s in left_out[n]], given) for n in numbers]
        for n, job in zip(numbers, jobs, strict=True):
            measured, took, drawn = job.result()
            for direction, by_method in measured.items():
                for method, by_scanner in by_method.items():
                    found[direction].setdefault(method, {}).update(by_scanner)
            for method, spent in took.items():
                seconds[method] = seconds.get(method, 0.0) + spent
            pictures += drawn if given.folds or len(pictures) < 6 else []
            names = ", ".join(s.name for s in left_out[n])
            console.print(f"{len(left_out) - n - 1} to go; without {names}, {time.monotonic() - started:.0f} s:")
            for direction, by_method in measured.items():
                for method, by_scanner in by_method.items():
                    means = ", ".join(f"{m} {np.mean([v[m] for v in by_scanner.values()]):.4f}" for m in MEASURES)
                    console.print(f"  {method}, {direction}: {means}")
    figures: dict[str, Any] = {
        direction: {method: _summary(method, direction, rows) for method, rows in by_method.items()}
        for direction, by_method in found.items()
    }
    for direction, by_method in figures.items():
        rows = [[m, *(f"{v[name]:.3f}" for name in MEASURES)] for m, v in by_method.items()]
        table(f"{direction}, {len(scanners)} scanners", ["method", *MEASURES], rows)
    motion = {s.name: round(motion_floor(thinned(s, given.every)), 4) for s in scanners}
    figures |= {
        "motion_floor": motion,
        "left_out": [[s.name for s in group] for group in left_out],
        "every": given.every,
        "rows": "volumes" if given.volumes else "slices",
        "training_seconds": seconds,
        "seconds": round(time.monotonic() - started),
    }
    path = record(given.name, figures)
    (RESULTS / f"{given.name}.png").write_bytes(image_grid(pictures))
    console.print(path)


def without(
    names: Sequence[str], given: argparse.Namespace
) -> tuple[dict[str, dict[str, dict[str, dict[str, float]]]], dict[str, float], list[tuple[str, list[np.ndarray]]]]:
    """What methods that saw all other scanners do on these: measures, seconds of training and pictures of the first."""
    torch.set_num_threads(1)
    scanners = read(Path(given.data), given.volumes)
    held_out, others = [s for s in scanners if s.name in names], [s for s in scanners if s.name not in names]
    found: dict[str, dict[str, dict[str, dict[str, float]]]] = {d: {} for d in DIRECTIONS}
    seconds: dict[str, float] = {}
    shown: dict[tuple[str, str], list[np.ndarray]] = {}
    for method, edit in methods(others, given, seconds):
        for scanner in held_out:
            part = thinned(scanner, given.every)
            for direction, (source, target) in DIRECTIONS.items():
                # A slice of a volume is made beside its neighbours.
                made = (
                    edit(scanner, source, target)[:, :, :: given.every] if given.volumes else edit(part, source, target)
                )
                found[direction].setdefault(method, {})[scanner.name] = measure(part, made, target)
                shown.setdefault((scanner.name, direction), []).append(made)
    return found, seconds, _pictures(held_out[:1], shown, given.every)


def read(root: Path, volumes: bool = False) -> list[Scanner]:
    """Every scanner that has both scans on one grid, in the order of their names, as slices or `volumes`."""
    found: dict[str, dict[str, list[Sample]]] = {}
    for kind, entity in KINDS.items():
        options = SourceOptions(channels={"mr": entity}, public_ids=True)
        reader, _ = open_layout(root, "bids", options)
        for source in plan_ingest(root, "bids", options, inline=True).sources:
            rows = prepare(reader.read(source).sample, PREPARATION.model_copy(update={"slices": not volumes}))
            found.setdefault(rows[0].subject_id, {})[kind] = rows
    scanners = []
    for name, rows in sorted(found.items()):
        if set(rows) != set(KINDS) or len({s.image.shape for both in rows.values() for s in both}) > 1:
            continue
        volume = np.concatenate([np.atleast_3d(s.image[0]) for s in rows["9°"]], axis=-1)
        body = ndimage.gaussian_filter(volume, 1) > 0.15 * np.percentile(volume, 98)
        scanners.append(Scanner(name.removeprefix("sub-"), rows, body))
    if len(scanners) < 3:
        raise DataError("both scans of at least three scanners are needed", found=len(scanners), where=str(root))
    return scanners


def divided(scanners: Sequence[Scanner]) -> list[list[Scanner]]:
    """Groups that are left out together."""
    known = {name for names in FOLDS for name in names}
    others = [s for s in scanners if s.name not in known]
    groups = [[s for s in scanners if s.name in names] for names in FOLDS]
    groups += [others[start : start + 4] for start in range(0, len(others), 4)]
    return [group for group in groups if group]


def thinned(scanner: Scanner, every: int) -> Scanner:
    """Every n-th slice."""
    rows = {kind: samples[::every] for kind, samples in scanner.rows.items()}
    if all(len(samples) == 1 for samples in scanner.rows.values()):
        rows = {kind: [s.replace(image=s.image[..., ::every]) for s in samples] for kind, samples in rows.items()}
    return Scanner(scanner.name, rows, scanner.body[:, :, ::every])


Edit = Callable[[Scanner, str, str], np.ndarray]


def methods(others: Sequence[Scanner], given: argparse.Namespace, seconds: dict[str, float]) -> Any:
    """Name and function (scanner, kind of source, kind of target) to normalised images (I, J, K), one by one."""
    baselines: dict[str, Edit] = {
        "identity": lambda scanner, source, target: scanner.images(source),
        "gamma": lambda scanner, source, target: _gamma(scanner, source, _pool(others, scanner, target)),
        "histogram": lambda scanner, source, target: _histogram(scanner, source, _pool(others, scanner, target)),
        "ridge, unpaired": _ridge(others, False, given.every),
        "ridge, paired": _ridge(others, True, given.every),
    }
    wanted = given.methods
    yield from ((name, edit) for name, edit in baselines.items() if name in wanted)
    for name, changes in (("local_contrast", []), ("local_contrast, paired", PAIRED)):
        for seed in range(given.seeds if name in wanted else 0):
            label = f"{name}, seed {seed}" if seed else name
            yield label, _engine(others, label, [*changes, f"seed={seed}", *given.set], seconds)
    if "structure" in wanted:
        yield "structure", _engine(others, "structure", [], seconds)


def _pool(others: Sequence[Scanner], scanner: Scanner, target: str) -> np.ndarray:
    """Sorted intensities in the bodies of the scanner's vendor, or of all if it has no other."""
    vendor = manufacturer(scanner.acquisition(target).manufacturer or "")
    same = [o for o in others if manufacturer(o.acquisition(target).manufacturer or "") == vendor] or list(others)
    return np.mean([np.quantile(o.images(target)[o.body], np.linspace(0, 1, 1001)) for o in same], axis=0)


def _histogram(scanner: Scanner, source: str, wanted: np.ndarray) -> np.ndarray:
    image = scanner.images(source)
    own = np.quantile(image[scanner.body], np.linspace(0, 1, 1001)) + np.arange(1001) * 1e-7
    return np.where(scanner.body, np.interp(image, own, wanted), image)


def _gamma(scanner: Scanner, source: str, wanted: np.ndarray) -> np.ndarray:
    image = np.maximum(scanner.images(source), 0)
    own = np.quantile(image[scanner.body], np.linspace(0, 1, 1001))
    powers = np.geomspace(1 / 4, 4, 65)
    best = min(powers, key=lambda p: float(((own**p - wanted) ** 2).sum()))
    return np.asarray(image**best)


def _ridge(others: Sequence[Scanner], paired: bool, every: int) -> Edit:
    """Linear in the local features, within the body; unpaired, towards the source by histogram."""

    def design(sample: Sample) -> tuple[View, np.ndarray]:
        slices = Slices.of(normalise(sample), sample.spacing_mm)
        (view,) = slices.views(slices.bodies())
        features = view.features[0]
        return view, np.concatenate([features, features[:, :1] ** 2, np.ones((len(features), 1))], axis=1)

    weights: dict[str, np.ndarray] = {}

    def fitted(source: str, target: str) -> np.ndarray:
        if source not in weights:
            gram, moment = 0.0, 0.0
            for scanner in (thinned(o, every) for o in others):
                rest = [o for o in others if o.name != scanner.name]
                guess = None if paired else _histogram(scanner, source, _pool(rest, scanner, target))
                for k, (a, b) in enumerate(zip(scanner.rows[source], scanner.rows[target], strict=True)):
                    view, x = design(a)
                    y = (normalise(b)[0] if guess is None else guess[:, :, k])[view.where]
                    gram, moment = gram + x.T @ x / len(x), moment + x.T @ y / len(x)
            weights[source] = np.linalg.solve(gram + 1e-3 * np.eye(len(gram)), moment)
        return weights[source]

    def edit(scanner: Scanner, source: str, target: str) -> np.ndarray:
        planes = []
        for sample in scanner.rows[source]:
            view, x = design(sample)
            plane = normalise(sample)[0].astype(np.float64)
            plane[view.where] = x @ fitted(source, target)
            planes.append(plane)
        return np.stack(planes, axis=-1)

    return edit


def trained(scanners: Sequence[Scanner], method: str, changes: Sequence[str] = ()) -> Model:
    """The generator of a method, trained on the scanners' shards by the engine's own job, on one thread."""
    recipe = read_recipe(str(RECIPES / RECIPE[method]), [*INTENSITY, *changes])
    size = _size(scanners)

    def shown(sample: Sample) -> Sample:
        return sample if recipe.any_shape else _padded(sample, size)

    with tempfile.TemporaryDirectory() as folder:
        tables = (
            to_table(shown(s).replace(split="train", label=None, labels={}, volume_id=f"{o.name}-{kind}") for s in rows)
            for o in scanners
            for kind, rows in o.rows.items()
        )
        data = write_dataset(Path(folder, "data"), tables).uri
        out = train(recipe, data, f"{folder}/run", num_workers=0, threads_per_worker=1, progress=lambda _: None)
        return load_model(out)


def _size(scanners: Sequence[Scanner]) -> int:
    return max(max(s.image.shape) for o in scanners for rows in o.rows.values() for s in rows[:1])


def _engine(others: Sequence[Scanner], label: str, changes: Sequence[str], seconds: dict[str, float]) -> Edit:
    """A method of the acquisition edit, which `label` begins with, trained on the other scanners."""
    started, size, method = time.monotonic(), _size(others), label.split(",")[0]
    model = trained(others, method, changes)
    seconds[label] = seconds.get(label, 0.0) + time.monotonic() - started
    target: dict[str, Any] = {"explicit": [{}], "unseen": "nearest"}
    params = AcquisitionParams.model_validate({"method": method, "target": target})
    vocabulary = model.spec.vocabulary
    assert vocabulary is not None

    def edit(scanner: Scanner, source: str, target: str) -> np.ndarray:
        wanted = vocabulary.nearest_part(scanner.acquisition(target))
        planes = []
        for sample in scanner.rows[source]:
            shown = vocabulary.nearest_part(sample.acquisition).to_dict()
            strange = {name: shown[name] for name in vocabulary.unseen(sample.acquisition) if name != "model"}
            plan = Plan(
                "",
                sample.sample_id,
                0,
                0,
                rng.derive(sample.sample_id),
                {"acquisition": wanted.to_dict(), "unseen_source": strange},
            )
            padded = _padded(sample, size) if method == "structure" else sample
            (made,) = AcquisitionEdit().apply([padded], [plan], {"generator": model}, params, Sampler())
            h, w = sample.image.shape[1:3]
            planes.append(made.replace(image=made.image[:, :h, :w]))
        return _together(planes)

    return edit


def _padded(sample: Sample, size: int) -> Sample:
    """Air at the far ends; training rows share one shape."""
    more = [(0, 0), *((0, size - n) for n in sample.image.shape[1:])]
    return sample.replace(image=np.pad(sample.image, more), label=None, labels={})


def _together(rows: Sequence[Sample]) -> np.ndarray:
    """One normalised volume (I, J, K) of slices in order, or of a volume."""
    return np.concatenate([np.atleast_3d(normalise(s)[0]) for s in rows], axis=-1)


def measure(scanner: Scanner, made: np.ndarray, target: str) -> dict[str, float]:
    """Every measure of one volume (I, J, K), within the body."""
    body, truth = scanner.body, scanner.images(target)
    p, t = (x / np.percentile(x[body], 99) for x in (made, truth))
    details = [x - ndimage.gaussian_filter(x, (1, 1, 0)) for x in (p, t)]
    edges = [ndimage.gaussian_gradient_magnitude(x, (1, 1, 0))[body] for x in (p, t)]
    return {
        "rmse": float(np.sqrt(np.mean((p - t)[body] ** 2))),
        "correlation": float(np.corrcoef(p[body], t[body])[0, 1]),
        "gradient": float(np.corrcoef(*edges)[0, 1]),
        "structure": float(_ssim(p, t)[body].mean()),
        "texture": float(details[0][body].std() / details[1][body].std()),
    }


def _ssim(p: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Structural similarity (Wang et al. 2004) in windows of seven pixels, slice by slice."""
    mean_p, mean_t, of_p, of_t, both = (ndimage.uniform_filter(x, (7, 7, 1)) for x in (p, t, p * p, t * t, p * t))
    var_p, var_t, covariance = of_p - mean_p**2, of_t - mean_t**2, both - mean_p * mean_t
    c1, c2 = 1e-4, 9e-4
    return np.asarray(
        (2 * mean_p * mean_t + c1) * (2 * covariance + c2) / ((mean_p**2 + mean_t**2 + c1) * (var_p + var_t + c2))
    )


def motion_floor(scanner: Scanner) -> float:
    """RMSE of the 15° scan against itself, moved slice by slice by what best aligns it with the 9° scan."""
    from skimage.registration import phase_cross_correlation

    off, on = (scanner.images(kind) for kind in ("9°", "15°"))
    on = on / np.percentile(on[scanner.body], 99)
    errors = []
    for k in range(on.shape[2]):
        shift, _, _ = phase_cross_correlation(
            *(ndimage.gaussian_gradient_magnitude(x[:, :, k], 1) for x in (off, on)), upsample_factor=20
        )
        moved = ndimage.shift(on[:, :, k], np.clip(shift, -3, 3), order=3, mode="nearest")
        errors.append((moved - on[:, :, k])[scanner.body[:, :, k]] ** 2)
    return float(np.sqrt(np.mean(np.concatenate(errors))))


def _summary(method: str, direction: str, rows: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """Means over scanners with the interval of the RMSE, and every scanner's values."""
    means: dict[str, Any] = {m: round(float(np.mean([r[m] for r in rows.values()])), 4) for m in MEASURES}
    drawn = bootstrap_interval([r["rmse"] for r in rows.values()], rng=rng.generator("truth_real", method, direction))
    return {
        **means,
        "rmse_interval": [round(drawn.low, 4), round(drawn.high, 4)],
        "per_scanner": {name: {m: round(v, 4) for m, v in r.items()} for name, r in rows.items()},
    }


def _pictures(
    scanners: Sequence[Scanner], shown: Mapping[tuple[str, str], Sequence[np.ndarray]], every: int
) -> list[tuple[str, list[np.ndarray]]]:
    """Source, what every method made of it, and the truth, of the middle slice; a quarter of the pixels."""
    found = []
    for scanner in (thinned(s, every) for s in scanners):
        for direction, (_, target) in DIRECTIONS.items():
            volumes = [*shown[scanner.name, direction], scanner.images(target)]
            planes = [(v / np.percentile(v[scanner.body], 99))[:, :, v.shape[2] // 2] for v in volumes]
            small = [ndimage.zoom(p, 0.5, order=1).astype(np.float32) for p in planes]
            found.append((f"{scanner.name}, {direction}: each method in the table's order, then the truth", small))
    return found


if __name__ == "__main__":
    main()
