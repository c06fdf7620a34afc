"""Policy and recipe files in; a line each that says they are valid, or what is wrong and where."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from augengine.load import load_policy
from augengine.pipeline.cluster import user_errors
from augengine.train.config import read_recipe
from augengine.yaml_config import Document


def check_command(files: Annotated[list[Path], typer.Argument(help="Policies or training recipes.")]) -> None:
    """Validate policies and recipes; stops at the first mistake."""
    with user_errors():
        for file in files:
            if "edit" in Document.read(file).data:
                loaded = load_policy(file)
                typer.echo(f"{file}: policy {loaded.policy.name}, edit {loaded.policy.edit}, digest {loaded.digest}")
            else:
                recipe = read_recipe(str(file))
                typer.echo(f"{file}: recipe {recipe.name}, kind {recipe.kind}, digest {recipe.digest}")
