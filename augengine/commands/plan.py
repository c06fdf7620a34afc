"""A policy and shards in; what a run would select, skip, make, take and weigh out. No GPU, no weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from augengine.commands.flags import CHECKPOINT_HELP, SiteColumnFlag, column_of, each_once, parse_checkpoints
from augengine.io.subject_sites import sites_of
from augengine.load import Mixture, load_mixture
from augengine.pipeline.cluster import user_errors
from augengine.pipeline.forecast import ROWS_DRAWN, Forecast, forecast
from augengine.pipeline.site_rows import SiteRows, rows_by_site
from augengine.pipeline.units import Actors
from augengine.report.console import console, table
from augengine.told import tell


def plan_command(
    policy: Annotated[str, typer.Argument(help="Policy or mix: a file, or a name of the package's.")],
    data: Annotated[list[str], typer.Argument(help="Ingested data sets or folders of shards; a table for each.")],
    checkpoint: Annotated[str | None, typer.Option(help=f"{CHECKPOINT_HELP}; default: the policy's refs.")] = None,
    site: Annotated[list[str] | None, typer.Option(help="Also count rows of these sites: --site A --site B.")] = None,
    participants: Annotated[
        Path | None, typer.Option(help="Table of participants that names the subjects' sites; all are counted.")
    ] = None,
    site_column: SiteColumnFlag = None,
    run: Annotated[str | None, typer.Option(help="Finished run whose measured speed and row size are used.")] = None,
    rows_per_second: Annotated[float | None, typer.Option(min=1e-9, help="Speed of one actor, if known.")] = None,
    actors: Annotated[int, typer.Option(min=1, help="Actors of the run.")] = 2,
    gpus_per_actor: Annotated[float, typer.Option(min=0, help="GPUs of an actor.")] = 0,
    rows_drawn: Annotated[int, typer.Option(min=1, help="Rows whose plan is drawn, to count skips.")] = ROWS_DRAWN,
) -> None:
    """Rows, skips by reason, time, GPU-hours and disk of a run that is not yet made."""
    with user_errors():
        each_once(data, "DATA")
        column = column_of(site_column, participants)
        mixture = load_mixture(policy)
        spread, models = Actors(actors, num_gpus=gpus_per_actor), parse_checkpoints(checkpoint)
        stated = None if participants is None else sites_of(data, participants, column)
        plans, told = {}, {}
        for place in data:
            found = plans[place] = forecast(
                mixture, place, models, actors=spread, rows_per_second=rows_per_second, run=run, rows_drawn=rows_drawn
            )
            of = f" on {place}" if len(data) > 1 else ""
            asked = site or participants
            sites = rows_by_site(place, mixture, site or (), stated) if asked else {}
            table(f"plan of {mixture.name}{of}", ["", ""], _lines(found, mixture, sites))
            told[place] = {
                "rows": found.surveyed.rows,
                "selected": found.surveyed.selected,
                "left_out": found.surveyed.left_out,
                "requested": found.requested,
                "idle": found.idle,
                "drawn": found.drawn,
                "skipped": found.skipped,
                "outputs": found.outputs,
                "seconds": found.seconds,
                "gpu_hours": found.gpu_hours,
                "disk_bytes": found.disk_bytes,
            }
        tell(policy=mixture.name, digest=mixture.digest, plans=told)
        if len(plans) > 1:
            outputs, size = (sum(getattr(p, name) for p in plans.values()) for name in ("outputs", "disk_bytes"))
            console.print(f"together: {outputs} outputs expected, {size / 2**20:.1f} MiB, in one run for each")
        if not found.drawn:
            console.print("rows that the edit skips: not counted, give --checkpoint")
        if found.seconds is None:
            console.print("time: unknown, give --run (a finished run) or --rows-per-second")


def _lines(found: Forecast, mixture: Mixture, sites: Mapping[str, SiteRows]) -> list[tuple[str, object]]:
    hours = "" if found.gpu_hours is None else f"{found.gpu_hours:.3g}"
    return [
        ("rows in the data", found.surveyed.rows),
        ("selected", found.surveyed.selected),
        *((f"left out: {reason}", count) for reason, count in sorted(found.surveyed.left_out.items())),
        (f"requested ({mixture.per_input} per input)", found.requested),
        *(
            (f"requested at {site}", f"{of.selected * mixture.per_input}, of {of.selected} of {of.rows} rows")
            for site, of in sites.items()
        ),
        *((f"requested of {m.name}", found.surveyed.requested(m.name)) for m in mixture.members if mixture.mix),
        *((f"policy {name} takes no row", reason) for name, reason in found.idle.items()),
        *((f"skipped: {reason}", f"{n} of {found.drawn} drawn") for reason, n in sorted(found.skipped.items())),
        ("outputs expected", found.outputs),
        ("seconds", "" if found.seconds is None else f"{found.seconds:.0f}"),
        ("GPU-hours", hours),
        ("disk, MiB", f"{found.disk_bytes / 2**20:.1f}"),
    ]
