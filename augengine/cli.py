"""The `augengine` command: every job as a subcommand."""

from __future__ import annotations

import typer

from augengine.commands.augment import augment_duke
from augengine.commands.calibrate import calibrate_command
from augengine.commands.check import check_command
from augengine.commands.doctor import doctor_command
from augengine.commands.explain import explain_command
from augengine.commands.export import export_command
from augengine.commands.ingest import ingest_command
from augengine.commands.ls import ls_command
from augengine.commands.measure import measure_command
from augengine.commands.phantom import phantom_command
from augengine.commands.plan import plan_command
from augengine.commands.pseudo_label import pseudo_label_command
from augengine.commands.replay import replay_command
from augengine.commands.report import report_command
from augengine.commands.sweep import sweep_command
from augengine.commands.train import train_command

app = typer.Typer(no_args_is_help=True, add_completion=False)
app.command("ingest")(ingest_command)
app.command("phantom")(phantom_command)
app.command("train")(train_command)
app.command("augment")(augment_duke)
app.command("check")(check_command)
app.command("doctor")(doctor_command)
app.command("calibrate")(calibrate_command)
app.command("sweep")(sweep_command)
app.command("ls")(ls_command)
app.command("measure")(measure_command)
app.command("plan")(plan_command)
app.command("pseudo-label")(pseudo_label_command)
app.command("replay")(replay_command)
app.command("explain")(explain_command)
app.command("export")(export_command)
app.command("report")(report_command)


@app.callback()
def main_help() -> None:
    """Ray-distributed generative data augmentation for medical image segmentation."""


def main() -> None:
    """Entry point."""
    app()
