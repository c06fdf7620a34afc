"""The flags of `augengine pseudo-label`: shards and a trained segmenter in; the same rows with its labels out."""

from __future__ import annotations

from typing import Annotated

import typer

from augengine.diffusion.checkpoint import read_spec
from augengine.pipeline.cluster import connect, output_uri, user_errors
from augengine.pipeline.pseudo_labels import check_labeller, pseudo_label
from augengine.pipeline.units import Actors
from augengine.report.console import console, stage
from augengine.told import tell


def pseudo_label_command(
    data: Annotated[str, typer.Argument(help="Ingested data set or folder of shards; its own labels are not read.")],
    segmenter: Annotated[str, typer.Option(help="Checkpoint of kind segmenter, of regions of one label each.")],
    out: Annotated[str | None, typer.Option(help="Output folder: a path or any fsspec URI.")] = None,
    actors: Annotated[int, typer.Option(min=1, help="Parallel labellers.")] = 2,
    gpus_per_actor: Annotated[float, typer.Option(min=0, help="GPUs of an actor.")] = 0,
    inline: Annotated[bool, typer.Option("--inline", help="Work in this process, without Ray.")] = False,
) -> None:
    """Label every row by a segmenter, with its confidence; running the same command again does what is missing."""
    with user_errors():
        uri = output_uri(out, "pseudo-labels")
        check_labeller(read_spec(segmenter), segmenter)
        if not inline:
            connect()
        spread = Actors(actors, num_gpus=gpus_per_actor, inline=inline)
        with stage("pseudo-label") as report:
            found = pseudo_label(data, segmenter, uri, actors=spread, progress=report)
        console.print(f"data set: {found}")
        tell(data=found)
