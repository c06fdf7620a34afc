"""Stored predictions and truths of an experiment in; patients' scores by cell and arm, compared and tested, out.

Nothing else is read: neither data nor models. The patient is the unit of every mean, interval and test.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np
import yaml

from augengine.downstream.arms import baselines
from augengine.downstream.measures import SCORES, SURFACES, MeasureWorker
from augengine.downstream.predictions import MAPS, PREDICTIONS, TRUTH
from augengine.downstream.protocols import Cell, Protocol
from augengine.errors import RunError
from augengine.io.commits import Record, read_records
from augengine.io.parts import Part
from augengine.io.store import Store
from augengine.metrics.draws import draws_needed
from augengine.metrics.intervals import Interval, percentile_interval
from augengine.metrics.statistics import BySeed, hierarchical_interval, paired_tests, seed_means
from augengine.pipeline.units import Actors, Progress, run_units
from augengine.pipeline.workers import Unit
from augengine.rng import digest, generator
from augengine.yaml_config import Document

PLAN, MEASURES = "experiment.json", "measures"
MEAN = "mean"
DRAWS = 2000
Measured = tuple[str, str]
"""A metric and a class, or the mean of the classes."""


@dataclass(frozen=True, order=True)
class Row:
    """A row of a table: who was trained on what, and tested on what; `subjects` trained, 0 for all there are."""

    cell: str
    arm: str
    ratio: float
    subjects: int = 0


Scores = dict[Row, dict[Measured, dict[int, dict[str, float]]]]
"""Row → metric and class → seed → patient → value."""


@dataclass(frozen=True)
class Plan:
    """What `experiment.json` says.

    Attributes:
        ratio: added rows per real row in all arms but those of the curve.
        trials: train, arm, ratio, seed, subjects and trial_id of each training.
        chunks: chunk_id, value, split and subjects of each group of test subjects.
        sizes: numbers of training subjects, the main one first; 0 is all.
        fresh_draws: every seed trained on subjects of its own draw.
        nets: networks averaged per training.
        patients: how many labelled training subjects each domain has.
    """

    protocol: Protocol
    segmenter: str
    steps: int
    ratio: float
    trials: tuple[Mapping[str, Any], ...]
    chunks: tuple[Mapping[str, Any], ...]
    sizes: tuple[int, ...] = (0,)
    fresh_draws: bool = False
    nets: int = 1
    patients: Mapping[str, int] = field(default_factory=dict)

    @property
    def draws(self) -> str:
        """What trainings of one arm differ in besides their start."""
        return "draws" if self.fresh_draws else "seeds"

    def main(self, row: Row) -> bool:
        """True for rows of the main tables: of the main ratio and number of training subjects."""
        return row.ratio == self.ratio and row.subjects == self.sizes[0]

    @classmethod
    def read(cls, out: str) -> Plan:
        """The plan of an output folder; a `RunError` where there is none."""
        store = Store(out)
        if not store.exists(PLAN):
            raise RunError(
                f"an experiment's folder holds {PLAN}", where=store.uri, next_step="run it without --tables-only"
            )
        values = store.read_mapping(
            PLAN, protocol=dict, segmenter=str, steps=int, ratio=(int, float), trials=list, chunks=list
        )
        protocol = Document(yaml.safe_dump(values["protocol"], allow_unicode=True), store.path(PLAN)).validate(Protocol)
        if not all(_has(trial, _TRIAL) for trial in values["trials"]) or not all(
            _has(chunk, _CHUNK) for chunk in values["chunks"]
        ):
            raise RunError(
                f"{PLAN} says of every training and every chunk what it is",
                where=store.path(PLAN),
                next_step="restore it, or run the experiment again",
            )
        return cls(
            protocol,
            values["segmenter"],
            values["steps"],
            values["ratio"],
            tuple(values["trials"]),
            tuple(values["chunks"]),
            tuple(values.get("sizes", (0,))),
            values.get("fresh_draws", False),
            values.get("nets", 1),
            values.get("patients", {}),
        )

    def tested(self, trial: Mapping[str, Any], cell: Cell) -> list[Mapping[str, Any]]:
        """The chunks of a cell, if the training is one of it."""
        tests = self.protocol.tests(cell) if trial["train"] == cell.train else set()
        return [chunk for chunk in self.chunks if (chunk["value"], chunk["split"]) in tests]


_TRIAL = {"trial_id": str, "train": str, "arm": str, "ratio": (int, float), "seed": int}
_CHUNK = {"chunk_id": str, "value": str, "split": str}


def _has(values: Any, needed: Mapping[str, Any]) -> bool:
    return isinstance(values, dict) and all(isinstance(values.get(key), kind) for key, kind in needed.items())


def prediction_id(trial_id: str, chunk_id: str) -> str:
    """The unit, and so the file, of what one training says of one chunk."""
    return f"{trial_id}-{chunk_id}"


def measure(out: str, *, actors: Actors, progress: Progress | None = None, anew: bool = False) -> Scores:
    """Measure every stored prediction that the plan names, and gather the scores.

    Args:
        anew: measure even what an earlier call measured.
    """
    plan, store = Plan.read(out), Store(out)
    folder = store.folder(MEASURES)
    if anew:
        folder.remove_all()
    predictions, truths = (stored_maps(store.folder(name)) for name in (PREDICTIONS, TRUTH))
    units: dict[str, Unit] = {}
    for trial in plan.trials:
        for cell in plan.protocol.cells:
            for chunk in plan.tested(trial, cell):
                name = prediction_id(trial["trial_id"], chunk["chunk_id"])
                found = one_of(predictions, name, store), one_of(truths, chunk["chunk_id"], store)
                if not units:
                    check_order(plan, found[0], store)
                spec = {"predictions": f"{PREDICTIONS}/{found[0].name}", "truth": f"{TRUTH}/{found[1].name}"}
                tidied = ["largest component"] if plan.protocol.largest_component else []
                shas = [part.sha256 for part in found]
                identity = (plan.protocol.classes, plan.protocol.metrics, SURFACES, *tidied, *shas)
                units[name] = Unit(f"{name}-{digest(*identity, length=8)}", spec)
    done = run_units(
        list(units.values()),
        MeasureWorker,
        {"out": store, "protocol": plan.protocol},
        folder,
        {"stage": MEASURES},
        actors=actors,
        progress=progress,
    )
    scored = {name: scores_of(folder, done.records[unit.unit_id]) for name, unit in units.items()}
    scores: Scores = {}
    for trial in plan.trials:
        for cell in plan.protocol.cells:
            for chunk in plan.tested(trial, cell):
                row = scores.setdefault(Row(str(cell), trial["arm"], trial["ratio"], trial.get("subjects", 0)), {})
                for key, subject, value in scored[prediction_id(trial["trial_id"], chunk["chunk_id"])]:
                    row.setdefault(key, {}).setdefault(trial["seed"], {})[subject] = value
    return scores


def unpredicted(plan: Plan, out: str) -> tuple[str, ...]:
    """Classes that the segmenter does not predict, by what its stored predictions say."""
    store = Store(out)
    for part in stored_maps(store.folder(PREDICTIONS)).values():
        file = store.parquet(f"{PREDICTIONS}/{part.name}")
        told = file.read(columns=["classes"]).to_pylist() if "classes" in file.schema_arrow.names else []
        if told:
            return tuple(name for name in plan.protocol.classes if name not in told[0]["classes"])
    return ()


def check_order(plan: Plan, part: Part, store: Store) -> None:
    """Refuse predictions from before regions were matched by name, of segmenters whose regions stood in another order.

    Raises:
        RunError: they would be scored as other classes.
    """
    names = store.parquet(f"{PREDICTIONS}/{part.name}").schema_arrow.names
    if "classes" not in names and plan.segmenter in ("ldm_seg", "pcf"):
        raise RunError(
            f"predictions of {plan.segmenter} say which classes they hold",
            found="older ones, which do not",
            where=store.path(f"{PREDICTIONS}/{part.name}"),
            next_step=f"delete the folder {PREDICTIONS} and run the same command again",
        )


def stored_maps(store: Store) -> dict[str, Part]:
    """The file of class maps of every unit of a stage that has any."""
    return {unit_id: part for unit_id, record in read_records(store).items() for part in record.files.get(MAPS, ())}


def one_of(parts: Mapping[str, Part], unit_id: str, store: Store) -> Part:
    """The file of a unit; a `RunError` where it is missing."""
    if unit_id not in parts:
        raise RunError(
            "every prediction and truth that the plan names is stored",
            found=f"none of {unit_id}",
            where=store.uri,
            next_step="run the experiment again, without --tables-only",
        )
    return parts[unit_id]


def scores_of(folder: Store, record: Record) -> list[tuple[Measured, str, float]]:
    """Scores of one unit of `MeasureWorker`, with the mean over classes of every metric and patient."""
    rows = [row for part in record.files.get(SCORES, ()) for row in folder.parquet(part.name).read().to_pylist()]
    found = [((row["metric"], row["class"]), row["subject_id"], row["score"]) for row in rows]
    by_patient: dict[tuple[str, str], list[float]] = {}
    for (metric, _), subject, value in found:
        by_patient.setdefault((metric, subject), []).append(value)
    means = [((metric, MEAN), subject, float(np.mean(v))) for (metric, subject), v in by_patient.items()]
    return found + means


@dataclass(frozen=True)
class Gain:
    """One arm against another on the same test patients.

    Attributes:
        difference: mean over patients, interval over patients.
        with_seeds: the same with trainings drawn anew, too; of the main metric alone.
        p, p_holm: Wilcoxon's signed rank test over patients; corrected for all comparisons of this metric.
        subjects: training subjects; 0 is all.
        draws, draws_needed: trainings of either arm, and how many an interval of ± .02 over these would need; None of a
            single one, or where `with_seeds` is.
    """

    cell: str
    arm: str
    against: str
    ratio: float
    difference: Interval
    with_seeds: Interval | None
    p: float
    p_holm: float
    subjects: int = 0
    draws: int = 1
    draws_needed: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)


def gains(scores: Scores, measured: Measured, plan: Plan, *, over_seeds: bool = False) -> list[Gain]:
    """Every arm against `real` and against its own baseline, if it has one, cell by cell: one family of tests."""
    family: dict[str, tuple[Row, Row]] = {}
    for row in scores:
        for other in baselines(row.arm):
            against = next((r for r in scores if (r.cell, r.arm, r.subjects) == (row.cell, other, row.subjects)), None)
            if row.arm != other and against is not None and measured in scores[row]:
                family[f"{row}{other}"] = (row, against)
    pairs = {name: (scores[a][measured], scores[b][measured]) for name, (a, b) in family.items()}
    found = paired_tests(pairs, rng=_rng(plan, measured)) if pairs else {}
    return [
        Gain(
            row.cell,
            row.arm,
            against.arm,
            row.ratio,
            found[name].difference,
            hierarchical_interval(*pairs[name], rng=_rng(plan, measured), resample_seeds=True) if over_seeds else None,
            found[name].p,
            found[name].p_holm,
            row.subjects,
            len(pairs[name][0]),
            draws_needed(*pairs[name]) if over_seeds else None,
        )
        for name, (row, against) in family.items()
    ]


def without_effect(scores: Scores) -> list[tuple[str, str]]:
    """Arms that scored as their baselines did, to the last patient and digit: (arm, baseline) by name.

    Trainings that differ in anything that they saw do not: their segmenter ignored what sets the arm apart.
    """
    same: dict[tuple[str, str], bool] = {}
    for row, found in scores.items():
        for name in set(baselines(row.arm)) - {row.arm}:
            others = [scores[r] for r in scores if (r.cell, r.arm, r.subjects) == (row.cell, name, row.subjects)]
            for other in others:
                same[row.arm, name] = same.get((row.arm, name), True) and _each(found) == _each(other)
    return sorted(pair for pair, equal in same.items() if equal)


def _each(found: Mapping[Measured, BySeed]) -> dict[tuple[Measured, int, str], str]:
    """Every score in words, in which a missing one (NaN) equals another."""
    return {
        (measured, seed, subject): repr(value)
        for measured, by_seed in found.items()
        for seed, of in by_seed.items()
        for subject, value in of.items()
    }


@dataclass(frozen=True)
class GapClosed:
    """What share of the loss on another domain an arm makes good.

    Attributes:
        drop: `real` trained on the test domain less `real` trained elsewhere, on the same patients.
        share: gain of the arm over `real`, relative to the drop; None where there is no drop that could be closed.
    """

    cell: str
    arm: str
    ratio: float
    drop: Interval
    share: Interval | None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)


def gaps(scores: Scores, measured: Measured, plan: Plan) -> list[GapClosed]:
    """The gap of every cell that is tested on a domain it was not trained on, and how far each arm closes it."""
    found = []
    for cell in filter(plan.protocol.shifted, plan.protocol.cells):
        trained_here, trained_there = (
            _real(scores, Cell(train=train, test=cell.test), measured) for train in (cell.test, cell.train)
        )
        if trained_here is None or trained_there is None:
            continue
        home, away = seed_means(trained_here), seed_means(trained_there)
        for row in scores:
            if row.cell != str(cell) or measured not in scores[row]:
                continue
            arm = seed_means(scores[row][measured])
            patients = sorted(home.keys() & away.keys() & arm.keys())
            drop = np.array([home[p] - away[p] for p in patients])
            gain = np.array([arm[p] - away[p] for p in patients])
            picks = _rng(plan, measured).integers(len(patients), size=(DRAWS, len(patients)))
            drops = drop[picks].mean(axis=1)
            interval = partial(percentile_interval, subjects=len(patients), level=0.95)
            whole, share = interval(float(drop.mean()), drops), None
            if whole.low > 0:
                share = interval(float(gain.mean() / drop.mean()), gain[picks].mean(axis=1) / drops)
            found.append(GapClosed(row.cell, row.arm, row.ratio, whole, share))
    return found


@dataclass(frozen=True)
class Shared:
    """What a domain's own patients gain or lose if other domains' real rows train the segmenter, too, at equal steps.

    An arm that carries rows to another domain asks the same of its segmenter, so its cost at home is read beside this.

    Attributes:
        train: the reference domain that was trained on, which holds `test`.
        difference: it less `real` trained on `test` alone, on the patients of `test`; intervals as in `Gain`.
    """

    train: str
    test: str
    difference: Interval
    with_seeds: Interval
    draws_needed: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)


def shared(scores: Scores, measured: Measured, plan: Plan) -> list[Shared]:
    """Every reference domain against every domain that it holds and that is trained and tested on its own."""
    found = []
    for name in plan.protocol.reference:
        theirs = _real(scores, Cell(train=name, test=name), measured)
        for test in plan.protocol.train_domains:
            own = _real(scores, Cell(train=test, test=test), measured)
            within = set(plan.protocol.values(test)) < set(plan.protocol.values(name))
            if not within or theirs is None or own is None:
                continue
            pair = ({seed: {p: theirs[seed][p] for p in values} for seed, values in own.items()}, own)
            whole, with_seeds = (
                hierarchical_interval(*pair, rng=_rng(plan, measured), resample_seeds=seeds) for seeds in (False, True)
            )
            found.append(Shared(name, test, whole, with_seeds, draws_needed(*pair)))
    return found


def _real(scores: Scores, cell: Cell, measured: Measured) -> BySeed | None:
    rows = [r for r in scores if (r.cell, r.arm) == (str(cell), "real") and measured in scores[r]]
    return scores[rows[0]][measured] if rows else None


def _rng(plan: Plan, measured: Measured) -> np.random.Generator:
    return generator("results", plan.protocol.name, *measured)


def summary(values: BySeed) -> dict[str, float]:
    """Mean and deviation over patients (of their means over seeds), deviation over seeds, and how many there are."""
    patients, seeds = list(seed_means(values).values()), [float(np.mean(list(v.values()))) for v in values.values()]
    return {
        "mean": float(np.mean(patients)),
        "sd_patients": _sd(patients),
        "sd_seeds": _sd(seeds),
        "patients": len(patients),
        "seeds": len(seeds),
    }


def _sd(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
