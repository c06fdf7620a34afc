"""Held-out phantom subjects in; the error of each edit method against the true counterfactual out.

For every chosen slice and named set of protocol rows two targets are drawn: one that flips the order of fat and
fibroglandular tissue (fat saturation on ↔ off) and one that keeps it. The truth is the same anatomy, rendered
under the target's parameters with its own noise.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import matplotlib
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.figure import Figure

from augengine.acquisition_terms import normal
from augengine.body import body_mask
from augengine.diffusion.checkpoint import Model, load_generator, load_model, read_spec, untrained
from augengine.edits.acquisition import AcquisitionEdit, AcquisitionParams
from augengine.edits.base import Plan
from augengine.edits.targets import Target
from augengine.intensity import normalise
from augengine.io.content import content_digest
from augengine.io.dataset import dataset_files, finish, listed_files
from augengine.io.shards import iter_metadata, iter_samples
from augengine.io.store import Place, Store
from augengine.metrics.fidelity import fidelity, texture_ratio
from augengine.metrics.prediction import check_disjoint, outputs, prediction_row
from augengine.metrics.removal import psnr, rmse
from augengine.metrics.structure import structure_term
from augengine.phantom.cohort import Cohort
from augengine.phantom.protocols import (
    Protocol,
    draw_protocol,
    is_fat_saturated,
    protocols_at_hand,
    without_fat_saturation,
)
from augengine.phantom.write import true_counterfactual
from augengine.pipeline.units import Actors, Progress, run_units
from augengine.pipeline.workers import Unit
from augengine.policy.spec import Sampler
from augengine.prepare import Preparation
from augengine.records import Acquisition, Sample
from augengine.report.classical import PooledHistograms
from augengine.rng import derive, digest, generator

matplotlib.use("Agg")
MICRO_BATCH = 8
VARYING = ("repetition_time_ms", "echo_time_ms")  # what varies within a row of the joint table
METRICS = ("psnr_db", "rmse", "structure_ssim", "texture_ratio")


def errors(image: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """PSNR (peak 1 = the 99th percentile) and RMSE in the body, structure SSIM, and texture ratio."""
    return {
        "psnr_db": min(psnr(image, truth, mask), 120.0),
        "rmse": rmse(image, truth, mask),
        "structure_ssim": structure_term(truth, image, mask),
        "texture_ratio": texture_ratio(image, truth, mask),
    }


def split_rows(acquisitions: Iterable[Acquisition]) -> dict[str, tuple[Protocol, ...]]:
    """The joint table's rows, `seen` among `acquisitions` and `held out`.

    A row differs from another in more than TR and TE. A scan without fat saturation counts for every row that it may
    have been made from, so that what is called held out surely is.
    """
    found = {_row(a) for a in acquisitions}
    sets: dict[str, list[Protocol]] = {"seen": [], "held out": []}
    for protocol in protocols_at_hand():
        drawn = protocol.acquisition(0.5)
        new = found.isdisjoint({_row(drawn), _row(without_fat_saturation(drawn))})
        sets["held out" if new else "seen"].append(protocol)
    return {name: tuple(rows) for name, rows in sets.items()}


def _row(a: Acquisition) -> tuple[object, ...]:
    stated = {name: value for name, value in a.to_dict().items() if value is not None and name not in VARYING}
    return tuple((name, normal(name, value)) for name, value in stated.items())


def evaluate(
    data: Place,
    out: Place,
    checkpoint: Place,
    cohort: Cohort,
    preparation: Preparation,
    samplers: Mapping[str, Sampler],
    *,
    slices_per_subject: int = 1,
    subjects_at_most: int | None = None,
    protocols: Mapping[str, Sequence[Protocol]] | None = None,
    models: Mapping[str, Place] | None = None,
    predictor: str | None = None,
    actors: Actors = Actors(),  # noqa: B008  (frozen)
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure all methods on the test subjects; rows go to `out/truth/`, the summary is returned.

    Args:
        samplers: method (`structure`, `inversion`, `sdedit`, `local_contrast`) to its sampler settings.
        subjects_at_most: the first of the test subjects alone.
        protocols: name to rows that targets are drawn from; by default one set, `all`.
        models: method to the checkpoint that it takes instead of `checkpoint`; `local_contrast` has its own.
        predictor: folder of an acquisition predictor of other subjects; rows whose vendor changes then have its
            `vendor_gain` (see `augengine.metrics.prediction`).

    Raises:
        DataError: the predictor shares subjects with the generator or the test split.
    """
    source, store, trained = Store.at(data), Store.at(out), Store.at(checkpoint)
    files = dataset_files(source)
    subjects: dict[str, list[tuple[str, str]]] = {}
    for name in files:
        for row in iter_metadata(source, [name]):
            if row["split"] == "test":
                subjects.setdefault(row["subject_id"], []).append((name, row["sample_id"]))
    histograms = {
        place: PooledHistograms.fit(
            (s for s in iter_samples(source, files) if s.split == "train"), by_tissue=place == "tissue"
        )
        for place in ("body", "tissue")
    }
    generator_spec, units = read_spec(trained), []
    for subject, rows in sorted(subjects.items())[:subjects_at_most]:
        spec = {"subject": subject, "rows": _inner(rows, slices_per_subject)}
        units.append(Unit(digest(generator_spec.sha256, spec, length=16), spec))
    own = {method: Store.at(place) for method, place in (models or {}).items()}
    own_specs = {method: read_spec(store) for method, store in own.items()}
    args = {
        "data": source,
        "checkpoint": trained,
        "models": own,
        "cohort": cohort.model_dump(mode="json"),
        "preparation": preparation.model_dump(mode="json"),
        "samplers": {m: s.model_dump(mode="json") for m, s in samplers.items()},
        "histograms": histograms,
        "protocols": protocols or {"all": protocols_at_hand()},
        "predictor": predictor,
    }
    if predictor is not None:
        specs = {trained.uri: generator_spec} | {own[method].uri: spec for method, spec in own_specs.items()}
        check_disjoint(read_spec(predictor), specs, subjects)
    fingerprint = {
        "checkpoint": generator_spec.sha256,
        "models": {method: spec.sha256 for method, spec in own_specs.items()},
        "samplers": args["samplers"],
        "cohort": args["cohort"],
        "preparation": args["preparation"],
        "data": content_digest(source, files),
        "protocols": {name: [asdict(p) for p in rows] for name, rows in (protocols or {}).items()},
        "predictor": None if predictor is None else read_spec(predictor).sha256,
    }
    run = run_units(
        units,
        TruthWorker,
        args,
        store,
        fingerprint,
        actors=actors,
        progress=progress,
    )
    finish(store, {"stage": "truth", **fingerprint, "counts": run.counts}, run.files)
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
        data: Place,
        checkpoint: Place,
        models: Mapping[str, Place],
        cohort: dict[str, Any],
        preparation: dict[str, Any],
        samplers: dict[str, Any],
        histograms: Mapping[str, PooledHistograms],
        protocols: Mapping[str, Sequence[Protocol]],
        predictor: str | None,
    ) -> None:
        import torch

        torch.set_num_threads(1)
        self.data = Store.at(data)
        self.cohort = Cohort.model_validate(cohort)
        self.preparation = Preparation.model_validate(preparation)
        self.samplers = {m: Sampler.model_validate(s) for m, s in samplers.items()}
        self.histograms, self.protocols = histograms, protocols
        trained = load_generator(checkpoint)
        self.predictor = None if predictor is None else load_model(predictor)
        self.trained = {method: load_model(models[method]) if method in models else trained for method in samplers}
        self.untrained = untrained(trained, seed=derive("untrained"))

    def __call__(self, spec: dict[str, Any]) -> dict[str, pa.Table]:
        """One row per slice, target and method."""
        wanted = dict.fromkeys(sample_id for _, sample_id in spec["rows"])
        names = sorted({name for name, _ in spec["rows"]})
        samples = [s for s in iter_samples(self.data, names) if s.sample_id in wanted]
        drawn = [(s, t, name) for s in samples for name in self.protocols for t in self._targets(s, name)]
        pairs = [(s, t) for s, t, _ in drawn]
        truths, clean = (
            [normalise(true_counterfactual(self.cohort, s, t, self.preparation, noise=noise)) for s, t in pairs]
            for noise in (True, False)
        )
        rows = []
        for method, images in self._methods(pairs, clean):
            for (sample, target, name), image, true, bare in zip(drawn, images, truths, clean, strict=True):
                if image is not None:
                    measured = _measured(sample, image, true, bare) | self._predicted(sample, target, image)
                    rows.append({**self._row(sample, target, method), "rows": name, **measured})
        return {"truth": pa.Table.from_pylist(rows)}

    def _targets(self, sample: Sample, name: str) -> list[Acquisition]:
        """One whole protocol row with the other tissue order, one with the same."""
        rng = generator("truth-targets", sample.sample_id, *([] if name == "all" else [name]))
        drawn = [draw_protocol(rng, protocols=self.protocols[name]) for _ in range(2)]
        saturated = is_fat_saturated(sample.acquisition)
        wanted = (not saturated, saturated)
        return [a if keep else without_fat_saturation(a) for a, keep in zip(drawn, wanted, strict=True)]

    def _methods(
        self, pairs: Sequence[tuple[Sample, Acquisition]], clean: Sequence[np.ndarray]
    ) -> Iterator[tuple[str, list[np.ndarray | None]]]:
        yield "identity", [normalise(s) for s, _ in pairs]
        yield "global gamma", [self.histograms["body"].gamma(s, t) for s, t in pairs]
        yield "histogram matching", [self.histograms["body"].match(s, t) for s, t in pairs]
        yield "histogram matching by tissue", [self.histograms["tissue"].match(s, t) for s, t in pairs]
        for method, sampler in self.samplers.items():
            yield method, [*edited(self.trained[method], method, sampler, pairs)]
        if "structure" in self.samplers:
            sampler = self.samplers["structure"]
            yield "structure, untrained", [*edited(self.untrained, "structure", sampler, pairs)]
        yield "truth without noise", [*clean]

    def _predicted(self, sample: Sample, target: Acquisition, image: np.ndarray) -> dict[str, float]:
        """How much more an independent network sees the target's vendor in the image than in the source."""
        if self.predictor is None:
            return {}
        assert self.predictor.spec.vocabulary is not None  # every acquisition predictor has one
        before, after = outputs(self.predictor, np.stack([normalise(sample), image.astype(np.float32)]))
        values = prediction_row(self.predictor.spec.vocabulary, before, after, sample.acquisition, target)
        return {"vendor_gain": values.get("manufacturer.gain", float("nan"))}

    @staticmethod
    def _row(sample: Sample, target: Acquisition, method: str) -> dict[str, Any]:
        before, after = is_fat_saturated(sample.acquisition), is_fat_saturated(target)
        names = {True: "fat-saturated", False: "not saturated"}
        return {
            "sample_id": sample.sample_id,
            "subject_id": sample.subject_id,
            "method": method,
            "pairs": "flipping" if before != after else "same order",
            "direction": f"{names[before]} → {names[after]}",
        }


def edited(
    model: Model,
    method: str,
    sampler: Sampler,
    pairs: Sequence[tuple[Sample, Acquisition]],
    seeds: Sequence[int] | None = None,
) -> list[np.ndarray]:
    """Every sample of the pairs under its pair's acquisition, normalised; by default each pair has its own noise."""
    seeds = seeds or [derive("truth", s.sample_id, asdict(t)) for s, t in pairs]
    params = AcquisitionParams.model_validate({"method": method, "target": Target(explicit=[{}])})
    images: list[np.ndarray] = []
    for start in range(0, len(pairs), MICRO_BATCH):
        batch = pairs[start : start + MICRO_BATCH]
        plans = [
            Plan("", s.sample_id, 0, 0, seed, {"acquisition": t.to_dict()})
            for (s, t), seed in zip(batch, seeds[start:], strict=False)
        ]
        made = AcquisitionEdit().apply([s for s, _ in batch], plans, {"generator": model}, params, sampler)
        images += [normalise(e) for e in made]
    return images


def _measured(sample: Sample, image: np.ndarray, truth: np.ndarray, clean: np.ndarray) -> dict[str, float]:
    """`errors` in the body, fidelity in labelled tissue and the rest, structure against what holds no noise.

    `structure_clean` leaves out windows that are flat in the noiseless truth: there both images show noise alone.
    """
    body = body_mask(truth)
    assert sample.label is not None  # the phantom's always are
    tissue = sample.label > 0
    return {
        **errors(image, truth, body),
        **fidelity(image, truth, {"body": body, "tissue": tissue, "rest": body & ~tissue}),
        "structure_clean": structure_term(clean, image, body),
        "structure_source": structure_term(sample.image, image, body),
    }


def measured_rows(store: Store) -> pa.Table:
    """Every row of the last `evaluate`."""
    return pa.concat_tables([store.parquet(part.name).read() for part in listed_files(store)["truth"]])


def summarise(store: Store) -> dict[str, Any]:
    """Patient-level means of every metric by kind of pair, direction and method, from the stored rows."""
    table = measured_rows(store)
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
    figure.legend(
        *axes.get_legend_handles_labels(), loc="outside lower center", ncols=math.ceil(len(methods) / 2), fontsize=9
    )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90)
    store.write("truth.png", buffer.getvalue())
    return store.path("truth.png")
