"""The flags of `augengine advise`: real and augmented shards in; whether the latter are worth it, and how many, out."""

from __future__ import annotations

from typing import Annotated

import typer

from augengine.commands.evaluate import (
    ActorsFlag,
    CheckpointFlag,
    CpusFlag,
    GpusFlag,
    OutFlag,
    RecipeFlag,
    SegmenterFlag,
    default_recipe,
    recipes_of,
)
from augengine.commands.flags import each_once, parse_numbers
from augengine.downstream.checks import check_out
from augengine.downstream.experiment import Experiment
from augengine.downstream.pilot import FIRST_LOOK, PLOT, RESULT, check_patients, experiment_of, pilot
from augengine.downstream.pilot_protocol import pilot_of, protocol_of
from augengine.downstream.protocols import protocol
from augengine.errors import ConfigError
from augengine.io.dataset import dataset_files
from augengine.io.store import Store
from augengine.pipeline.cluster import connect, output_uri, user_errors
from augengine.pipeline.units import Actors
from augengine.report.console import console, stage
from augengine.told import tell

RATIOS, SEEDS, STEPS, LEAST = "0.25,0.5,1", 5, 400, 0.01
ARM = "classical+counterfactual"
"""Rows of the given folders beside what nnU-Net would do anyway: whoever trains without it has an easier first step."""


def advise_command(
    data: Annotated[str, typer.Argument(help="Ingested real shards, splits train and val.")],
    augmented: Annotated[list[str], typer.Argument(help="Runs whose augmented rows are weighed, all together.")],
    by: Annotated[
        str, typer.Option(help="What makes a domain: none, manufacturer, site, or another column of texts.")
    ] = "none",
    lesion: Annotated[
        str | None, typer.Option(help="Labels of a lesion: augmented rows then take the place of real ones.")
    ] = None,
    protocol_name: Annotated[
        str | None, typer.Option("--protocol", help="Domains and classes of a protocol, instead of --by.")
    ] = None,
    ratios: Annotated[str, typer.Option(help="Augmented rows per real row; of lesions a share, at most 1.")] = RATIOS,
    least_gain: Annotated[float, typer.Option(min=0, help="Dice that makes it worth it.")] = LEAST,
    seeds: Annotated[int, typer.Option(min=FIRST_LOOK, help="Trainings per ratio, at the most.")] = SEEDS,
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps of each.")] = STEPS,
    segmenter: SegmenterFlag = "unet",
    recipe: RecipeFlag = None,
    checkpoint: CheckpointFlag = None,
    out: OutFlag = None,
    actors: ActorsFlag = None,
    cpus_per_actor: CpusFlag = 0.5,
    gpus_per_actor: GpusFlag = 0,
) -> None:
    """Are augmented rows worth it on these data, and how many? Short trainings, told by validation patients.

    Classical augmentation alone is compared with several ratios of augmented rows beside it, seed after seed, until the
    intervals decide: use a ratio, not worth it, or undecided. Test patients stay untouched. The trainings are short, so
    confirm a ratio by `augengine evaluate`.

    Example: augengine advise runs/data runs/augmented --by manufacturer --out runs/advice
    """
    with user_errors():
        each_once([data, *augmented], "DATA AUGMENTED")
        uri, spread = output_uri(out, "advise"), Actors(actors, cpus_per_actor, gpus_per_actor)
        names = tuple(name.strip() for name in lesion.split(",") if name.strip()) if lesion else ()
        if protocol_name and (by != "none" or names):
            raise ConfigError(
                "a protocol says what --by and --lesion say",
                found=f"--protocol {protocol_name}",
                next_step="leave one of them out",
            )
        asked = pilot_of(protocol(protocol_name)) if protocol_name else protocol_of(data, by, names)
        shares = tuple(dict.fromkeys(parse_numbers(ratios, "--ratios")))
        for folder in augmented:
            dataset_files(Store(folder))  # told before Ray starts
        if min(shares) <= 0 or (asked.lesion and max(shares) > 1):
            raise ConfigError(
                "ratios are above 0, and where rows take the place of real ones, at most 1",
                found=ratios,
                where="--ratios",
                next_step="for example 0.25,0.5,1",
            )
        recipes = recipes_of(segmenter, recipe or [], default_recipe(asked, small=True))
        experiment = experiment_of(
            Experiment(
                asked,
                data,
                uri,
                recipes,
                tuple(augmented),
                seeds=seeds,
                steps=steps,
                segmenter=segmenter,
                checkpoints=tuple(checkpoint or ()),
            ),
            ARM,
            shares,
        )
        check_out(Store(uri))
        check_patients(experiment)
        connect()
        found = pilot(experiment, least_gain, stage, console.print, actors=spread)
        if left_out := [ratio for ratio in sorted(shares) if ratio not in {option.ratio for option in found.options}]:
            console.print(f"ratios {', '.join(f'{r:g}' for r in left_out)} were left out: there are too few rows")
        tell(**found.to_dict(), files=[Store(uri).path(name) for name in (RESULT, PLOT)])
        console.print(str(found))
        console.print("\n".join(Store(uri).path(name) for name in (RESULT, PLOT)))
