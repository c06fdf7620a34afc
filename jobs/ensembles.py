#!/usr/bin/env python3
"""How many samples of `ldm_seg` are enough: `python jobs/ensembles.py EVALUATED --data DATA`."""

import libraries  # noqa: F401
import typer

from augengine.commands.ensembles import ensembles

if __name__ == "__main__":
    typer.run(ensembles)
