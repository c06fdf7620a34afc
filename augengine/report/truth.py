"""Held-out phantom subjects in; the error of each edit method against the true counterfactual out.

For every chosen slice two targets are drawn from the cohort's protocols: one that flips the order of fat and
fibroglandular tissue (fat saturation on ↔ off) and one that keeps it. The truth is the same anatomy, rendered
under the target's parameters with its own noise.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import matplotlib
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.figure import Figure
from scipy.ndimage import gaussian_filter

from augengine.diffusion.checkpoint import load_generator, untrained
from augengine.edits.acquisition import AcquisitionEdit, AcquisitionParams, Target
from augengine.edits.base import Plan
from augengine.gates import body_mask, structure_term
from augengine.intensity import normalise
from augengine.io.commits import committed_files, sample_files
from augengine.io.shards import iter_metadata, iter_samples
from augengine.io.store import Store
from augengine.phantom.cohort import Cohort
from augengine.phantom.protocols import draw_protocol, is_fat_saturated, without_fat_saturation
from augengine.phantom.write import true_counterfactual
from augengine.pipeline.units import Actors, Progress, Unit, run_units
from augengine.policy.spec import Sampler
from augengine.prepare import Preparation
from augengine.records import Acquisition, Sample
from augengine.report.classical import PooledHistograms
from augengine.rng import derive, digest, generator

matplotlib.use("Agg")
MICRO_BATCH = 8
METRICS = ("psnr_db", "rmse", "structure_ssim", "texture_ratio")


def errors(image: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """PSNR (peak 1 = the 99th percentile) and RMSE in the body, structure SSIM, and texture ratio.

    The texture ratio is the deviation of what a Gaussian of 1 voxel removes, relative to the truth's: 1 is
    right, lower is blurred (PSNR rewards blur), higher is noisy.
    """
    mse = float(((image - truth)[:, mask] ** 2).mean())
    fine = [(v - gaussian_filter(v, (0, 1, 1)))[:, mask].std() for v in (image, truth)]
    return {
        "psnr_db": float(-10 * np.log10(max(mse, 1e-12))),
        "rmse": float(np.sqrt(mse)),
        "structure_ssim": structure_term(truth, image, mask),
        "texture_ratio": float(fine[0] / fine[1]),
    }


def evaluate(
    data: str,
    out: str,
    checkpoint: str,
    cohort: Cohort,
    preparation: Preparation,
    samplers: Mapping[str, Sampler],
    *,
    slices_per_subject: int = 1,
    actors: Actors = Actors(),  # noqa: B008  (frozen)
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure all methods on the test subjects; rows go to `out/truth/`, the summary is returned.

    Args:
        samplers: method (`structure`, `inversion`, `sdedit`) to its sampler settings.
    """
    source, store = Store(data), Store(out)
    files = sample_files(source)
    subjects: dict[str, list[tuple[str, str]]] = {}
    for name in files:
        for row in iter_metadata(source, [name]):
            if row["split"] == "test":
                subjects.setdefault(row["subject_id"], []).append((name, row["sample_id"]))
    train = (s for s in iter_samples(source, files) if s.split == "train")
    histograms = PooledHistograms.fit(train)
    units = []
    for subject, rows in sorted(subjects.items()):
        spec = {"subject": subject, "rows": _inner(rows, slices_per_subject)}
        units.append(Unit(digest(checkpoint, spec, length=16), spec))
    args = {
        "data": data, "checkpoint": checkpoint, "cohort": cohort.model_dump(mode="json"),
        "preparation": preparation.model_dump(mode="json"),
        "samplers": {m: s.model_dump(mode="json") for m, s in samplers.items()}, "histograms": histograms,
    }  # fmt: skip
    fingerprint = {
        "checkpoint": load_generator(checkpoint).sha256,
        "samplers": args["samplers"],
        "cohort": args["cohort"],
    }
    run_units(
        units,
        TruthWorker,
        args,
        store,
        fingerprint,
        actors=actors,
        progress=progress,
    )
    return summarise(store)


def _inner(rows: Sequence[tuple[str, str]], count: int) -> list[list[str]]:
    """Evenly spaced rows of the middle two thirds of a subject's slices."""
    ordered = sorted(rows, key=lambda r: r[1])
    places = np.linspace(len(ordered) / 6, len(ordered) * 5 / 6 - 1, count).round().astype(int)
    return [list(ordered[p]) for p in sorted(set(places.tolist()))]


class TruthWorker:
    """Edits the chosen slices of one subject by every method and measures each against the rendered truth."""

    def __init__(
        self,
        data: str,
        checkpoint: str,
        cohort: dict[str, Any],
        preparation: dict[str, Any],
        samplers: dict[str, Any],
        histograms: PooledHistograms,
    ) -> None:
        import torch

        torch.set_num_threads(1)
        self.data = Store(data)
        self.cohort = Cohort.model_validate(cohort)
        self.preparation = Preparation.model_validate(preparation)
        self.samplers = {m: Sampler.model_validate(s) for m, s in samplers.items()}
        self.histograms = histograms
        trained = load_generator(checkpoint)
        self.generators = {"trained": trained, "untrained": untrained(trained, seed=derive("untrained"))}

    def __call__(self, spec: dict[str, Any]) -> dict[str, pa.Table]:
        """One row per slice, target and method."""
        wanted = dict.fromkeys(sample_id for _, sample_id in spec["rows"])
        names = sorted({name for name, _ in spec["rows"]})
        samples = [s for s in iter_samples(self.data, names) if s.sample_id in wanted]
        pairs = [(s, t) for s in samples for t in self._targets(s)]
        truths = [normalise(true_counterfactual(self.cohort, s, t, self.preparation)) for s, t in pairs]
        rows = []
        for method, images in self._methods(pairs):
            for (sample, target), truth, image in zip(pairs, truths, images, strict=True):
                if image is not None:
                    rows.append(self._row(sample, target, method, errors(image, truth, body_mask(truth))))
        return {"truth": pa.Table.from_pylist(rows)}

    def _targets(self, sample: Sample) -> list[Acquisition]:
        """One whole protocol row with the other tissue order, one with the same."""
        rng = generator("truth-targets", sample.sample_id)
        drawn = [draw_protocol(rng), draw_protocol(rng)]
        saturated = is_fat_saturated(sample.acquisition)
        wanted = (not saturated, saturated)
        return [a if keep else without_fat_saturation(a) for a, keep in zip(drawn, wanted, strict=True)]

    def _methods(self, pairs: Sequence[tuple[Sample, Acquisition]]) -> Iterator[tuple[str, list[np.ndarray | None]]]:
        yield "identity", [normalise(s) for s, _ in pairs]
        yield "histogram matching", [self.histograms.match(s, t) for s, t in pairs]
        for method, sampler in self.samplers.items():
            yield method, self._edit("trained", method, sampler, pairs)
        if "structure" in self.samplers:
            yield "structure, untrained", self._edit("untrained", "structure", self.samplers["structure"], pairs)

    def _edit(
        self, weights: str, method: str, sampler: Sampler, pairs: Sequence[tuple[Sample, Acquisition]]
    ) -> list[np.ndarray | None]:
        params = AcquisitionParams.model_validate({"method": method, "target": Target(explicit=[{}])})
        models = {"generator": self.generators[weights]}
        images: list[np.ndarray | None] = []
        for start in range(0, len(pairs), MICRO_BATCH):
            batch = pairs[start : start + MICRO_BATCH]
            plans = [
                Plan("", s.sample_id, 0, 0, derive("truth", s.sample_id, asdict(t)), {"acquisition": t.to_dict()})
                for s, t in batch
            ]
            edited = AcquisitionEdit().apply([s for s, _ in batch], plans, models, params, sampler)
            images += [normalise(e) for e in edited]
        return images

    @staticmethod
    def _row(sample: Sample, target: Acquisition, method: str, measured: dict[str, float]) -> dict[str, Any]:
        before, after = is_fat_saturated(sample.acquisition), is_fat_saturated(target)
        names = {True: "fat-saturated", False: "not saturated"}
        return {
            "sample_id": sample.sample_id, "subject_id": sample.subject_id, "method": method,
            "pairs": "flipping" if before != after else "same order",
            "direction": f"{names[before]} → {names[after]}", **measured,
        }  # fmt: skip


def summarise(store: Store) -> dict[str, Any]:
    """Patient-level means of every metric by kind of pair, direction and method, from the stored rows."""
    table = pa.concat_tables([store.parquet(n).read() for n in committed_files(store, "truth")])
    summary: dict[str, Any] = {"subjects": pc.count_distinct(table["subject_id"]).as_py(), "rows": table.num_rows}
    for key in ("pairs", "direction"):
        per_subject = table.group_by([key, "method", "subject_id"]).aggregate([(m, "mean") for m in METRICS])
        means = per_subject.group_by([key, "method"], use_threads=False).aggregate(
            [(f"{m}_mean", "mean") for m in METRICS]
        )
        for row in means.to_pylist():
            values = {m: row[f"{m}_mean_mean"] for m in METRICS}
            summary.setdefault(key, {}).setdefault(row[key], {})[row["method"]] = values
    store.write_json("truth.json", summary)
    return summary


def plot(summary: Mapping[str, Any], store: Store) -> str:
    """Bars of PSNR and texture ratio by direction and method; writes `truth.png` and returns its path."""
    directions = sorted(summary["direction"])
    methods = list(next(iter(summary["direction"].values())))
    figure = Figure(figsize=(13, 4.6), layout="constrained")
    panels = (
        ("psnr_db", "PSNR to the true counterfactual, body (dB)"),
        ("structure_ssim", "structure SSIM"),
        ("texture_ratio", "texture ratio (1 = truth's)"),
    )
    for axes, (metric, title) in zip(figure.subplots(1, 3), panels, strict=True):
        for m, method in enumerate(methods):
            heights = [summary["direction"][d].get(method, {}).get(metric, np.nan) for d in directions]
            axes.barh(
                [d + 0.8 * (m / len(methods) - 0.5) for d in range(len(directions))],
                heights,
                0.8 / len(methods),
                label=method,
            )
        axes.set_yticks(
            range(len(directions)), directions if metric == "psnr_db" else [""] * len(directions), fontsize=8
        )
        axes.set_title(title, fontsize=10)
        axes.invert_yaxis()
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=len(methods), fontsize=9)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90)
    store.write("truth.png", buffer.getvalue())
    return store.path("truth.png")
