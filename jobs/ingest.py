#!/usr/bin/env python3
"""`python jobs/ingest.py FOLDER --out OUT`: DICOM, Duke, NIfTI, NRRD, BraTS or BIDS to Parquet shards."""

import libraries  # noqa: F401

from augengine.commands.ingest import ingest_command
from augengine.commands.program import command_of, run_program

if __name__ == "__main__":
    run_program(command_of(ingest_command))
