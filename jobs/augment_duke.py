#!/usr/bin/env python3
"""The main job: `python jobs/augment_duke.py`, or `ray job submit --working-dir . -- python jobs/augment_duke.py`."""

import libraries  # noqa: F401
import typer

from augengine.commands.augment import augment_duke

if __name__ == "__main__":
    typer.run(augment_duke)
