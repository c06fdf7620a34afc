"""An output id and its run folder in; whether the row, made again from its provenance, has the same bytes, out."""

from __future__ import annotations

from typing import Annotated

import typer

from augengine.commands.flags import parse_assignments
from augengine.pipeline.cluster import user_errors
from augengine.pipeline.lineage import Run
from augengine.report.console import say
from augengine.told import tell

OutputId = Annotated[str, typer.Argument(help="`sample_id` of an accepted or rejected row.")]
OutFlag = Annotated[str, typer.Option(help="Folder of the augmented run (path or URI).")]
DataFlag = Annotated[str | None, typer.Option(help="Source shards, if they no longer stand where the run read them.")]
ModelsFlag = Annotated[str, typer.Option(help="role=FOLDER,... for checkpoints that were moved.")]
NOT_EQUAL = 1


def replay_command(output_id: OutputId, out: OutFlag, data: DataFlag = None, models: ModelsFlag = "") -> None:
    """Make one row again from source, plan, policy and models, and compare it with the stored one."""
    with user_errors():
        run = Run(out)
        made = run.replay(output_id, data, parse_assignments(models, "--models"))
    tell(
        output_id=output_id,
        equal=made.equal,
        largest_difference=made.largest_difference,
        largest_share=made.largest_share,
        batch=made.batch,
    )
    if made.equal:
        smaller = made.batch < made.full_batch
        say(f"{output_id}: equal, byte for byte" + (f" (padded batch of {made.batch})" if smaller else ""))
        return
    say(
        f"{output_id}: not equal; largest difference {made.largest_difference:.6g} grey levels "
        f"({made.largest_share:.3g} of the source's intensity range)"
    )
    raise typer.Exit(NOT_EQUAL)
