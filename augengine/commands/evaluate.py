"""The flags of `augengine evaluate`: real and augmented shards, or a phantom built on the spot, in; tables out."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from augengine.bundled import PROTOCOLS, known
from augengine.commands.flags import SiteColumnFlag, column_of, each_once, parse_assignments, parse_numbers
from augengine.downstream.arms import (
    ADDITIONS,
    CHANGES,
    KINDS,
    Extra,
    check_arms,
    declared_rows,
    default_arms,
    find_arms,
)
from augengine.downstream.checks import check_out
from augengine.downstream.drawn_subjects import EVERYONE
from augengine.downstream.experiment import Experiment
from augengine.downstream.joined import join
from augengine.downstream.plots import write_plots
from augengine.downstream.protocols import Protocol, by_site, protocol
from augengine.downstream.results import Plan, measure, without_effect
from augengine.downstream.run import Done, run
from augengine.downstream.segmenters import SEGMENTERS
from augengine.downstream.segmenters.fitting import need_roles
from augengine.downstream.sequential import run_until
from augengine.downstream.study import Built, Study, build
from augengine.downstream.tables import RESULTS, TABLES, primary, write_tables
from augengine.errors import ConfigError
from augengine.io.store import Store
from augengine.io.subject_sites import sites_of
from augengine.phantom.brain_cohort import BrainCohort
from augengine.phantom.cohort import Cohort
from augengine.phantom.protocols import GE, SIEMENS
from augengine.pipeline.cluster import connect, output_uri, user_errors
from augengine.pipeline.units import Actors
from augengine.prepare import Preparation
from augengine.report.console import console, stage, table
from augengine.report.invented import say_invented
from augengine.told import tell
from augengine.train.config import Recipe, read_recipe

# Vendors whose habits differ as much as Duke's protocols would if one of them did without fat saturation: there,
# all scans are saturated, and a segmenter hardly notices the vendor.
BREASTS = Study(
    Cohort(
        subjects=256,
        seed=31,
        matrix=128,
        slices=8,
        slice_spacing_mm=6,
        siemens_fraction=0.5,
        no_fat_saturation_fraction={GE: 0.0, SIEMENS: 0.8},
    ),
    Preparation(size=64, drop_end_slices=1),
    fractions=(0.44, 0.06, 0.5),
)
BRAINS = Study(BrainCohort(subjects=100, seed=23, matrix=64, slices=24), Preparation())
ELAPSED, MOST_SECONDS = "elapsed.json", 1e10
# On both vendors' true labels, 2000 steps make a segmenter as good as on its own vendor's; 450 do not.
FULL_SEEDS, FULL_STEPS = 5, 2000
QUICK_SEEDS, QUICK_STEPS, QUICK_GENERATOR_STEPS, QUICK_SUBJECTS, QUICK_LABELLER_STEPS = 1, 300, 250, 96, 600
# As many augmented rows as real ones cost Siemens Dice at home; a quarter as many cost it none (docs/evidence.md).
RATIO = 0.25
SMALL = {"breast": "unet_duke_small", "brain": "unet_small"}
# On real data the papers' own: paper 004's segmenter and one augmented row per real one.
FULL = {"breast": "unet_duke", "brain": "unet3d"}
FULL_RATIO = 1.0
# Where a protocol names lesions, augmented rows take the place of so many real ones of their kind.
BALANCED_RATIO = 0.5

DataFlag = Annotated[list[str] | None, typer.Option(help="Ingested real shards, all splits; may be given again.")]
SiteFlag = Annotated[list[str] | None, typer.Option(help="Domains are these sites: --site A --site B.")]
ParticipantsFlag = Annotated[Path | None, typer.Option(help="Table of participants that names the subjects' sites.")]
AugmentedFlag = Annotated[
    list[str] | None,
    typer.Option(help="NAME=FOLDER of augmented rows, an arm of that name (bare: counterfactual); may be given again."),
]
UntrainedFlag = Annotated[list[str] | None, typer.Option(help="The same, of a generator with random weights.")]
CheckpointFlag = Annotated[list[str] | None, typer.Option(help="Model of a row's provenance that was moved.")]
PhantomFlag = Annotated[bool, typer.Option("--phantom", help="Build cohort, generators and augmented rows first.")]
ProtocolFlag = Annotated[str, typer.Option("--protocol", help=f"A YAML file, or one of {', '.join(known(PROTOCOLS))}.")]
ArmsFlag = Annotated[
    str | None,
    typer.Option(
        help=f"Of real, real_repeated, {', '.join((*CHANGES, *ADDITIONS))}, the names of --augmented, and CHANGE+ROWS "
        "such as classical+counterfactual; default: the protocol's, or those whose rows there are."
    ),
]
SeedsFlag = Annotated[int | None, typer.Option(min=1, help=f"Trainings per arm; default {FULL_SEEDS}.")]
StepsFlag = Annotated[
    int | None, typer.Option(min=1, help=f"Optimiser steps; default the recipe's, of phantoms {FULL_STEPS}.")
]
RatioFlag = Annotated[
    float | None,
    typer.Option(
        min=0.01,
        help=f"Added rows per real row; default {FULL_RATIO:g}, of phantoms {RATIO:g}. Where the protocol names "
        f"lesions, the share of real rows that are replaced; default {BALANCED_RATIO:g}.",
    ),
]
CurveFlag = Annotated[str | None, typer.Option(help="Further ratios of arms that add rows of folders: 0.25,0.5,2,4.")]
SubjectsFlag = Annotated[
    str | None, typer.Option(help="Numbers of training patients to compare: 5,10,20,all; default all.")
]
DrawsFlag = Annotated[
    int | None, typer.Option(min=1, help="Fresh draws of training patients, instead of --seeds on the same ones.")
]
NetsFlag = Annotated[int, typer.Option(min=1, help="Networks per training whose probabilities are averaged.")]
HalfWidthFlag = Annotated[
    float | None,
    typer.Option(min=0.0001, help="Stop when gains are known to plus or minus this; --draws or --seeds at the most."),
]
LargestFlag = Annotated[
    bool, typer.Option("--largest-component", help="Of every predicted class, only the largest part counts.")
]
SegmenterFlag = Annotated[str, typer.Option(help=f"One of {', '.join(SEGMENTERS)}.")]
RecipeFlag = Annotated[list[str] | None, typer.Option(help="ROLE=FILE of each recipe that the segmenter takes.")]
OutFlag = Annotated[str | None, typer.Option(help="Output folder: a path or any fsspec URI.")]
QuickFlag = Annotated[bool, typer.Option("--quick", help="One seed, few steps; of a phantom few subjects.")]
TablesFlag = Annotated[bool, typer.Option("--tables-only", help="Measure stored predictions anew; trains nothing.")]
ActorsFlag = Annotated[int | None, typer.Option(min=1, help="Trainings at a time; default: as the cluster holds.")]
CpusFlag = Annotated[float, typer.Option(help="Logical CPUs of an actor; their sum must stay below the cluster's.")]
GpusFlag = Annotated[float, typer.Option(help="GPUs of an actor.")]


def evaluate(
    data: DataFlag = None,
    augmented: AugmentedFlag = None,
    augmented_untrained: UntrainedFlag = None,
    checkpoint: CheckpointFlag = None,
    phantom: PhantomFlag = False,
    protocol_name: ProtocolFlag = "duke_strict",
    site: SiteFlag = None,
    participants: ParticipantsFlag = None,
    site_column: SiteColumnFlag = None,
    arms: ArmsFlag = None,
    seeds: SeedsFlag = None,
    steps: StepsFlag = None,
    ratio: RatioFlag = None,
    ratio_curve: CurveFlag = None,
    train_subjects: SubjectsFlag = None,
    draws: DrawsFlag = None,
    nets: NetsFlag = 1,
    until_half_width: HalfWidthFlag = None,
    largest_component: LargestFlag = False,
    segmenter: SegmenterFlag = "unet",
    recipe: RecipeFlag = None,
    out: OutFlag = None,
    quick: QuickFlag = False,
    tables_only: TablesFlag = False,
    actors: ActorsFlag = None,
    cpus_per_actor: CpusFlag = 0.5,
    gpus_per_actor: GpusFlag = 0,
) -> None:
    """Does augmentation help on the scanner without labels? Arms, domains and seeds, told by patient."""
    with user_errors():
        started = time.monotonic()
        asked = by_site(protocol(protocol_name), site) if site else protocol(protocol_name)
        if largest_component:
            asked = asked.model_copy(update={"largest_component": True})
        uri = output_uri(out, f"evaluate-{asked.name}")
        spread = Actors(actors, cpus_per_actor, gpus_per_actor)
        each_once(data or (), "--data")
        column = column_of(site_column, participants)
        rows: dict[Extra, tuple[str, ...]] = declared_rows(augmented or ())
        if augmented_untrained:
            rows["untrained"] = (*rows.get("untrained", ()), *augmented_untrained)
        for folders in rows.values():
            each_once(folders, "--augmented")
        declared = {name: folders for name, folders in rows.items() if name not in KINDS}
        there = list(rows) if not phantom else [] if _of_lesions(asked) else ["augmented", "untrained"]
        wanted = [name.strip() for name in arms.split(",")] if arms else list(asked.arms) or default_arms(there)
        chosen = find_arms(wanted, declared)
        curve = parse_numbers(ratio_curve, "--ratio-curve") if ratio_curve else ()
        sizes = parse_subjects(train_subjects, draws)
        if tables_only and largest_component:
            raise ConfigError(
                "--tables-only keeps the rules of the experiment",
                found="--largest-component",
                next_step="leave --tables-only out: trainings are found again",
            )
        if tables_only:
            connect()
            _report(uri, spread, anew=True)
            return
        check_out(Store(uri))
        check_arms(chosen, asked, ("augmented", "untrained") if phantom else list(rows))
        if (not data) == (not phantom):
            raise ConfigError("give either --data or --phantom", next_step="--data is what jobs/ingest.py wrote")
        if phantom and (site or participants):
            raise ConfigError("--site and --participants are for --data", next_step="leave them out with --phantom")
        small = phantom or asked.name.startswith("phantom")
        recipes = recipes_of(segmenter, recipe or [], default_recipe(asked, small))
        ratio = ratio or (RATIO if small else BALANCED_RATIO if asked.lesion else FULL_RATIO)
        if asked.lesion and (largest := max(ratio, *curve, 0)) > 1:
            raise ConfigError(
                f"protocol {asked.name} names lesions, so augmented rows take the place of real ones: a share of them",
                found=f"{largest:g}",
                where="--ratio",
                next_step="give 1 at most",
            )
        if not recipes and not (steps or quick or small):
            raise ConfigError(
                "a segmenter without recipes has no number of steps of its own",
                found=segmenter,
                where="--segmenter",
                next_step="give --steps",
            )
        full_steps = FULL_STEPS if small else max((found.steps for found in recipes.values()), default=0)
        if asked.validates_on_test and any(found.best_checkpoint for found in recipes.values()):
            console.print(
                f"protocol {asked.name} validates on its test subjects, whose loss may choose no checkpoint: every "
                "training takes all steps, without best_checkpoint"
            )
        connect()
        settings: dict[str, Any] = {
            "seeds": draws or seeds or (QUICK_SEEDS if quick else FULL_SEEDS),
            "steps": steps or (QUICK_STEPS if quick else full_steps),
        }
        if phantom:
            study = _study(asked, quick, max(ratio, *curve) if curve else ratio)
            say_invented(study.cohort)
            extras = {arm.extra for arm in chosen}
            built = build(study, asked, f"{uri}/phantom", extras, stage, console.print, actors=spread)
        else:
            built = Built(_gathered(data or [], uri, participants, column, spread), rows)
        experiment = Experiment(
            asked,
            built.data,
            uri,
            recipes,
            built.rows.get("augmented", ()),
            built.rows.get("untrained", ()),
            tuple(arm.name for arm in chosen),
            ratio=ratio,
            curve=curve,
            segmenter=segmenter,
            checkpoints=(*(checkpoint or ()), *built.labellers),
            declared=declared,
            train_subjects=sizes,
            fresh_draws=draws is not None,
            nets=nets,
            **settings,
        )
        if until_half_width is None:
            done = run(experiment, stage, actors=spread)
        else:
            done = run_until(experiment, until_half_width, stage, console.print, actors=spread)
        _print_done(done)
        _report(uri, spread, anew=False)
        _add_elapsed(Store(uri), time.monotonic() - started)


def parse_subjects(text: str | None, draws: int | None) -> tuple[int, ...]:
    """Numbers of training patients, `all` as `EVERYONE`.

    >>> parse_subjects("5,10,all", None)
    (5, 10, 0)

    Raises:
        ConfigError: what is no number of patients, or draws of all patients, which are always the same.
    """
    parts = [part.strip() for part in (text or "all").split(",")]
    if not all(part == "all" or (part.isdecimal() and int(part) > 0) for part in parts):
        raise ConfigError(
            "give numbers of patients, or all",
            found=text,
            where="--train-subjects",
            next_step="for example 5,10,20,all",
        )
    sizes = tuple(EVERYONE if part == "all" else int(part) for part in parts)
    if draws is not None and set(sizes) == {EVERYONE}:
        raise ConfigError(
            "a fresh draw takes some of the training patients, not all of them",
            where="--draws",
            next_step="give --train-subjects, for example 10, or --seeds instead",
        )
    return sizes


def _gathered(data: list[str], out: str, participants: Path | None, column: str, actors: Actors) -> str:
    """The one data set, or a copy of several, or of one with the sites of a table."""
    if len(data) == 1 and participants is None:
        return data[0]
    sites = {} if participants is None else sites_of(data, participants, column)
    with stage("real rows") as progress:
        return join(data, f"{out}/data", sites, actors=replace(actors, num_gpus=0), progress=progress)


def default_recipe(asked: Protocol, small: bool) -> str:
    """The U-Net's recipe by name: of phantoms a small one."""
    return (SMALL if small else FULL)["brain" if _of_lesions(asked) else "breast"]


def _of_lesions(asked: Protocol) -> bool:
    """True for protocols of brain lesions, whose phantom and recipes are others than the breast's."""
    return asked.key == "none" or bool(asked.lesion)


def recipes_of(segmenter: str, given: list[str], default: str) -> dict[str, Recipe]:
    """Recipes by role; a U-Net has a default."""
    cls = SEGMENTERS.find(segmenter, "--segmenter")
    if segmenter == "unet" and not given:
        given = [f"unet={default}"]
    found = {role: read_recipe(path) for role, path in parse_assignments(",".join(given), "--recipe").items()}
    need_roles(cls, found)
    return found


def _study(asked: Protocol, quick: bool, ratio: float) -> Study:
    """The phantom of a protocol."""
    study = replace(BRAINS if _of_lesions(asked) else BREASTS, ratio=ratio)
    if not quick:
        return study
    cohort = study.cohort.model_copy(update={"subjects": QUICK_SUBJECTS})
    return replace(study, cohort=cohort, generator_steps=QUICK_GENERATOR_STEPS, labeller_steps=QUICK_LABELLER_STEPS)


def _print_done(done: Done) -> None:
    for train, lineage in done.lineage.items():
        console.print(
            f"{train}: no test subject among {lineage.subjects} subjects, {lineage.donors} donors and the training "
            f"subjects of {lineage.models} models of {lineage.rows} rows ({lineage.synthetic} synthetic)"
        )
    console.print(f"trainings made {done.trainings.made}, finished before {done.trainings.skipped}")


def _add_elapsed(store: Store, seconds: float) -> None:
    """Sum the time of all runs that made what lies in the folder."""
    before = store.read_mapping(ELAPSED, seconds=(int, float))["seconds"] if store.exists(ELAPSED) else 0
    before = before if 0 <= before < MOST_SECONDS else 0  # damaged: the tables tell the time, and nothing rests on it
    store.write_json(ELAPSED, {"seconds": round(before + seconds)})


def _report(uri: str, actors: Actors, *, anew: bool) -> None:
    """Measure, compare, and write tables and plots."""
    with stage("measure") as progress:
        scores = measure(uri, actors=replace(actors, num_gpus=0), progress=progress, anew=anew)
    with stage("tables"):
        plan = Plan.read(uri)
        results = write_tables(plan, scores, uri)
        pictures = write_plots(plan, scores, results, primary(plan), uri)
    tell(results=Store(uri).path(RESULTS), tables=Store(uri).path(TABLES), pictures=pictures)
    metric, name = primary(plan)
    told = [g for g in results["comparisons"] if (g["metric"], g["class"]) == (metric, name)]
    rows = [
        [g["cell"], g["arm"], g["against"], *(g["difference"][key] for key in ("estimate", "low", "high")), g["p_holm"]]
        for g in told
    ]
    for arm, baseline in without_effect(scores):
        console.print(
            f"warning: the arm {arm} scored as {baseline} did, for every patient and to the last digit: the segmenter "
            "does not obey what sets the arm apart, or finds nothing in either"
        )
    table(f"gain in {name} {metric}", ["cell", "arm", "against", "gain", "95 % from", "to", "p (Holm)"], rows)
    console.print("\n".join([f"tables: {Store(uri).path(TABLES)}", *(f"plot: {picture}" for picture in pictures)]))
