#!/usr/bin/env python3
"""How many samples of `ldm_seg` are enough: `python jobs/ensembles.py EVALUATED --data DATA`."""

import libraries  # noqa: F401

from augengine.commands.ensembles import ensembles
from augengine.commands.program import command_of, run_program

if __name__ == "__main__":
    run_program(command_of(ensembles))
