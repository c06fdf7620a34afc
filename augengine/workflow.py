"""Whole jobs from stages: (phantom or real data) → ingest → train → augment → pictures, with progress and a summary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from augengine.diffusion.checkpoint import read_spec
from augengine.errors import RunError
from augengine.intensity import normalise
from augengine.io.commits import sample_files
from augengine.io.sources import SourceOptions
from augengine.io.store import Store
from augengine.load import LoadedPolicy, load_policy
from augengine.phantom.cohort import Cohort
from augengine.phantom.write import true_counterfactual
from augengine.pipeline.augment import AugmentSummary, augment
from augengine.pipeline.cluster import connect
from augengine.pipeline.ingest import ingest
from augengine.pipeline.phantom import write_cohort
from augengine.pipeline.units import Actors
from augengine.policy.spec import Sampler
from augengine.prepare import Preparation
from augengine.records import Sample
from augengine.report import truth
from augengine.report.console import console, report_steps, stage, table
from augengine.report.contact_sheet import Truth, contact_sheet
from augengine.report.ingest_report import print_ledger
from augengine.train.config import Recipe, read_recipe
from augengine.train.run import train


@dataclass(frozen=True)
class Job:
    """What to run and where; `out` is absolute or a URI.

    `data` is a folder of images or of shards; `checkpoint` None trains `recipe` on the data's training split with
    `workers` Ray Train workers; `new_version` augments anew beside rows of another policy, model or source.
    """

    out: str
    policy: str
    recipe: str
    data: str | None = None
    checkpoint: str | None = None
    layout: str = "auto"
    options: SourceOptions = field(default_factory=SourceOptions)
    preparation: Preparation = field(default_factory=Preparation)
    workers: int = 1
    actors: Actors = field(default_factory=Actors)
    new_version: bool = False

    @property
    def cpu_actors(self) -> Actors:
        """The same actors without GPUs, for stages that hold no network."""
        return replace(self.actors, num_gpus=0)

    def under(self, name: str) -> str:
        """A folder of the output."""
        return f"{self.out}/{name}"


def run_on_data(job: Job) -> AugmentSummary:
    """Ingest (unless `data` holds shards), train (unless a checkpoint is given), augment, draw the contact sheet."""
    assert job.data is not None
    loaded, recipe = check(job)
    connect()
    data = job.data if holds_shards(job.data) else ingest_stage(job, job.data)
    checkpoint = job.checkpoint or train_stage(job, recipe, data)
    summary = augment_stage(job, loaded, data, checkpoint)
    pictures(data, summary)
    return summary


def run_on_phantom(job: Job, cohort: Cohort, samplers: Mapping[str, Sampler]) -> AugmentSummary:
    """The same on the embedded phantom, with the error against its true counterfactuals at the end."""
    loaded, recipe = check(job)
    connect()
    with stage("phantom, Duke layout") as progress:
        write_cohort(cohort, job.under("phantom"), "duke-classic", actors=job.cpu_actors, progress=progress)
    data = ingest_stage(job, job.under("phantom"))
    checkpoint = job.checkpoint or train_stage(job, recipe, data)
    summary = augment_stage(job, loaded, data, checkpoint)

    def true_image(sample: Sample) -> Any:
        return normalise(true_counterfactual(cohort, sample, sample.acquisition, job.preparation))

    pictures(data, summary, true_image)
    with stage("error against the true counterfactual") as progress:
        measured = truth.evaluate(
            data, job.under("truth"), checkpoint, cohort, job.preparation, samplers,
            actors=job.cpu_actors, progress=progress,
        )  # fmt: skip
    print_truth(measured)
    console.print(f"plot: {truth.plot(measured, Store(job.under('truth')))}")
    return summary


def check(job: Job) -> tuple[LoadedPolicy, Recipe | None]:
    """Read the policy, the recipe and the checkpoint's description: mistakes show before any work is done."""
    loaded = load_policy(job.policy)
    if job.checkpoint:
        read_spec(job.checkpoint)
        return loaded, None
    return loaded, read_recipe(job.recipe)


def holds_shards(data: str) -> bool:
    """True for a folder of Parquet shards, or one that ingest or augment wrote."""
    store = Store(data)
    return store.exists("_run.json") or bool(store.names("", ".parquet")) or bool(store.names("samples", ".parquet"))


def ingest_stage(job: Job, root: str) -> str:
    """Ingest a local folder into `out/data`; returns its URI."""
    preparation = job.preparation
    if job.checkpoint and preparation.size is None:
        # A generator knows the matrix that it was trained on; another one would change what it sees.
        preparation = preparation.model_copy(update={"size": read_spec(job.checkpoint).image_size[0]})
    with stage("ingest") as progress:
        summary = ingest(
            Path(root), job.under("data"), layout=job.layout, options=job.options, preparation=preparation,
            actors=job.cpu_actors,
            progress=report_steps(progress),
        )  # fmt: skip
    print_ledger(summary, job.under("data"))
    return job.under("data")


def train_stage(job: Job, recipe: Recipe | None, data: str) -> str:
    """Train into `out/model`; returns the checkpoint's URI."""
    assert recipe is not None  # `check` read it, since no checkpoint was given
    with stage("train"):
        return train(recipe, data, job.under("model"), num_workers=job.workers, progress=console.print)


def augment_stage(job: Job, loaded: LoadedPolicy, data: str, checkpoint: str) -> AugmentSummary:
    """Apply the policy into `out/augmented` and print what became of the rows."""
    checkpoints = dict.fromkeys(loaded.edit.MODELS, checkpoint)
    with stage("augment") as progress:
        summary = augment(
            loaded, data, job.under("augmented"), checkpoints,
            actors=job.actors, progress=progress, new_version=job.new_version,
        )  # fmt: skip
    run = summary.run
    table(
        f"policy {loaded.policy.name}", ["", "rows"],
        [["requested", summary.requested], *([k, v] for k, v in summary.counts.items())],
    )  # fmt: skip
    pids = ", ".join(map(str, run.pids)) or "none"
    console.print(f"units made {run.made}, already committed {run.skipped}; worker PIDs: {pids}\nrows: {summary.out}")
    return summary


def pictures(data: str, summary: AugmentSummary, truth_of: Truth | None = None) -> None:
    """Draw the contact sheet of an output folder that has accepted rows."""
    if summary.counts["accepted"]:
        source, out = Store(data), Store(summary.out)
        sheet = contact_sheet(source, sample_files(source), out, sample_files(out), truth=truth_of)
        console.print(f"contact sheet: {sheet}")


def print_truth(measured: Mapping[str, Any]) -> None:
    """One table per kind of pair, one per direction: PSNR, RMSE, structure and texture by method."""
    for key in ("pairs", "direction"):
        for name, methods in sorted(measured[key].items()):
            rows = [[method, *(values[m] for m in truth.METRICS)] for method, values in methods.items()]
            columns = ["method", "PSNR dB", "RMSE", "structure SSIM", "texture ratio"]
            table(f"{name}, {measured['subjects']} held-out subjects, inside the body", columns, rows)


def check_acceptable(summary: AugmentSummary) -> None:
    """Refuse to call a run a success that rejected or lost more than its policy allows.

    Raises:
        RunError: with the rate and where to look.
    """
    if not summary.acceptable:
        raise RunError(
            summary.shortcoming or "", found=f"{summary.counts}", where=summary.out,
            next_step="read `reason` in rejected/ and failed/, then mend the policy or the model",
        )  # fmt: skip
