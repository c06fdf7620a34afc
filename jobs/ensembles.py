#!/usr/bin/env python3
"""How many samples of `ldm_seg` are enough: `python jobs/ensembles.py EVALUATED --data DATA`."""

import sys
from pathlib import Path

import libraries  # noqa: F401
import typer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # `downstream` is not installed

from augengine.commands.program import run_program
from downstream.ensemble_command import ensembles

if __name__ == "__main__":
    run_program(lambda: typer.run(ensembles))
