"""A real data set and runs made from it in; what every measure says of each run, with intervals, out.

One pass over the real rows and one over each run, on Ray Data actors or in this process: no row is ever collected.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from augengine.diffusion.checkpoint import read_spec
from augengine.errors import DataError
from augengine.io.dataset import dataset_files
from augengine.io.shards import iter_metadata, read_group
from augengine.io.store import Store
from augengine.metrics.extractors import load_extractor
from augengine.metrics.features import FeatureMeasure, FeatureSet, LabelMeasure
from augengine.metrics.healed import ChangeMeasure, HealedMeasure
from augengine.metrics.intervals import Interval, bootstrap_interval
from augengine.metrics.partial import Together
from augengine.metrics.prediction import PredictionMeasure, check_disjoint
from augengine.metrics.realism import fid, kid, mmd, small_set_distance
from augengine.metrics.referee import GenDiceMeasure, Referee
from augengine.metrics.similarity import SimilarityMeasure
from augengine.pipeline.measure import measure
from augengine.pipeline.units import Actors
from augengine.report.console import Report
from augengine.rng import generator

THRESHOLD_SPLIT = "val"
SMALL_ROWS, SMALL_DRAWS = 256, 100
Plans = dict[str, tuple[Callable[..., Any], dict[str, Any]]]


@dataclass(frozen=True)
class Features:
    """An extractor's kind, weights and their hash (see `augengine.metrics.extractors`)."""

    kind: str
    weights_path: str | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Asked:
    """What to measure.

    Attributes:
        split: of the real rows that sets are compared with.
        run_split: of the runs' rows; None takes all.
        extractors: of image features.
        lesion: labels that make a lesion.
        referee: folder of a segmenter, for what is seen in generated images.
        predictor: folder of an acquisition predictor.
        generators: folders of the models that made the runs, to show that the predictor is independent of them.
        threshold: of DiffMap IoU; None chooses it on the runs' validation rows, each run's on its own.
    """

    split: str = "test"
    run_split: str | None = None
    extractors: tuple[Features, ...] = (Features("radiomics"),)
    lesion: tuple[str, ...] = ()
    referee: str | None = None
    predictor: str | None = None
    generators: tuple[str, ...] = ()
    threshold: float | None = None


@dataclass(frozen=True)
class Figure:
    """One number about one run.

    Attributes:
        run: its name.
        measure: what was measured.
        judge: what it rests on besides the rows: an extractor with the hash of its weights, a model's, or nothing.
        estimate: the value.
        interval: 95 % over patients; None where there are too few.
        real_real: what equally many real rows score against real rows of other patients, for distances of small sets.
        rows: rows on either side of such a distance.
    """

    run: str
    measure: str
    judge: str
    estimate: float
    interval: Interval | None = None
    real_real: Interval | None = None
    rows: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)

    def __str__(self) -> str:
        text = str(self.interval) if self.interval else f"{self.estimate:.4g}"
        return f"{text} (real–real {self.real_real}, n = {self.rows})" if self.real_real else text


def measure_runs(
    data: str, runs: Mapping[str, str], asked: Asked, *, actors: Actors, report: Report | None = None
) -> tuple[list[Figure], list[str]]:
    """Measure every run.

    Args:
        data: URI of real rows, those that the runs were made from.
        runs: name to URI of what `augment` wrote, or of other rows to compare as a set.
        asked: what to measure.
        actors: how the rows are spread; never changes a figure.
        report: told of progress.

    Returns:
        Figures in the order of the runs, and what could not be measured and why.

    Raises:
        DataError: no rows, rows without their source, or a judge that knows whom it judges.
        CheckpointError: a judge of another kind, or with other weights.
    """
    device = "cuda" if actors.num_gpus else "cpu"
    check_judges(asked)
    augmented = {name: _augmented(uri) for name, uri in runs.items()}
    known = tuple(dict.fromkeys(name for row in _first_rows(data, ["label_names"]) for name in row["label_names"]))
    lesion = tuple(name for name in known if name in asked.lesion)
    labels = lesion or known  # whose shapes are compared
    sets = _set_measures(asked, labels, device)
    real = measure(data, Together, {"measures": sets}, split=asked.split, actors=actors, progress=report).found
    figures: list[Figure] = []
    notes = []
    if asked.referee is not None and not lesion:
        notes.append(f"removal is not measured: the data know none of the labels {', '.join(asked.lesion)}")
    for name, uri in runs.items():
        plans, parents, note = dict(sets), None, ""
        if augmented[name]:
            parents = data
            plans |= _pair_measures(asked, device)
            if lesion:
                threshold, note = _threshold(data, uri, asked, actors)
                plans["healed"] = (
                    HealedMeasure,
                    {"lesion": lesion, "referee": asked.referee, "threshold": threshold, "device": device},
                )
        else:
            notes.append(f"{name}: no augmented rows, so it is compared as a set alone")
        found = measure(
            uri, Together, {"measures": plans}, parents=parents, split=asked.run_split, actors=actors, progress=report
        ).found
        figures += _figures(name, found, real, asked)
        notes += [f"{name}: {note}"] if note and "healed" in found else []
        missing = sorted(plan for plan in plans if plan not in found)
        notes += [f"{name}: no row that {_WHAT[plan.partition(' ')[0]]}" for plan in missing]
    return figures, notes


_WHAT = {"labels": "shows one of the labels", "healed": "a lesion was removed from", "gen_dice": "has a label map"}


def check_judges(asked: Asked) -> None:
    """Refuse judges and extractors that cannot be loaded or are of another kind, before any row is read.

    Raises:
        ConfigError: an extractor with weights where none belong, or without.
        CheckpointError: missing, damaged or unfitting weights, another hash, or a model of another kind.
        DataError: a predictor that shares training subjects with a generator.
    """
    for found in asked.extractors:
        load_extractor(**asdict(found))
    if asked.referee is not None:
        Referee(asked.referee)
    if asked.predictor is not None:
        PredictionMeasure(asked.predictor)
        check_disjoint(read_spec(asked.predictor), {uri: read_spec(uri) for uri in asked.generators})


def _augmented(uri: str) -> bool:
    return all(row["synthetic"] for row in _first_rows(uri, ["synthetic"]))


def _first_rows(uri: str, columns: list[str]) -> list[dict[str, Any]]:
    store = Store(uri)
    for name in dataset_files(store):
        file = store.parquet(name)
        if file.num_row_groups:
            return list(read_group(file, 0, columns).to_pylist())
    raise DataError("a measure needs rows", found="none", where=store.uri)


def _set_measures(asked: Asked, labels: tuple[str, ...], device: str) -> Plans:
    plans: Plans = {
        f"features {n}": (FeatureMeasure, {"make": load_extractor, **asdict(found), "device": device})
        for n, found in enumerate(asked.extractors)
    }
    return {**plans, "labels": (LabelMeasure, {"labels": labels})} if labels else plans


def _pair_measures(asked: Asked, device: str) -> Plans:
    plans: Plans = {"similarity": (SimilarityMeasure, {})}
    if asked.referee is not None:
        plans["gen_dice"] = (GenDiceMeasure, {"referee": asked.referee, "device": device})
    if asked.predictor is not None:
        plans["prediction"] = (PredictionMeasure, {"predictor": asked.predictor, "device": device})
    return plans


def _threshold(data: str, uri: str, asked: Asked, actors: Actors) -> tuple[float | None, str]:
    """DiffMap's threshold, and why there is none."""
    if asked.threshold is not None:
        return asked.threshold, ""
    store = Store(uri)
    if any(row["split"] == THRESHOLD_SPLIT for row in iter_metadata(store, dataset_files(store))):
        change = {"lesion": asked.lesion}
        curve = measure(uri, ChangeMeasure, change, parents=data, split=THRESHOLD_SPLIT, actors=actors)
        if curve.rows:
            return float(curve.best), ""
    return None, f"no DiffMap IoU: its threshold is chosen on rows of split {THRESHOLD_SPLIT} with a removed lesion"


def _figures(name: str, found: Mapping[str, Any], real: Mapping[str, Any], asked: Asked) -> list[Figure]:
    figures: list[Figure] = []
    for plan, state in found.items():
        if isinstance(state, FeatureSet):
            figures += _distances(name, plan, state, real[plan]) if plan in real else []
            continue
        for value in state.measures:
            if by_patient := state.means(value):
                interval = bootstrap_interval(by_patient, rng=generator("measure", value))
                figures.append(Figure(name, value, _judge(plan, value, asked), interval.estimate, interval))
    return figures


def _judge(plan: str, value: str, asked: Asked) -> str:
    """The model that a figure rests on, by the beginning of its weights' hash."""
    of_referee = plan == "gen_dice" or value in ("tumor_residual", "residual_floor")
    uri = asked.predictor if plan == "prediction" else asked.referee if of_referee else None
    return "" if uri is None else f"{read_spec(uri).kind}:{read_spec(uri).sha256[:12]}"


def _distances(name: str, plan: str, made: FeatureSet, real: FeatureSet) -> list[Figure]:
    """Fréchet, kernel and mean distance of images; of images and label maps also at the same n beside real–real."""
    figures = []
    if plan != "labels":
        scores = [distance(made, real) for distance in (fid, kid, mmd)]
        figures = [Figure(name, s.metric, s.extractor, s.value, s.interval) for s in scores]
    n = min(len(made.kept), _half(real), SMALL_ROWS)
    if n >= 2:
        kind = "label_frechet" if plan == "labels" else "frechet_same_n"
        found = small_set_distance(made, real, n, rng=generator("measure", kind), draws=SMALL_DRAWS)
        figures.append(Figure(name, kind, found.extractor, found.distance, None, found.real_real, n))
    return figures


def _half(real: FeatureSet) -> int:
    """Rows of the largest two equal parts of the kept rows that share no subject."""
    counts = Counter(real.kept_subjects)
    return (len(real.kept) - max(counts.values()) + 1) // 2
