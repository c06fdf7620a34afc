"""The acquisition edit against the same breast rendered under the target's parameters, on held-out subjects.

Targets are whole rows of Duke's joint table, apart by whether any scan that the generator was trained on was made with
the row. An acquisition predictor of other subjects says whether an edit to another vendor is taken for that vendor's.
Then TE, TR and flip angle are swept alone, and the tissue means compared with the noiseless physics: of the model
under test, which has seen these parameters change only together with the scanner, as in Duke; and of one trained on
scans where each of them varies by itself.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _generators import RECIPES, ROOT

from augengine import rng
from augengine.commands.augment import DEMO_COHORT, DEMO_PREPARATION, DEMO_SAMPLERS
from augengine.commands.evaluate import BREASTS
from augengine.diffusion.checkpoint import Generator, load_generator
from augengine.errors import DataError
from augengine.intensity import normalise
from augengine.io.dataset import dataset_files, write_dataset
from augengine.io.shards import iter_samples, to_table
from augengine.io.store import Store
from augengine.metrics.dose_response import DoseResponse, dose_response
from augengine.phantom.cohort import Cohort
from augengine.phantom.write import read_cohort, true_counterfactual
from augengine.pipeline.cluster import connect
from augengine.pipeline.phantom import shard_cohort
from augengine.pipeline.units import INLINE, Actors
from augengine.policy.spec import Sampler
from augengine.prepare import prepare
from augengine.records import Sample
from augengine.report import truth
from augengine.report.comparison import Comparison, Target, best, estimate, intervals, target
from augengine.report.console import console, stage
from augengine.splits import assign_splits, categories
from augengine.train.config import read_recipe
from augengine.train.run import train

OURS, LOCAL = "structure", "local_contrast"
IDENTITY, CEILING = "identity", "truth without noise"
CLASSICAL = ("global gamma", "histogram matching", "histogram matching by tissue")
TEXTURE = 0.8
OF_IDENTITY, OF_CLASSICAL, STRUCTURE, VENDOR_GAIN, MONOTONE = 0.5, 0.7, 0.9, 0.3, 0.9
SWEPT = {"echo_time_ms": "TE", "repetition_time_ms": "TR", "flip_angle_deg": "flip angle"}
DOSES, CONTRAST = 6, "contrast"
RANGES = {"echo_time_ms": (1.0, 4.0), "repetition_time_ms": (4.0, 12.0), "flip_angle_deg": (5.0, 30.0)}
INDEPENDENT = DEMO_COHORT.model_copy(update={"seed": 43, "independent": RANGES})
INDEPENDENT_STEPS = 2600
MEASURES = {
    "rmse_body": "RMSE body",
    "rmse_tissue": "RMSE labelled",
    "ssim_body": "SSIM body",
    "structure_source": "structure, source",
    "texture_ratio": "texture ratio",
    "vendor_gain": "vendor gain",
    "structure_clean": "structure, truth",
    "rmse_rest": "RMSE rest",
    "ssim_tissue": "SSIM labelled",
    "ssim_rest": "SSIM rest",
    "psnr_db_body": "PSNR dB body",
    "psnr_db_tissue": "PSNR labelled",
    "psnr_db_rest": "PSNR rest",
}
RESPONSES = {
    "spearman": "Spearman with truth",
    "right_sign": "right sign",
    "monotone": "|Spearman| with dose",
    "true_monotone": "the truth's",
    "true_change": "true change",
    "change": "change",
}


def measure(given: argparse.Namespace) -> list[Comparison]:
    """Edit, sweep and compare with the targets."""
    run = Path(given.run).resolve()
    if not (run / "model/checkpoint/model.json").exists():
        raise DataError("the acquisition edit is measured on the demo's run", where=str(run), next_step="make demo")
    cohort = read_cohort(run / "phantom")
    assert isinstance(cohort, Cohort)
    samples, model = list(_samples(str(run / "data"))), given.model or str(run / "model/checkpoint")
    tables = _against_truth(given, run, model, cohort, samples)
    if given.methods:
        return tables
    tables += [
        _responses(given, model, cohort, samples, f"{OURS} over every vendor's range"),
        _responses(given, model, cohort, samples, f"{OURS} over its own vendor's range", own_vendor=True),
    ]
    root = Path(given.root).resolve()
    if given.quick and not (root / "models/independent/checkpoint/model.json").exists():
        return tables
    connect()
    data, model = _independent(root)
    title = f"{OURS}, trained where the parameters vary alone"
    return [*tables, _responses(given, model, INDEPENDENT, list(_samples(data)), title)]


def _independent(root: Path) -> tuple[str, str]:
    """Shards of the cohort whose parameters vary alone, and the checkpoint of the model trained on it."""
    data, out = f"{root}/independent", f"{root}/models/independent"
    shard_cohort(INDEPENDENT, data, DEMO_PREPARATION, actors=INLINE)
    if not Path(out, "checkpoint/model.json").exists():
        recipe = read_recipe(str(ROOT / BREASTS.recipe), [f"steps={INDEPENDENT_STEPS}"])
        train(recipe, data, out, progress=console.print)
    return data, f"{out}/checkpoint"


def _samples(data: str) -> list[Sample]:
    store = Store(data)
    return list(iter_samples(store, dataset_files(store)))


def _against_truth(
    given: argparse.Namespace, run: Path, model: str, cohort: Cohort, samples: Sequence[Sample]
) -> list[Comparison]:
    """One table per set of protocol rows and kind of pair."""
    protocols = truth.split_rows(s.acquisition for s in samples if s.split == "train")
    asked = given.methods or ([OURS] if given.quick else [*DEMO_SAMPLERS, LOCAL])
    predictor = _predictor(given, cohort)
    samplers = {method: DEMO_SAMPLERS[method] for method in asked if method != LOCAL}
    models = {LOCAL: _local_contrast(given, run)} if LOCAL in asked else {}
    actors = INLINE
    if not given.quick:
        connect()
        actors = Actors()
    with stage("acquisition") as report, tempfile.TemporaryDirectory() as out:
        truth.evaluate(
            str(run / "data"),
            out,
            model,
            cohort,
            DEMO_PREPARATION,
            {**samplers, **dict.fromkeys(models, Sampler())},
            models=models,
            slices_per_subject=1 if given.quick else 2,
            subjects_at_most=2 if given.quick else None,
            protocols=protocols,
            predictor=predictor,
            actors=actors,
            progress=report,
        )
        rows = truth.measured_rows(Store(out)).to_pylist()
    counts = {name: len(chosen) for name, chosen in protocols.items()}
    tables = []
    for name in protocols:
        for kind in ("all pairs", "flipping", "same order"):
            chosen = [r for r in rows if r["rows"] == name and kind in ("all pairs", r["pairs"])]
            tables.append(_table(f"Acquisition, {name} protocol rows, {kind}", chosen, {"protocol_rows": counts}))
    return tables


def _local_contrast(given: argparse.Namespace, run: Path) -> str:
    """The model that changes local contrast, trained on the same rows."""
    out = Path(given.root, "models/local_contrast_breast").resolve()
    connect()
    return train(read_recipe(str(RECIPES / "local_contrast.yaml")), str(run / "data"), str(out), progress=console.print)


def _predictor(given: argparse.Namespace, cohort: Cohort) -> str | None:
    """A predictor trained on as many further subjects of the cohort; a quick run takes it only where it exists."""
    out = Path(given.root, "models/breast_iap_predictor").resolve()
    found = out / "checkpoint"
    if (found / "model.json").exists():
        return str(found)
    if given.quick:
        return None
    wider = cohort.model_copy(update={"subjects": 2 * cohort.subjects})
    others = range(cohort.subjects, wider.subjects)
    splits = assign_splits({wider.subject_id(i): categories([wider.acquisition(i)]) for i in others}, seed=0)
    tables = (
        to_table(s.replace(split=splits[wider.subject_id(i)]) for s in prepare(wider.scan(i), DEMO_PREPARATION))
        for i in others
    )
    data = write_dataset(Path(given.root, "breast_others").resolve(), tables)
    connect()
    train(read_recipe(str(RECIPES / "iap_predictor_small.yaml")), data.uri, str(out), progress=console.print)
    return str(found)


def _table(title: str, rows: Sequence[dict[str, Any]], figures: dict[str, Any]) -> Comparison:
    """Methods in the rows' order; a method that had no histogram of a pair's protocol group has no value there."""
    pairs = list(dict.fromkeys((r["subject_id"], r["sample_id"], r["rows"], r["pairs"]) for r in rows))
    found: dict[str, dict[str, list[float]]] = {}
    for method in dict.fromkeys(r["method"] for r in rows):
        own = {(r["subject_id"], r["sample_id"], r["rows"], r["pairs"]): r for r in rows if r["method"] == method}
        found[method] = {m: [own[p].get(m, np.nan) if p in own else np.nan for p in pairs] for m in MEASURES}
        if method in (IDENTITY, CEILING):
            # Neither is an edit: the source is as like itself as can be, and the truth without noise has no texture.
            found[method].pop("structure_source" if method == IDENTITY else "texture_ratio")
    subjects = [subject for subject, *_ in pairs]
    table = intervals(found, subjects)
    possible = estimate(table[CEILING]["structure_source"])
    classical = best(found, CLASSICAL, "rmse_body", subjects)
    ratio = partial(target, subjects=subjects)
    ours = found[OURS]
    targets = [
        ratio(f"RMSE {OURS} / {IDENTITY}", ours["rmse_body"], found[IDENTITY]["rmse_body"], bound=OF_IDENTITY),
        ratio(f"RMSE {OURS} / {classical}", ours["rmse_body"], found[classical]["rmse_body"], bound=OF_CLASSICAL),
        Target(
            f"structure SSIM with the source (the noiseless truth has {possible:.3f})",
            table[OURS]["structure_source"],
            STRUCTURE,
            False,
        ),
        Target("structure SSIM with the noiseless truth", table[OURS]["structure_clean"], STRUCTURE, False),
    ]
    if LOCAL in found:
        targets += [
            ratio(
                f"RMSE {LOCAL} / {IDENTITY}", found[LOCAL]["rmse_body"], found[IDENTITY]["rmse_body"], bound=OF_IDENTITY
            ),
            ratio(f"RMSE {LOCAL} / {OURS}", found[LOCAL]["rmse_body"], ours["rmse_body"], bound=1.0),
            Target(f"texture ratio of {LOCAL}", table[LOCAL]["texture_ratio"], TEXTURE, False),
        ]
    if "vendor_gain" in table[OURS]:
        targets.append(Target("prediction gain of the vendor", table[OURS]["vendor_gain"], VENDOR_GAIN, False))
    title = f"{title}: {len(pairs)} pairs of {len(set(subjects))} held-out subjects"
    return Comparison(title, MEASURES, table, tuple(targets), figures)


def _responses(
    given: argparse.Namespace,
    model: str,
    cohort: Cohort,
    samples: Sequence[Sample],
    title: str,
    *,
    own_vendor: bool = False,
) -> Comparison:
    """Each parameter swept over the range of training (of the subject's own vendor), all others as scanned.

    Vendors differ in all parameters at once, so a sweep over both vendors' range asks for scans that no protocol makes.
    """
    torch.set_num_threads(1)
    generator, sampler = load_generator(model), DEMO_SAMPLERS[OURS]
    trained = [s.acquisition for s in samples if s.split == "train"]
    middle = {s.subject_id: s for s in samples if s.split == "test" and s.slice_index == cohort.slices // 2}
    chosen = [s for _, s in sorted(middle.items())][: 2 if given.quick else None]
    rows = [f"{short}, {place}" for short in SWEPT.values() for place in (*sorted(chosen[0].labels), CONTRAST)]
    nothing = dict.fromkeys(RESPONSES, np.nan)
    found: dict[str, dict[str, list[float]]] = {row: {name: [] for name in RESPONSES} for row in rows}
    title = f"Dose–response of {title}"
    with stage(title) as report:
        for n, sample in enumerate(chosen):
            report(n, len(chosen), {})
            answers = {}
            vendor = sample.acquisition.manufacturer
            for field, short in SWEPT.items():
                known = [getattr(a, field) for a in trained if not own_vendor or a.manufacturer == vendor]
                if min(known) < max(known):
                    doses = np.linspace(min(known), max(known), DOSES)
                    for place, response in _swept(sample, field, doses, generator, sampler, cohort).items():
                        answers[f"{short}, {place}"] = dataclasses.asdict(response)
            for row in rows:
                for name in RESPONSES:
                    found[row][name].append(answers.get(row, nothing)[name])
    table = intervals(found, [s.subject_id for s in chosen])
    targets = [
        Target(f"Spearman with truth, {row}", values["spearman"], MONOTONE, False)
        for row, values in table.items()
        if "spearman" in values
    ]
    return Comparison(f"{title}, {len(chosen)} held-out subjects", RESPONSES, table, tuple(targets), {"doses": DOSES})


def _swept(
    sample: Sample, field: str, doses: np.ndarray, generator: Generator, sampler: Sampler, cohort: Cohort
) -> dict[str, DoseResponse]:
    """How each tissue's mean, and their contrast, answers to one parameter."""
    pairs = [(sample, sample.acquisition.replace(**{field: float(dose)})) for dose in doses]
    # One seed for all doses: what differs between them is the dose.
    ours = truth.edited(generator, OURS, sampler, pairs, [rng.derive("dose-response", sample.sample_id)] * len(pairs))
    true = [normalise(true_counterfactual(cohort, s, a, DEMO_PREPARATION, noise=False)) for s, a in pairs]
    predicted, course = _means(sample, ours), _means(sample, true)
    return {place: dose_response(doses, predicted[place], course[place]) for place in course}


def _means(sample: Sample, images: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Label name to its mean in every image; the contrast is the second label's less the first's."""
    assert sample.label is not None  # the phantom's always are
    means = {
        name: np.array([image[:, sample.label == code].mean() for image in images])
        for name, code in sorted(sample.labels.items())
        if (sample.label == code).any()
    }
    if len(means) > 1:
        first, second = list(means.values())[:2]
        means[CONTRAST] = second - first
    return means
