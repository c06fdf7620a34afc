"""The flags of training: a recipe and shards in, a checkpoint out."""

from __future__ import annotations

from typing import Annotated

import typer

from augengine.commands.flags import each_once, parse_pairs, parse_workers
from augengine.diffusion.checkpoint import read_spec
from augengine.pipeline.cluster import connect, output_uri, user_errors
from augengine.report.console import console, stage, table
from augengine.told import tell
from augengine.train.config import read_recipe, starting_level
from augengine.train.preview import preview
from augengine.train.run import check_files, train
from augengine.train.workers import bounds


def train_command(
    recipe: Annotated[str, typer.Argument(help="Training recipe: a file, or a name of the package's.")],
    data: Annotated[
        list[str], typer.Option(help="Ingested data set, or a run's rows (path or URI); may be given again.")
    ],
    out: Annotated[str | None, typer.Option(help="Run folder (path or URI).")] = None,
    workers: Annotated[str, typer.Option(help="Ray Train workers, which share the batch: N, or LEAST-MOST.")] = "1",
    gpu: Annotated[bool | None, typer.Option("--gpu/--cpu", help="Default: GPUs if the cluster has them.")] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads of a worker; default: cores / workers.")] = None,
    part: Annotated[list[str] | None, typer.Option(help="ROLE=FOLDER of a trained model that this one needs.")] = None,
    init: Annotated[
        str | None, typer.Option(help="Fine-tune: start from the weights of this checkpoint folder.")
    ] = None,
    override: Annotated[list[str] | None, typer.Option("--set", help="key.of.recipe=value, e.g. steps=100.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Size, memory and steps; trains nothing.")] = False,
) -> None:
    """Train a model; running the same command again goes on from the last checkpoint."""
    with user_errors():
        each_once(data, "--data")
        count = parse_workers(workers)
        asked = read_recipe(recipe, override or [])
        parts = parse_pairs(part or (), "--part", "for example --part autoencoder=runs/vae/checkpoint")
        if (level := starting_level(asked)) is not None:
            console.print(f"{asked.name}: {level}")
        if dry_run:
            lines = preview(asked, data, bounds(count)[0], parts)
            table(f"{asked.name}, dry run", ["", ""], lines)
            tell(recipe=asked.name, dry_run={str(name): value for name, value in lines})
            return
        uri = output_uri(out, asked.name)
        check_files(asked, count, parts, init)
        connect()
        with stage("train"):
            checkpoint = train(
                asked,
                data,
                uri,
                parts=parts,
                init=init,
                num_workers=count,
                use_gpu=gpu,
                threads_per_worker=threads,
                progress=console.print,
            )
        console.print(f"checkpoint: {checkpoint}")
        tell(recipe=asked.name, checkpoint=checkpoint, metrics=read_spec(checkpoint).metrics)
