"""The flags of `augengine doctor`: a table of what this machine or cluster has, and how many actors it holds."""

from __future__ import annotations

import os
import sys
from importlib.metadata import version
from typing import Annotated

import torch
import typer

from augengine import __version__
from augengine.pipeline.cluster import connect, user_errors
from augengine.pipeline.resources import cluster_nodes, fit, free_bytes, waits_for
from augengine.report.console import console, table
from augengine.told import tell

GIB = 2**30


def doctor_command(
    out: Annotated[str, typer.Option(help="Folder whose disk is looked at.")] = "runs",
    actors: Annotated[int | None, typer.Option(min=1, help="Actors of the job; default: as the cluster holds.")] = None,
    cpus_per_actor: Annotated[float, typer.Option(help="Logical CPUs of an actor.")] = 0.5,
    gpus_per_actor: Annotated[float, typer.Option(help="GPUs of an actor.")] = 0,
) -> None:
    """What there is of Python, CPUs, GPUs, memory and disk, and whether a job's actors fit; exit code 2 if not."""
    with user_errors():
        device = torch.cuda.get_device_name() if torch.cuda.is_available() else "none seen by PyTorch"
        joined = "RAY_ADDRESS" in os.environ
        unset = "not set: no token is sent" if joined else "not set: a token if there is one"
        table(
            "this Python",
            ["", ""],
            [
                ["augengine", __version__],
                ["Python", f"{sys.version.split()[0]}, {sys.executable}"],
                ["PyTorch", torch.__version__],
                ["GPU here", device],
                ["Ray", version("ray")],
                ["RAY_ADDRESS", os.environ.get("RAY_ADDRESS", "not set: Ray starts on this machine")],
                ["RAY_AUTH_MODE", os.environ.get("RAY_AUTH_MODE", unset)],
            ],
        )
        connect()
        nodes = cluster_nodes()
        rows = [
            [n, f"{node.cpus:g}", f"{node.gpus:g}", f"{node.memory_bytes / GIB:.1f}"] for n, node in enumerate(nodes, 1)
        ]
        table("cluster", ["node", "CPUs", "GPUs", "memory, GiB"], rows)
        free = free_bytes(out)
        console.print(f"disk of {out}: " + ("an object store" if free is None else f"{free / GIB:.1f} GiB free"))
        tell(
            nodes=nodes,
            free_bytes=free,
            versions={
                "augengine": __version__,
                "torch": torch.__version__,
                "ray": version("ray"),
                "python": sys.version.split()[0],
            },
            gpu=device,
        )
        found = fit(actors, cpus_per_actor, gpus_per_actor, nodes)
        console.print(f"actors of {cpus_per_actor:g} CPU and {gpus_per_actor:g} GPU: {found}")
        tell(actors=found)
        if waits := waits_for(found, cpus_per_actor, gpus_per_actor):
            console.print(f"they would wait for what other jobs hold: {waits}")
