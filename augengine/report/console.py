"""Progress and tables on the console: live bars on a terminal, plain lines in a log file."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from augengine.told import forget, told

SECONDS_BETWEEN_LINES = 10.0
# Square brackets stand in paths, labels and settings: only where a line is known to have none are they markup.
console = Console(highlight=False, soft_wrap=True, markup=False)

Report = Callable[[int, int, Mapping[str, object]], None]


def want_json() -> None:
    """From now on standard output is for one JSON object; progress, tables and remarks go to standard error."""
    console.stderr = True
    forget()


def want_quiet() -> None:
    """No progress, tables and remarks from now on; errors and results are said."""
    console.quiet = True


def say(text: str) -> None:
    """Print a line that is a command's result, as plain text."""
    typer.echo(text, err=console.stderr)


def finish(exit_code: int) -> None:
    """Print what was told as JSON, if that is wanted; of a mistake in the flags, that it is one."""
    if console.stderr:
        usage = {
            "error": {
                "rule": "the flags of a command are those of its --help",
                "found": None,
                "where": None,
                "next_step": "standard error says which is not",
            }
        }
        typer.echo(told(exit_code=exit_code, **(usage if exit_code == 2 else {})))


@contextmanager
def stage(title: str) -> Iterator[Report]:
    """Show one long stage; yields `report(done, total, details)`."""
    started = time.monotonic()
    with _bar(title) if console.is_terminal else _lines(title) as report:
        yield report
    console.print(Text(title, "bold"), f": {time.monotonic() - started:.1f} s", sep="")


@contextmanager
def _bar(title: str) -> Iterator[Report]:
    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[details]}"),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(title, total=None, details="")

        def report(done: int, total: int, details: Mapping[str, object]) -> None:
            progress.update(task, completed=done, total=total, details=_text(details))

        yield report


@contextmanager
def _lines(title: str) -> Iterator[Report]:
    last = [0.0]

    def report(done: int, total: int, details: Mapping[str, object]) -> None:
        now = time.monotonic()
        if now - last[0] >= SECONDS_BETWEEN_LINES or done == total:
            last[0] = now
            console.print(f"{title}: {done}/{total} {_text(details)}")

    yield report


def report_steps(report: Report) -> Callable[[str, int, int, Mapping[str, int]], None]:
    """A callback for a stage of several named steps, as ingest has."""
    return lambda step, done, total, counts: report(done, total, {"step": step, **counts})


def _text(details: Mapping[str, object]) -> str:
    shown = ((k, f"{v:.4g}" if isinstance(v, float) else v) for k, v in details.items())
    return ", ".join(f"{k} {v}" for k, v in shown)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table; numbers are right-aligned."""
    shown = Table(title=title, title_justify="left", title_style="bold")
    for n, name in enumerate(columns):
        numeric = any(isinstance(row[n], int | float) for row in rows)
        shown.add_column(name, justify="right" if numeric else "left")
    for row in rows:
        shown.add_row(*(f"{v:.3f}" if isinstance(v, float) else str(v) for v in row))
    console.print(shown)
