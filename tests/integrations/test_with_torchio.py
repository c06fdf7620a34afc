"""TorchIO: a queue of patches, also from subjects without a lesion."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

tio = pytest.importorskip("torchio")

from export_cohorts import OBLIQUE, augmented, cohort, exported, volume  # noqa: E402

from augengine.export.torchio import TorchIO  # noqa: E402


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An export with a healed row, its reader on the path as its users have it."""
    rows = [volume(0), volume(3), volume(4)]
    assert rows[0].label is not None
    healed = augmented(rows[0]).replace(label=np.zeros_like(rows[0].label))
    exported(TorchIO(), cohort(tmp_path, rows, [augmented(rows[0], 1), healed]), tmp_path / "out")
    monkeypatch.syspath_prepend(str(tmp_path / "out"))
    monkeypatch.delitem(sys.modules, "augengine_subjects", raising=False)
    return tmp_path / "out"


def test_a_queue_of_patches(folder: Path) -> None:
    from augengine_subjects import subjects

    found = tio.SubjectsDataset(subjects("train"))
    assert [s["synthetic"] for s in subjects("train")] == [False, True, True]
    queue = tio.Queue(found, 12, 4, tio.LabelSampler((8, 8, 4), "sampling"), num_workers=0)
    batches = list(tio.SubjectsLoader(queue, batch_size=4))
    assert sum(len(batch["name"]) for batch in batches) == 12
    assert batches[0]["image"][tio.DATA].shape[1:] == (2, 8, 8, 4)
    assert torch.isfinite(batches[0]["image"][tio.DATA].float()).all()


def test_the_label_alone_cannot_be_sampled(folder: Path) -> None:
    """Why there is a map to sample from."""
    from augengine_subjects import subjects

    healed = subjects("train")[2]
    assert not healed["label"].data.any()
    with pytest.raises(RuntimeError):
        next(iter(tio.LabelSampler((8, 8, 4), "label")(healed, 1)))
    assert next(iter(tio.LabelSampler((8, 8, 4), "sampling")(healed, 1)))["image"].shape == (2, 8, 8, 4)


def test_the_geometry(folder: Path) -> None:
    from augengine_subjects import subjects

    for subject in subjects(None):
        for image in subject.get_images(intensity_only=False):
            assert np.abs(np.asarray(image.affine) - OBLIQUE).max() <= 1e-5
