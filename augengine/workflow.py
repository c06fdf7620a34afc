"""Whole jobs from stages: (phantom or real data) → ingest → train → augment → pictures, with progress and a summary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from augengine.diffusion.checkpoint import check_rule, read_spec, weights_bytes
from augengine.errors import ConfigError
from augengine.intensity import normalise
from augengine.io.dataset import dataset_files, is_dataset
from augengine.io.sources import SourceOptions
from augengine.io.store import Place, Store
from augengine.load import load_mixture
from augengine.phantom.cohort import Cohort
from augengine.phantom.write import true_counterfactual
from augengine.pipeline.augment import AugmentSummary, augment
from augengine.pipeline.cluster import connect
from augengine.pipeline.early_stop import UnacceptableRunError
from augengine.pipeline.forecast import output_bytes
from augengine.pipeline.ingest import ingest
from augengine.pipeline.ingest_plan import plan_ingest
from augengine.pipeline.models import folders
from augengine.pipeline.phantom import write_cohort
from augengine.pipeline.resources import ACTOR_BYTES, check_disk, fit, waits_for
from augengine.pipeline.units import Actors
from augengine.policy.spec import Sampler
from augengine.preflight import Ready, check_files, check_folder, check_shards
from augengine.prepare import Preparation
from augengine.records import Sample
from augengine.report import truth
from augengine.report.console import console, report_steps, stage, table
from augengine.report.contact_sheet import Truth, contact_sheet
from augengine.report.ingest_report import print_ledger
from augengine.report.invented import say_invented, say_invented_targets
from augengine.told import tell
from augengine.train.config import read_recipe
from augengine.train.run import check_settings, train
from augengine.train.workers import NumWorkers, workers_get_gpus

LEAST_DISK_BYTES = 256 * 2**20
"""With less, not even the logs of Ray are safe."""


@dataclass(frozen=True)
class Job:
    """What to run and where; `out` is absolute or a URI.

    `data` is a folder of images or of shards. `checkpoints` names models by role, "" all others; where neither it nor
    the policy names one, `recipe` is trained on the data's training split with `workers` Ray Train workers.
    `training_flags` are those given that a training alone obeys. `new_version` augments anew beside rows of another
    policy, model or source; `keep_going` makes all rows of a run that cannot succeed; `retry_failed` tries the failed
    rows of a former run again.
    """

    out: str
    policy: str
    recipe: str
    data: str | None = None
    checkpoints: Mapping[str, str] = field(default_factory=dict)
    layout: str = "auto"
    options: SourceOptions = field(default_factory=SourceOptions)
    preparation: Preparation = field(default_factory=Preparation)
    workers: NumWorkers = 1
    training_flags: tuple[str, ...] = ()
    actors: Actors = field(default_factory=Actors)
    new_version: bool = False
    keep_going: bool = False
    retry_failed: bool = False

    @property
    def cpu_actors(self) -> Actors:
        """The same actors without GPUs, for stages that hold no network."""
        return replace(self.actors, num_gpus=0)

    def under(self, name: str) -> str:
        """A folder of the output."""
        return f"{self.out}/{name}"


def run_on_data(job: Job) -> AugmentSummary:
    """Ingest (unless `data` holds shards), train (unless every model is given), augment, draw the contact sheet."""
    assert job.data is not None
    ready = check(job)
    connect()
    actors = check_room(job, ready)
    if holds_shards(job.data):
        data = job.data
        check_rows(job, ready, data)
    else:
        data = ingest_stage(job, ready, job.data)
    checkpoints = train_stage(job, ready, data)
    summary = augment_stage(job, ready, data, checkpoints, actors)
    pictures(data, summary)
    return summary


def run_on_phantom(job: Job, cohort: Cohort, samplers: Mapping[str, Sampler]) -> AugmentSummary:
    """The same on the embedded phantom; of acquisition edits with the error against the true counterfactuals."""
    ready = check(job)
    connect()
    actors = check_room(job, ready)
    say_invented(cohort)
    with stage("phantom, Duke layout") as progress:
        write_cohort(cohort, job.under("phantom"), "duke-classic", actors=job.cpu_actors, progress=progress)
    data = ingest_stage(job, ready, job.under("phantom"))
    checkpoints = train_stage(job, ready, data)
    summary = augment_stage(job, ready, data, checkpoints, actors)
    if {member.edit_name for member in ready.mixture.members} != {"acquisition"}:
        pictures(data, summary)
        return summary

    def true_image(sample: Sample) -> Any:
        return normalise(true_counterfactual(cohort, sample, sample.acquisition, job.preparation))

    pictures(data, summary, true_image)
    with stage("error against the true counterfactual") as progress:
        measured = truth.evaluate(
            data,
            job.under("truth"),
            next(iter(checkpoints.values())),
            cohort,
            job.preparation,
            samplers,
            actors=job.cpu_actors,
            progress=progress,
        )
    print_truth(measured)
    tell(truth=measured)
    console.print(f"plot: {truth.plot(measured, Store(job.under('truth')))}")
    return summary


def check(job: Job) -> Ready:
    """Read the policy, the recipe and the checkpoints' descriptions: mistakes show before any work is done."""
    mixture = load_mixture(job.policy)
    checkpoints = folders(mixture, job.checkpoints)
    trains = not all(checkpoints.values())
    if job.training_flags and not trains:
        raise ConfigError(
            "these flags are of a training, and no model is to be trained",
            found=", ".join(job.training_flags),
            next_step="leave them out; or leave out --checkpoint, and the policy's refs, to train a model",
        )
    ready = Ready(mixture, checkpoints, read_recipe(job.recipe) if trains else None)
    check_files(ready)
    if ready.recipe is not None:
        check_settings(ready.recipe, job.workers)
    say_invented_targets(mixture)
    return ready


def check_room(job: Job, ready: Ready) -> Actors:
    """Refuse what the cluster or the disk does not hold; returns the actors that augment.

    Raises:
        RunError: with what there is, and what would fit.
    """
    asked = job.actors
    check_disk(job.out, LEAST_DISK_BYTES, "any run")
    if asked.inline:
        return asked
    weights = sum(weights_bytes(place) for place in {Store.at(p) for p in ready.checkpoints.values() if p})
    # A model is read whole before its network takes the weights over.
    count = fit(asked.count, asked.num_cpus, asked.num_gpus, actor_bytes=ACTOR_BYTES + 2 * weights)
    if ready.recipe is not None:
        workers_get_gpus(job.workers)
    if waits := waits_for(count, asked.num_cpus, asked.num_gpus):
        console.print(f"{count} actors will wait for what other jobs hold: {waits}")
    return replace(asked, count=count)


def check_rows(job: Job, ready: Ready, data: str) -> None:
    """Refuse shards that policy, models or recipe cannot work with, and output that the disk does not hold."""
    surveyed = check_shards(ready, data)
    size = output_bytes(surveyed, ready.mixture)
    check_disk(job.out, size, f"the output of {surveyed.selected * ready.mixture.per_input} rows")


def holds_shards(data: str) -> bool:
    """True for a folder that ingest or augment wrote, finished or not, and for bare shards, which are refused later."""
    store = Store(data)
    return is_dataset(store) or bool(store.names("", ".parquet")) or bool(store.names("samples", ".parquet"))


def ingest_stage(job: Job, ready: Ready, root: str) -> str:
    """Ingest a local folder into `out/data`; returns its URI."""
    preparation = job.preparation.model_copy(update=ready.ranges)
    if preparation.size is None:
        # A generator knows the matrix that it was trained on; another one would change what it sees.
        preparation = preparation.model_copy(update={"size": ready.size})
    for place in ready.checkpoints.values():
        if place:
            check_rule(read_spec(place), preparation.intensity_rule, Store.at(place).uri)
    with stage("headers") as progress:
        plan = plan_ingest(root, job.layout, job.options, inline=job.actors.inline, progress=report_steps(progress))
        check_folder(ready, plan, preparation)
    with stage("ingest") as progress:
        summary = ingest(
            Path(root),
            job.under("data"),
            layout=job.layout,
            options=job.options,
            preparation=preparation,
            actors=job.cpu_actors,
            plan=plan,
            progress=report_steps(progress),
        )
    print_ledger(summary, job.under("data"))
    tell(data=job.under("data"))
    return job.under("data")


def train_stage(job: Job, ready: Ready, data: str) -> dict[str, Place]:
    """Train into `out/model`, if any role has no checkpoint; returns the checkpoint of every role."""
    trained = ""
    if ready.recipe is not None:
        with stage("train"):
            trained = train(ready.recipe, data, job.under("model"), num_workers=job.workers, progress=console.print)
    models = {role: uri or trained for role, uri in ready.checkpoints.items()}
    tell(checkpoints={role: Store.at(place).uri for role, place in models.items() if place})
    return models


def augment_stage(
    job: Job, ready: Ready, data: str, checkpoints: Mapping[str, Place], actors: Actors
) -> AugmentSummary:
    """Apply the policy into `out/augmented` and print what became of the rows."""
    with stage("augment") as progress:
        summary = augment(
            ready.mixture,
            data,
            job.under("augmented"),
            checkpoints,
            actors=actors,
            progress=progress,
            new_version=job.new_version,
            keep_going=job.keep_going,
            retry_failed=job.retry_failed,
        )
    run = summary.run
    parts = summary.members if ready.mixture.mix else {}
    rows = [["requested", summary.requested, *(t.requested for t in parts.values())]]
    rows += [[k, v, *(t.counts[k] for t in parts.values())] for k, v in summary.counts.items()]
    table(f"policy {ready.mixture.name}", ["", "rows", *parts], rows)
    reasons = [[outcome, reason, n] for outcome, found in summary.reasons.items() for reason, n in found]
    if reasons:
        table("commonest reasons", ["", "reason", "rows"], reasons)
    if run.retried:
        became = ", ".join(f"{n} {outcome}" for outcome, n in sorted(run.retried.items()))
        console.print(f"rows that had failed and were tried again: {became}")
    pids = ", ".join(map(str, run.pids)) or "none"
    console.print(f"units made {run.made}, already committed {run.skipped}; worker PIDs: {pids}\nrows: {summary.out}")
    tell(
        rows=summary.out,
        policy=ready.mixture.name,
        digest=ready.mixture.digest,
        requested=summary.requested,
        counts=summary.counts,
        policies={name: tally.counts for name, tally in parts.items()},
        reasons=summary.reasons,
        acceptable=summary.acceptable,
        shortcoming=summary.shortcoming,
        units={"made": run.made, "there": run.skipped},
    )
    return summary


def pictures(data: str, summary: AugmentSummary, truth_of: Truth | None = None) -> None:
    """Draw the contact sheet of an output folder that has accepted rows."""
    if summary.counts["accepted"]:
        source, out = Store(data), Store(summary.out)
        sheet = contact_sheet(source, dataset_files(source), out, dataset_files(out), truth=truth_of)
        console.print(f"contact sheet: {sheet}")
        tell(contact_sheet=sheet)


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
        UnacceptableRunError: with the rate, the commonest reasons and where to look.
    """
    if not summary.acceptable:
        told = {o: ", ".join(f"{reason} ({n} rows)" for reason, n in found) for o, found in summary.reasons.items()}
        reasons = "; ".join(f"{outcome}: {text}" for outcome, text in told.items())
        raise UnacceptableRunError(
            summary.shortcoming or "",
            found=f"{summary.counts}" + (f", {reasons}" if reasons else ""),
            where=summary.out,
            next_step="mend the policy or the model; every row's `reason` stands in its folder",
        )
