"""The flags of `augengine sweep`: one policy under several settings in; a run of each, measured side by side, out."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

import typer

from augengine.commands.augment import exit_codes
from augengine.commands.flags import CHECKPOINT_HELP, parse_checkpoints
from augengine.commands.measure import lesion_names, parse_features, present
from augengine.errors import ConfigError
from augengine.gates.base import LESION
from augengine.io.store import Store
from augengine.load import load_mixture
from augengine.metrics.extractors import EXTRACTORS
from augengine.pipeline.augment import augment, check_inputs
from augengine.pipeline.cluster import connect, output_uri
from augengine.pipeline.units import Actors
from augengine.report.console import stage
from augengine.report.measured import Asked, check_judges, measure_runs

VARY_HELP = "key=A,B,... of the policy; 'key=A,B; other=C,D' go together; given again, all are combined."


def sweep_command(
    policy: Annotated[str, typer.Argument(help="Policy file.")],
    data: Annotated[str, typer.Argument(help="Ingested data set, which the runs are measured beside.")],
    vary: Annotated[list[str], typer.Option(help=VARY_HELP)],
    checkpoint: Annotated[str | None, typer.Option(help=f"{CHECKPOINT_HELP}; default: the policy's refs.")] = None,
    out: Annotated[str | None, typer.Option(help="Output folder: a run per setting, and the table.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="key.of.policy=value of every setting.")] = None,
    split: Annotated[str, typer.Option(help="Split of the real rows that sets are compared with.")] = "test",
    extractor: Annotated[list[str] | None, typer.Option(help=f"As of measure: {', '.join(EXTRACTORS)}.")] = None,
    referee: Annotated[str | None, typer.Option(help="Segmenter's checkpoint: GenDice, TumorResidual.")] = None,
    predictor: Annotated[str | None, typer.Option(help="Acquisition predictor's checkpoint.")] = None,
    lesion: Annotated[str, typer.Option(help="Labels that make a lesion.")] = ",".join(LESION),
    actors: Annotated[int, typer.Option(min=1, help="Actors that augment and measure.")] = 2,
    gpus_per_actor: Annotated[float, typer.Option(min=0, help="GPUs of an actor.")] = 0,
    inline: Annotated[bool, typer.Option("--inline", help="Work in this process, without Ray.")] = False,
    keep_going: Annotated[
        bool, typer.Option("--keep-going", help="Make all rows, even of settings that the first units show to fail.")
    ] = False,
) -> None:
    """Run a policy under every combination of some settings and measure the runs; the same command goes on."""
    with exit_codes():
        uri, spread = output_uri(out, "sweep"), Actors(actors, num_gpus=gpus_per_actor, inline=inline)
        settings = combinations(vary)
        mixtures = {name: load_mixture(policy, [*(set_ or ()), *changes]) for name, changes in settings.items()}
        asked = Asked(
            split=split,
            extractors=tuple(parse_features(text) for text in extractor or ["radiomics"]),
            lesion=lesion_names(lesion),
            referee=referee,
            predictor=predictor,
        )
        models, shortcomings = parse_checkpoints(checkpoint), list[str]()
        check_judges(asked)
        for mixture in mixtures.values():
            check_inputs(mixture, Store(data), models)
        if not inline:
            connect()
        for name, mixture in mixtures.items():
            with stage(f"augment, {name}") as report:
                made = augment(
                    mixture, data, f"{uri}/{name}", models, actors=spread, progress=report, keep_going=keep_going
                )
            shortcomings += [f"{name}: {made.shortcoming}"] if made.shortcoming else []
        runs = {name: f"{uri}/{name}" for name in settings}
        with stage("measure") as report:
            figures, notes = measure_runs(data, runs, asked, actors=spread, report=report)
        about = {"data": data, "runs": runs, **asdict(asked), "settings": settings}
        present(figures, [*shortcomings, *notes], about, list(runs), uri)


def combinations(vary: Sequence[str]) -> dict[str, list[str]]:
    """Name of every setting to its overrides.

    >>> combinations(["sampler.steps=25,50; sampler.strength=0.1,0.2", "sampler.guidance=3"])["steps=50,strength=0.2,guidance=3"]
    ['sampler.steps=50', 'sampler.strength=0.2', 'sampler.guidance=3']
    """  # noqa: E501
    groups: list[list[list[str]]] = []
    for text in vary:
        keys = [part.strip().partition("=") for part in text.split(";")]
        values = [found.split(",") for _, _, found in keys]
        if not all(sign and found for _, sign, found in keys) or len({len(found) for found in values}) != 1:
            raise ConfigError(
                "give key=A,B,..., and as many values of every key that goes with it",
                found=text,
                where="--vary",
                next_step="for example 'sampler.steps=25,50; sampler.strength=0.025,0.05'",
            )
        groups.append(
            [
                [f"{key}={v.strip()}" for (key, _, _), v in zip(keys, row, strict=True)]
                for row in zip(*values, strict=True)
            ]
        )
    found: dict[str, list[str]] = {}
    for chosen in itertools.product(*groups):
        changes = [change for group in chosen for change in group]
        name = ",".join(f"{key.rpartition('.')[2]}={value}" for key, _, value in (c.partition("=") for c in changes))
        found[re.sub(r"[^\w=,.+-]", "_", name)] = changes
    return found
