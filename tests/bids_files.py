"""A BIDS data set written file by file, and what the reader makes of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from mri_files import block, write_nifti
from reading import scanned

from augengine.io.layouts import open_layout
from augengine.io.sources import Source, SourceOptions

LABELS = {"lesion": 1}


def put(root: Path, path: str, sidecar: dict[str, Any] | None = None, seed: int = 0) -> Path:
    """An image of 12 x 10 x 6 voxels that its seed tells apart, and its sidecar."""
    write_nifti(root / path, block(seed=seed))
    if sidecar is not None:
        state(root, path[: path.lower().index(".nii")] + ".json", sidecar)
    return root / path


def put_mask(root: Path, path: str, seed: int = 0) -> np.ndarray:
    """A mask of codes 0 and 1 that its seed tells apart."""
    mask = (block(seed=1000 + seed) > 700).astype(np.uint8)
    write_nifti(root / path, mask)
    return mask


def state(root: Path, path: str, values: Any) -> None:
    """A JSON file; text is written as it is."""
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(values if isinstance(values, str) else json.dumps(values))


def found(root: Path, **options: Any) -> dict[str, Source]:
    """Sources by volume id; every file is used or named, as `scanned` checks."""
    reader, _ = open_layout(root, "bids", SourceOptions(public_ids=True, **options))
    sources = scanned(reader)
    assert len({s.volume_id for s in sources}) == len(sources)
    return {source.volume_id: source for source in sources}


def unused(root: Path, **options: Any) -> dict[str, str]:
    """Files that no volume uses, with reasons."""
    return dict(open_layout(root, "bids", SourceOptions(public_ids=True, **options))[1].unused)


def pixels(root: Path, **options: Any) -> dict[str, tuple[np.ndarray, np.ndarray | None]]:
    """Image and label of every volume without an error, by volume id."""
    reader, _ = open_layout(root, "bids", SourceOptions(public_ids=True, **options))
    sources = [source for source in scanned(reader) if source.error is None]
    samples = {source.volume_id: reader.read(source).sample for source in sources}
    return {name: (sample.image, sample.label) for name, sample in samples.items()}
