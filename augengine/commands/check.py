"""Policy, mix and recipe files in; a line each that says they are valid, or what is wrong and where.

What they name (referees, reference shards, models) must be there and fit; what flags will name is not known here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from augengine.load import load_mixture
from augengine.pipeline.cluster import user_errors
from augengine.preflight import check_named
from augengine.train.config import read_recipe, starting_level
from augengine.yaml_config import Document

POLICY_KEYS = frozenset(("edit", "edits", "mix"))


def check_command(files: Annotated[list[Path], typer.Argument(help="Policies, mixes or training recipes.")]) -> None:
    """Validate policies and recipes; stops at the first mistake."""
    with user_errors():
        for file in files:
            if not POLICY_KEYS.isdisjoint(Document.read(file).data):
                mixture = load_mixture(file)
                check_named(mixture)
                kind, edits = ("policy", "edit") if mixture.mix is None else ("mix", "edits")
                names = ", ".join(member.edit_name for member in mixture.members)
                typer.echo(f"{file}: {kind} {mixture.name}, {edits} {names}, digest {mixture.digest}")
            else:
                recipe = read_recipe(str(file))
                remark = f"; {level}" if (level := starting_level(recipe)) else ""
                typer.echo(f"{file}: recipe {recipe.name}, kind {recipe.kind}, digest {recipe.digest}{remark}")
