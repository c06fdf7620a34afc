"""Shared fixtures: the folder of real MRI (optional)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

# Before numpy and torch load: threads change the last bits and fight over small machines.
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Real MRI, DICOM and tables; tests that need them skip where they are absent."""
    folder = Path(os.environ.get("AUGENGINE_REAL_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("the real-data folder is absent (set AUGENGINE_REAL_DATA)")
    return folder


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """One local Ray for all tests that need it: 4 logical CPUs, no dashboard."""
    from augengine.pipeline.cluster import connect

    connect(num_cpus=4)
    yield
    import ray

    ray.shutdown()
