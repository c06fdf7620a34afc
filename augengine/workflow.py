"""The stages of a whole job, each one call with progress: phantom, ingest, train, augment, check against the truth."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from augengine.errors import ConfigError
from augengine.io.store import Store
from augengine.load import LoadedPolicy
from augengine.phantom.cohort import Cohort
from augengine.phantom.write import write_duke
from augengine.pipeline.augment import AugmentSummary, augment, sample_files
from augengine.pipeline.ingest import ingest
from augengine.pipeline.units import committed_files
from augengine.policy.spec import Sampler
from augengine.prepare import Preparation
from augengine.report import truth
from augengine.report.console import console, stage, table
from augengine.report.contact_sheet import contact_sheet
from augengine.train.config import load_recipe
from augengine.train.run import train

DEMO_COHORT = Cohort(kind="breast", subjects=40, seed=17, matrix=128, slices=12)
DEMO_PREPARATION = Preparation(size=96, drop_end_slices=1)
SDEDIT_PAPER = Sampler(solver="ddpm", steps=50, strength=0.05, guidance=3.0)
SAMPLERS = {
    "structure": Sampler(solver="ddim", steps=15, strength=1.0, guidance=1.0),
    "inversion": Sampler(solver="ddim", steps=15, strength=0.9, guidance=1.0),
    "sdedit": SDEDIT_PAPER,
}
