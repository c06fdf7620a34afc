"""The flags of `augengine phantom`: a cohort's description in, a folder in Duke's layout out."""

from __future__ import annotations

from typing import Annotated

import typer

from augengine.commands.flags import checked
from augengine.phantom.cohort import Cohort
from augengine.pipeline.cluster import connect, output_uri, user_errors
from augengine.pipeline.phantom import write_cohort
from augengine.pipeline.units import Actors
from augengine.report.console import console, stage


def phantom_command(
    out: Annotated[str | None, typer.Option(help="Local output folder that all workers see.")] = None,
    subjects: Annotated[int, typer.Option(help="Number of subjects.")] = 50,
    seed: Annotated[int, typer.Option(help="Another seed draws other subjects.")] = 7,
    matrix: Annotated[int, typer.Option(help="In-plane matrix.")] = 128,
    slices: Annotated[int, typer.Option(help="Slices of a volume.")] = 24,
    actors: Annotated[int, typer.Option(help="Parallel writers.")] = 2,
) -> None:
    """Write a breast phantom cohort as Duke-layout DICOM with masks."""
    with user_errors():
        cohort = checked(Cohort, subjects=subjects, seed=seed, matrix=matrix, slices=slices)
        folder = output_uri(out, "phantom")
        connect()
        with stage("phantom, Duke layout") as progress:
            write_cohort(cohort, folder, actors=Actors(actors), progress=progress)
        console.print(f"written to {folder}")
