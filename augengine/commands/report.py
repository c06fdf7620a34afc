"""Runs of augment in; one HTML file that shows what they made, rejected and why, out."""

from __future__ import annotations

from typing import Annotated

import typer

from augengine.commands.flags import each_once
from augengine.errors import ConfigError
from augengine.io.store import Store
from augengine.pipeline.cluster import output_uri, user_errors
from augengine.report.console import console
from augengine.told import tell

MOST_ROWS = 500


def report_command(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Folders that augment wrote (paths or URIs).")],
    out: Annotated[str, typer.Option(help="HTML file to write (path or URI).")] = "report.html",
    data: Annotated[
        str | None, typer.Option(help="Source shards, if they no longer stand where the run read them.")
    ] = None,
    rows: Annotated[int, typer.Option(min=0, max=MOST_ROWS, help="Rows of each run whose images are embedded.")] = 12,
    figures: Annotated[
        list[str] | None,
        typer.Option(help="Folder of measure or evaluate; may be given again. Default: beside the runs."),
    ] = None,
    audit_rows: Annotated[
        int, typer.Option(min=0, help="Accepted rows of each run that are compared with all training rows.")
    ] = 0,
    predictor: Annotated[
        str | None, typer.Option(help="Acquisition predictor's checkpoint: what the embedded rows have reached.")
    ] = None,
) -> None:
    """Show runs in one file: counts, reasons, gates, scans, labels, figures, images; no network needed.

    Example: augengine report runs/duke_phantom/augmented --out report.html
    """
    with user_errors():
        each_once(runs, "RUN")
        each_once(figures or (), "--figures")
        folder, _, name = output_uri(out, "report.html").rpartition("/")
        if not name.endswith((".html", ".htm")):
            raise ConfigError(
                "the report is an HTML file", found=out, where="--out", next_step="let its name end in .html"
            )
        from augengine.report.page.build import build_report

        page = build_report(runs, data, rows, figures_of=figures or (), audit_rows=audit_rows, predictor=predictor)
        Store(folder or "/").write(name, page)
        tell(report=f"{folder}/{name}", bytes=len(page))
        console.print(f"report: {folder}/{name} ({len(page) / 2**20:.1f} MiB)")
