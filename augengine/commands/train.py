"""The flags of training: a recipe and shards in, a checkpoint out."""

from __future__ import annotations

from typing import Annotated

import typer

from augengine.pipeline.cluster import connect, output_uri, user_errors
from augengine.report.console import console, stage
from augengine.train.config import read_recipe
from augengine.train.run import train


def train_command(
    recipe: Annotated[str, typer.Argument(help="Training recipe; jobs/recipes/ holds examples.")],
    data: Annotated[str, typer.Option(help="Ingested data set or folder of shards (path or URI).")],
    out: Annotated[str | None, typer.Option(help="Run folder (path or URI).")] = None,
    workers: Annotated[int, typer.Option(help="Ray Train workers; they share the batch.")] = 1,
    gpu: Annotated[bool | None, typer.Option("--gpu/--cpu", help="Default: GPUs if the cluster has them.")] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads of a worker; default: cores / workers.")] = None,
) -> None:
    """Train a model; running the same command again goes on from the last checkpoint."""
    with user_errors():
        asked = read_recipe(recipe)
        uri = output_uri(out, asked.name)
        connect()
        with stage("train"):
            checkpoint = train(
                asked, data, uri, num_workers=workers, use_gpu=gpu, threads_per_worker=threads, progress=console.print
            )
        console.print(f"checkpoint: {checkpoint}")
