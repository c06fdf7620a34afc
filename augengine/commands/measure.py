"""The flags of `augengine measure`: real rows and runs made from them in; a table of measures with intervals out."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Any

import typer

from augengine.commands.flags import each_once
from augengine.errors import ConfigError
from augengine.gates.base import LESION
from augengine.io.store import Store
from augengine.metrics.extractors import EXTRACTORS
from augengine.pipeline.cluster import connect, output_uri, user_errors
from augengine.pipeline.units import Actors
from augengine.report.console import console, stage, table
from augengine.report.measured import Asked, Features, Figure, check_judges, measure_runs
from augengine.report.measured_files import rows_of, write_measured
from augengine.splits import SPLITS
from augengine.told import tell
from augengine.yaml_config import unknown_name

_EXTRACTOR = re.compile(r"(?P<kind>\w+)(=(?P<path>.+?)(@(?P<sha256>[0-9a-fA-F]{8,64}))?)?")


def measure_command(
    data: Annotated[str, typer.Argument(help="Real rows: the ingested data set that the runs were made from.")],
    runs: Annotated[list[str], typer.Argument(help="Runs of augment (or other rows): FOLDER or NAME=FOLDER.")],
    out: Annotated[str | None, typer.Option(help="Folder for table, JSON and plot.")] = None,
    split: Annotated[str, typer.Option(help="Split of the real rows that sets are compared with.")] = "test",
    run_split: Annotated[str | None, typer.Option(help="Split of the runs' rows; default: all of them.")] = None,
    extractor: Annotated[
        list[str] | None, typer.Option(help=f"KIND or KIND=WEIGHTS[@SHA256] of {', '.join(EXTRACTORS)}.")
    ] = None,
    referee: Annotated[str | None, typer.Option(help="Segmenter's checkpoint: GenDice, TumorResidual.")] = None,
    predictor: Annotated[str | None, typer.Option(help="Acquisition predictor's checkpoint.")] = None,
    generator: Annotated[
        list[str] | None, typer.Option(help="Checkpoint that made a run; the predictor must not know its subjects.")
    ] = None,
    lesion: Annotated[str, typer.Option(help="Labels that make a lesion.")] = ",".join(LESION),
    threshold: Annotated[
        float | None, typer.Option(min=0, help="Of DiffMap IoU; default: the best on the run's rows of split val.")
    ] = None,
    actors: Annotated[int, typer.Option(min=1, help="Parallel readers.")] = 2,
    gpus_per_actor: Annotated[float, typer.Option(min=0, help="GPUs of an actor.")] = 0,
    inline: Annotated[bool, typer.Option("--inline", help="Work in this process, without Ray.")] = False,
) -> None:
    """Realism, similarity, removal, labels and predicted acquisition of runs, with 95 % intervals over patients."""
    with user_errors():
        named = _named(runs)
        each_once(list(named.values()), "RUNS")
        for name in filter(None, (split, run_split)):
            if name not in SPLITS:
                raise unknown_name("split", name, list(SPLITS), None)
        asked = Asked(
            split=split,
            run_split=run_split,
            extractors=tuple(map(parse_features, extractor or ["radiomics"])),
            lesion=lesion_names(lesion),
            referee=referee,
            predictor=predictor,
            generators=tuple(generator or ()),
            threshold=threshold,
        )
        uri = output_uri(out, "measure")
        check_judges(asked)
        if not inline:
            connect()
        with stage("measure") as report:
            figures, notes = measure_runs(
                data, named, asked, actors=Actors(actors, num_gpus=gpus_per_actor, inline=inline), report=report
            )
        present(figures, notes, {"data": data, "runs": named, **asdict(asked)}, list(named), uri)


def present(
    figures: Sequence[Figure], notes: Sequence[str], about: Mapping[str, Any], names: Sequence[str], uri: str
) -> None:
    """Print the table and write it, the figures and the plot; `about` is what was asked for."""
    if about["predictor"] and not about["generators"]:
        notes = [*notes, "whether the predictor is independent of the generators was not checked: give --generator"]
    title = f"measures beside {about['data']}, split {about['split']}"
    table(title, ["measure", "rests on", *names], rows_of(figures, names))
    for note in notes:
        console.print(note)
    paths = write_measured(figures, notes, about, names, Store(uri))
    console.print("\n".join(paths))
    tell(figures=figures, notes=notes, files=paths)


def lesion_names(text: str) -> tuple[str, ...]:
    """Comma-separated labels."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _named(runs: list[str]) -> dict[str, str]:
    """Name to folder; a folder `augmented` is named after the one that it stands in."""
    found: dict[str, str] = {}
    for text in runs:
        name, equals, folder = text.partition("=")
        if not equals:
            folder, parts = text, [part for part in text.rstrip("/").split("/") if part != "augmented"]
            name = parts[-1] if parts else text
        if name in found or not (name and folder):
            raise ConfigError("every run has a name of its own", found=text, next_step="give it as NAME=FOLDER")
        found[name] = folder
    return found


def parse_features(text: str) -> Features:
    """An extractor as `--extractor` gives it."""
    found = _EXTRACTOR.fullmatch(text)
    if not found:
        raise ConfigError("an extractor is KIND or KIND=WEIGHTS[@SHA256]", found=text, where="--extractor")
    EXTRACTORS.find(found["kind"], "--extractor")
    return Features(found["kind"], found["path"], found["sha256"])
