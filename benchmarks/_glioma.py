"""The real glioma that some tables look at: A1 of the shared data, four modalities, on the brain phantom's grid."""

from __future__ import annotations

from pathlib import Path

from augengine.io.labels import SCHEMES
from augengine.io.sources import SourceOptions
from augengine.pipeline.ingest import ingest
from augengine.pipeline.units import INLINE
from augengine.prepare import Preparation

A1 = "A1_brats21style_TCGA-FG-6692"
OPTIONS = SourceOptions(
    labels=dict(SCHEMES["brats2021"]),
    scheme="brats2021",
    mask="seg_simple.nii.gz",
    channels={"t1": "*_t1_bet.*", "t1c": "*_t1c_bet.*", "t2": "*_t2_bet.*", "flair": "*_fla_bet.*"},
)
# The phantom's grid: 64 voxels of 3 mm.
PREPARATION = Preparation(plane="axial", size=64, spacing_mm=3.0, drop_end_slices=10)


def ingest_glioma(shared: str | Path, out: str) -> None:
    """Write its shards, all of the split train."""
    ingest(Path(shared, A1), out, options=OPTIONS, preparation=PREPARATION, fractions=(1, 0, 0), actors=INLINE)
