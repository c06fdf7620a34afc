#!/usr/bin/env python3
"""The main job for BraTS folders; without --data it lists the edits that can run."""

import libraries  # noqa: F401

from augengine.commands.augment import augment_brats
from augengine.commands.program import command_of, run_program

if __name__ == "__main__":
    run_program(command_of(augment_brats))
