#!/usr/bin/env python3
"""Train one model: `python jobs/train.py cddgm_small --data runs/data --out runs/generator`."""

import libraries  # noqa: F401

from augengine.commands.program import command_of, run_program
from augengine.commands.train import train_command

if __name__ == "__main__":
    run_program(command_of(train_command))
