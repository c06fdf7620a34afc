#!/usr/bin/env python3
"""The main job: `python jobs/augment_duke.py`, or `ray job submit --working-dir . -- python jobs/augment_duke.py`."""

import libraries  # noqa: F401
import typer

from augengine.commands.augment import augment_duke
from augengine.commands.program import run_program

if __name__ == "__main__":
    run_program(lambda: typer.run(augment_duke))
