"""The `augengine` command: every job as a subcommand, each imported when it is called."""

from __future__ import annotations

from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from augengine import __version__
from augengine.commands.program import command_of, run_program

# Name: module and function, and the first line of that function's help, so that the list of all imports none of them.
COMMANDS = {
    "phantom": (
        "phantom:phantom_command",
        "Write a phantom cohort: breast or brain, with masks and (for checks) exact counterfactual truths.",
    ),
    "ingest": (
        "ingest:ingest_command",
        "Ingest a data set; running the same command again does what is missing.",
    ),
    "train": (
        "train:train_command",
        "Train a model; running the same command again goes on from the last checkpoint.",
    ),
    "plan": (
        "plan:plan_command",
        "Rows, skips by reason, time, GPU-hours and disk of a run that is not yet made.",
    ),
    "augment": (
        "augment:augment_duke",
        "Augment Duke-Breast-Cancer-MRI, any other breast MRI, or (without --data) the embedded phantom.",
    ),
    "sweep": (
        "sweep:sweep_command",
        "Run a policy under every combination of some settings and measure the runs; the same command goes on.",
    ),
    "measure": (
        "measure:measure_command",
        "Realism, similarity, removal, labels and predicted acquisition of runs, with 95 % intervals over patients.",
    ),
    "lesions": (
        "lesions:lesions_command",
        "How bright and large the lesions of each site are, before any training; and a bank of the training lesions.",
    ),
    "evaluate": (
        "evaluate:evaluate",
        "Does augmentation help on the scanner without labels? Arms, domains and seeds, told by patient.",
    ),
    "advise": (
        "advise:advise_command",
        "Are augmented rows worth it on these data, and how many? Short trainings, told by validation patients.",
    ),
    "ensembles": (
        "ensembles:ensembles",
        "How many samples of ldm_seg are enough: quality of ensembles of several sizes, and the plateau.",
    ),
    "export": (
        "export:export_command",
        "Write shards for another trainer; augmented rows are for training alone. The same command again goes on.",
    ),
    "report": (
        "report:report_command",
        "Show runs in one file: counts, reasons, gates, scans, labels, figures, images; no network needed.",
    ),
    "explain": (
        "explain:explain_command",
        "Where a row came from: source, policy, plan, models, gates, donors; and how it looks beside its source.",
    ),
    "replay": (
        "replay:replay_command",
        "Make one row again from source, plan, policy and models, and compare it with the stored one.",
    ),
    "calibrate": (
        "calibrate:calibrate_command",
        "Report false rejects, recall of planted defects and proposed bounds of a policy's gates.",
    ),
    "check": (
        "check:check_command",
        "Validate policies, recipes, protocols, data sets and plug-ins; stops at the first mistake.",
    ),
    "doctor": (
        "doctor:doctor_command",
        "What there is of Python, CPUs, GPUs, memory and disk, and whether a job's actors fit; exit code 2 if not.",
    ),
    "ls": (
        "ls:ls_command",
        "Print the files of a finished data set (nothing else in it is data), or by --outcome a run's ids and reasons.",
    ),
    "schema": (
        "schema:schema_command",
        "Print the JSON Schema of policies, recipes or protocols, by which an editor completes and checks them.",
    ),
    "pseudo-label": (
        "pseudo_label:pseudo_label_command",
        "Label every row by a segmenter, with its confidence; running the same command again does what is missing.",
    ),
}


class LazyGroup(TyperGroup):
    """Knows its commands by name and summary; imports the one that is called."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.commands = {name: TyperCommand(name, help=summary) for name, (_, summary) in COMMANDS.items()}

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that the first word names, with all its flags, and the words that are left."""
        name, found, rest = super().resolve_command(ctx, args)
        return name, found if name is None else loaded(name), rest


def loaded(name: str) -> Any:
    """A command with its flags."""
    module, function = COMMANDS[name][0].split(":")
    return command_of(getattr(import_module(f"augengine.commands.{module}"), function), name)


app = typer.Typer(cls=LazyGroup, no_args_is_help=True, add_completion=False)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"augengine {__version__}")
        raise typer.Exit


@app.callback()
def main_help(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Ray-distributed generative data augmentation for medical image segmentation."""


def main() -> None:
    """Entry point."""
    run_program(app)
