#!/usr/bin/env python3
"""Arms of an experiment compared: `python jobs/evaluate.py --phantom --protocol phantom_transductive --out runs/x`."""

import libraries  # noqa: F401

from augengine.commands.evaluate import evaluate
from augengine.commands.program import command_of, run_program

if __name__ == "__main__":
    run_program(command_of(evaluate))
