"""Command-line text goes in; checked values come out, or a `ConfigError` that names the flag."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from pydantic import BaseModel, ValidationError

from augengine.errors import ConfigError
from augengine.io.store import Store
from augengine.train.workers import NumWorkers

KEY_HELP = "File with the secret of the ids' hash; default: one of your own, made at first use."
CHECKPOINT_HELP = "FOLDER for every model, or ROLE=FOLDER,..."
SiteColumnFlag = Annotated[str | None, typer.Option(help="Its column that does; default: site.")]
Model = TypeVar("Model", bound=BaseModel)


def checked(model: type[Model], **values: Any) -> Model:
    """Build a configuration section from flags."""
    try:
        return model(**values)
    except ValidationError as error:
        problem = error.errors()[0]
        flag = "--" + str(problem["loc"][0]).replace("_", "-") if problem["loc"] else None
        text = problem["msg"].removeprefix("Value error, ")
        found = problem["input"] if problem["loc"] else None
        raise ConfigError(text[0].lower() + text[1:], found=found, where=flag) from None


def parse_assignments(text: str, flag: str, default: str | None = None) -> dict[str, str]:
    """`name=value,...` as a mapping; a bare `name` gets `default`, if there is one.

    >>> parse_assignments("t1=*_t1.nii.gz,flair", "--channels", "*")
    {'t1': '*_t1.nii.gz', 'flair': '*'}
    """
    found: dict[str, str] = {}
    for part in filter(None, text.split(",")):
        name, equals, value = (p.strip() for p in part.partition("="))
        value = value or ("" if equals else default or "")
        if not name or not value or name in found:
            raise ConfigError("give name=value,... with each name once", found=part, where=flag)
        found[name] = value
    return found


def parse_pairs(texts: Iterable[str], flag: str, next_step: str) -> dict[str, str]:
    """Name to value, of flags that are given once for each `name=value`.

    >>> parse_pairs(["vae=runs/a", "dit=runs/b"], "--part", "for example --part vae=runs/vae/checkpoint")
    {'vae': 'runs/a', 'dit': 'runs/b'}
    """
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not (name and equals and value):
            raise ConfigError("give name=value", found=text, where=flag, next_step=next_step)
        if name in found:
            raise ConfigError(f"'{name}' is given twice", found=text, where=flag, next_step="leave one of them out")
        found[name] = value
    return found


def column_of(site_column: str | None, participants: Path | None) -> str:
    """The column of a table of participants that names their sites; a `ConfigError` where there is no table."""
    if site_column is not None and participants is None:
        raise ConfigError(
            "--site-column is a column of --participants", found=site_column, next_step="give --participants, too"
        )
    return site_column or "site"


def each_once(places: Sequence[str], flag: str) -> None:
    """Refuse a folder that is given twice, however its path is written: its rows would count twice, or not be seen."""
    seen: set[str] = set()
    for place in places:
        uri = Store(place).uri
        if uri in seen:
            raise ConfigError("a folder is given twice", found=place, where=flag, next_step="leave one of them out")
        seen.add(uri)


def parse_checkpoints(text: str | None) -> dict[str, str]:
    """Model role to folder; what is given without a role stands under "", for every role that is not named.

    >>> parse_checkpoints("runs/a/checkpoint,acquisition.generator=runs/b/checkpoint")
    {'': 'runs/a/checkpoint', 'acquisition.generator': 'runs/b/checkpoint'}
    """
    found: dict[str, str] = {}
    for part in filter(None, (text or "").split(",")):
        role, equals, folder = (p.strip() for p in part.partition("="))
        role, folder = (role, folder) if equals else ("", role)
        if not folder or role in found:
            raise ConfigError(f"give {CHECKPOINT_HELP}", found=part, where="--checkpoint")
        found[role] = folder
    return found


def parse_workers(text: str) -> NumWorkers:
    """`--workers N`, or `LEAST-MOST` of an elastic training.

    >>> parse_workers("4"), parse_workers("2-4")
    (4, (2, 4))
    """
    least, dash, most = text.partition("-")
    numbers = [int(part) for part in (least, most if dash else least) if part.isdecimal()]
    if len(numbers) < 2 or not 1 <= numbers[0] <= numbers[1]:
        raise ConfigError(
            "workers are a number from 1 on, or the least and the most of them",
            found=text,
            where="--workers",
            next_step="for example --workers 4 or --workers 2-4",
        )
    return numbers[0] if numbers[0] == numbers[1] else (numbers[0], numbers[1])


def parse_numbers(text: str, flag: str) -> tuple[float, ...]:
    """Comma-separated numbers, all of them finite."""
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = (math.nan,)
    if not all(map(math.isfinite, found)):
        raise ConfigError("give numbers separated by commas", found=text, where=flag)
    return found
