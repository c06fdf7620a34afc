"""The flags of `augengine phantom`: a cohort's description in; a data set in a public layout, or shards, out."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from augengine.commands.flags import checked
from augengine.errors import ConfigError
from augengine.phantom.brain_anatomy import Labels
from augengine.phantom.brain_cohort import BrainCohort
from augengine.phantom.cohort import Cohort
from augengine.pipeline.cluster import connect, output_uri, user_errors
from augengine.pipeline.phantom import shard_cohort, write_cohort
from augengine.pipeline.units import Actors
from augengine.prepare import Preparation
from augengine.report.console import console, stage
from augengine.report.invented import say_invented
from augengine.told import tell

Layout = Literal["duke-classic", "duke-descriptive", "brats2021", "brats2023", "breast-shards", "brain-shards"]


def phantom_command(
    layout: Annotated[Layout, typer.Argument(help="Duke: breast DICOM; BraTS: brain NIfTI; or Parquet shards.")],
    out: Annotated[str | None, typer.Option(help="Output folder; for shards also a URI.")] = None,
    subjects: Annotated[int, typer.Option(help="Number of subjects.")] = 50,
    seed: Annotated[int, typer.Option(help="Another seed draws other subjects.")] = 7,
    matrix: Annotated[int, typer.Option(help="In-plane matrix.")] = 128,
    slices: Annotated[int, typer.Option(help="Slices of a volume.")] = 24,
    labels: Annotated[Labels, typer.Option(help="Of brains: tumour alone, or tissues, too.")] = "lesion",
    volumes: Annotated[bool, typer.Option("--volumes", help="Shards of volumes instead of slices.")] = False,
    actors: Annotated[int, typer.Option(help="Parallel writers.")] = 2,
) -> None:
    """Write a phantom cohort: breast or brain, with masks and (for checks) exact counterfactual truths."""
    with user_errors():
        size = {"subjects": subjects, "seed": seed, "matrix": matrix, "slices": slices}
        brain = layout.startswith("bra")
        if labels == "tissue" and not brain:
            raise ConfigError(
                "only brains have tissue labels of their own",
                found=layout,
                where="--labels",
                next_step="leave it out: breast labels are tissues as they are",
            )
        cohort = checked(BrainCohort, **size, labels=labels) if brain else checked(Cohort, **size)
        folder = output_uri(out, f"phantom-{layout}")
        say_invented(cohort)
        connect()
        with stage(f"phantom, {layout}") as progress:
            if layout == "breast-shards" or layout == "brain-shards":
                shard_cohort(cohort, folder, Preparation(slices=not volumes), actors=Actors(actors), progress=progress)
            else:
                write_cohort(cohort, folder, layout, actors=Actors(actors), progress=progress)
        console.print(f"written to {folder}")
        tell(out=folder)
