"""Policies, recipes, protocols, data sets or a plug-in in; a line each that says they are valid, or the first mistake.

What files name (referees, reference shards, models) must be there and fit; what flags will name is not known here. Of a
data set all listed files must be there, and with `--deep` every byte of them is compared with its sha256. Of a plug-in
every edit, gate and so on is put through the checks of its kind (`augengine.contracts`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from augengine.bundled import configuration_file
from augengine.contracts.samples import SAMPLES, own_rows
from augengine.downstream.protocols import protocol
from augengine.errors import ConfigError, DataError
from augengine.io.commits import read_records
from augengine.io.dataset import listed_files
from augengine.io.store import Store
from augengine.io.verify import damaged
from augengine.load import load_mixture
from augengine.pipeline.cluster import user_errors
from augengine.preflight import check_named
from augengine.report.console import say
from augengine.told import tell
from augengine.train.config import read_recipe, starting_level
from augengine.yaml_config import Document

POLICY_KEYS = frozenset(("edit", "edits", "mix"))
PROTOCOL_KEYS = frozenset(("domains", "cells"))


def check_command(
    files: Annotated[
        list[str] | None,
        typer.Argument(help="Policies, mixes, recipes, protocols (files or names; a policy comes first) or data sets."),
    ] = None,
    deep: Annotated[
        bool, typer.Option("--deep", help="Of a data set: read every file and compare its sha256.")
    ] = False,
    plugin: Annotated[
        str | None, typer.Option("--plugin", help="Installed package: check everything that it plugs in.")
    ] = None,
    rows: Annotated[str | None, typer.Option(help="Of a plug-in: data set whose first rows it is checked on.")] = None,
) -> None:
    """Validate policies, recipes, protocols, data sets and plug-ins; stops at the first mistake."""
    passed: list[str] = []

    def good(line: str) -> None:
        say(line)
        passed.append(line)
        tell(checked=passed)

    with user_errors():
        if not files and plugin is None:
            raise ConfigError("there is nothing to check", next_step="give files, names, data sets or --plugin PACKAGE")
        if rows is not None and plugin is None:
            raise ConfigError("--rows are what a plug-in is checked on", next_step="give --plugin PACKAGE, too")
        if plugin is not None:
            from augengine.contracts.package import check_package  # late: segmenters are made of MONAI's networks

            for line in check_package(plugin, SAMPLES if rows is None else own_rows(rows)):
                good(line)
        for file in files or ():
            if "://" in file or Path(file).is_dir():
                good(_data_set(Store(file), deep))
                continue
            path = configuration_file(file)
            keys = Document.read(path).data.keys()
            if not PROTOCOL_KEYS.isdisjoint(keys):
                asked = protocol(path)
                cells = ", ".join(map(str, asked.cells))
                good(f"{path}: protocol {asked.name}, cells {cells}, digest {asked.digest}")
            elif not POLICY_KEYS.isdisjoint(keys):
                mixture = load_mixture(path)
                check_named(mixture)
                kind, edits = ("policy", "edit") if mixture.mix is None else ("mix", "edits")
                names = ", ".join(member.edit_name for member in mixture.members)
                good(f"{path}: {kind} {mixture.name}, {edits} {names}, digest {mixture.digest}")
            else:
                recipe = read_recipe(path)
                remark = f"; {level}" if (level := starting_level(recipe)) else ""
                good(f"{path}: recipe {recipe.name}, kind {recipe.kind}, digest {recipe.digest}{remark}")


def _data_set(store: Store, deep: bool) -> str:
    """One line for a data set that is whole.

    Raises:
        DataError: with the first file that is not, and how many are not.
    """
    parts = [part for of_kind in listed_files(store).values() for part in of_kind]
    wrong = sorted(damaged(store, parts, deep).items())
    if wrong:
        name, problem = wrong[0]
        raise DataError(
            "every file of a data set must be as it was written",
            found=f"{problem}; {len(wrong)} of {len(parts)} files",
            where=store.path(name),
            next_step="run the command that wrote it again: what is damaged is made anew",
        )
    records = len(read_records(store))
    how = "every byte compared" if deep else "sizes compared; --deep compares every byte"
    return f"{store.uri}: {len(parts)} files, {sum(p.bytes for p in parts) / 2**20:.1f} MiB, {records} records: {how}"
