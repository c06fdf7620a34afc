#!/usr/bin/env python3
"""The main job: `python jobs/augment_duke.py`, or `ray job submit --working-dir . -- python jobs/augment_duke.py`."""

import libraries  # noqa: F401

from augengine.commands.augment import augment_duke
from augengine.commands.program import command_of, run_program

if __name__ == "__main__":
    run_program(command_of(augment_duke))
