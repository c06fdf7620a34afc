#!/usr/bin/env python3
"""The main job for BraTS folders; without --data it lists the edits that can run."""

import libraries  # noqa: F401
import typer

from augengine.commands.augment import augment_brats

if __name__ == "__main__":
    typer.run(augment_brats)
