"""`policy`, `recipe` or `protocol` in; the JSON Schema of such files out, for editors."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from augengine.file_schemas import SCHEMAS
from augengine.pipeline.cluster import user_errors
from augengine.report.console import say
from augengine.told import tell
from augengine.yaml_config import unknown_name


def schema_command(kind: Annotated[str, typer.Argument(help=f"One of {', '.join(SCHEMAS)}.")]) -> None:
    """Print the JSON Schema of policies, recipes or protocols, by which an editor completes and checks them.

    Example: augengine schema policy > policy.schema.json
    """
    with user_errors():
        if kind not in SCHEMAS:
            raise unknown_name("kind of file", kind, list(SCHEMAS), None)
        found = SCHEMAS[kind]()
        say(json.dumps(found, indent=1))
        tell(schema=found)
