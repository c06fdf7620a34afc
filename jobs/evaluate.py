#!/usr/bin/env python3
"""Arms of an experiment compared: `python jobs/evaluate.py --phantom --protocol phantom_transductive --out runs/x`."""

import sys
from pathlib import Path

import libraries  # noqa: F401
import typer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # `downstream` is not installed

from augengine.commands.program import run_program
from downstream.command import evaluate

if __name__ == "__main__":
    run_program(lambda: typer.run(evaluate))
