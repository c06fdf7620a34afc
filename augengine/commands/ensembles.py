"""The flags of `jobs/ensembles.py`: a finished evaluation in; its quality by the number of samples out."""

from __future__ import annotations

from typing import Annotated

import typer

from augengine.commands.flags import parse_numbers
from augengine.downstream.ensemble_tables import FIGURES, PLOT, TABLE, write_by_size
from augengine.downstream.ensembles import by_size, check_sizes, sampled
from augengine.downstream.tables import heading, main_metric
from augengine.errors import ConfigError
from augengine.io.store import Store
from augengine.pipeline.cluster import connect, output_uri, user_errors
from augengine.pipeline.units import Actors
from augengine.report.console import console, stage, table
from augengine.told import tell

SAMPLES, TOLERANCE = "1,2,5,10,20,30,40", 0.005


def ensembles(
    evaluated: Annotated[str, typer.Argument(help="Folder of a finished evaluation of the segmenter ldm_seg.")],
    data: Annotated[str, typer.Option(help="The real rows that it was made on.")],
    samples: Annotated[str, typer.Option(help="Sizes of the ensembles.")] = SAMPLES,
    tolerance: Annotated[float, typer.Option(min=0, help="Gain in the main metric that counts as none.")] = TOLERANCE,
    actors: Annotated[int | None, typer.Option(min=1, help="Predictions at a time; default: as held.")] = None,
    cpus_per_actor: Annotated[float, typer.Option(help="Logical CPUs of an actor.")] = 0.5,
    gpus_per_actor: Annotated[float, typer.Option(help="GPUs of an actor.")] = 0,
) -> None:
    """How many samples of ldm_seg are enough: quality of ensembles of several sizes, and the plateau."""
    with user_errors():
        sizes = check_sizes([_whole(number) for number in parse_numbers(samples, "--samples")])
        uri = output_uri(evaluated, "evaluate")
        plan = sampled(uri)
        connect()
        spread = Actors(actors, cpus_per_actor, gpus_per_actor)
        with stage("predict") as progress:
            figures = by_size(uri, data, sizes, actors=spread, progress=progress)
        found, main = write_by_size(figures, plan.protocol, tolerance, uri), main_metric(plan.protocol)
        rows = [[f.cell, f.samples, str(f.value), str(f.to_largest)] for f in figures if (f.metric, f.of) == main]
        table("quality by samples", ["cell", "samples", heading(main), "largest less this"], rows)
        tell(enough=found, files=[Store(uri).path(name) for name in (TABLE, FIGURES, PLOT)])
        for cell, n in found.items():
            console.print(f"{cell}: from an ensemble of {n} on, the largest is better by less than {tolerance:g}")
        console.print("\n".join(Store(uri).path(name) for name in (TABLE, FIGURES, PLOT)))


def _whole(number: float) -> int:
    if number != int(number):
        raise ConfigError("a number of samples is a whole number", found=f"{number:g}", where="--samples")
    return int(number)
