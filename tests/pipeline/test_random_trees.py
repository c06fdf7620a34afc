"""Random folders of MRI go in; nothing is lost, moved, mislabelled or leaked, whatever the names and headers.

`AUGENGINE_TREES=2000 pytest tests/pipeline/test_random_trees.py` looks at more of them.
"""

import os
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from random_trees import BRIGHT, Expected, grow

from augengine.io.dataset import dataset_files
from augengine.io.shards import iter_samples
from augengine.io.store import Store
from augengine.pipeline.ingest import ingest
from augengine.pipeline.units import INLINE
from augengine.prepare import Preparation
from augengine.records import Sample

TREES = int(os.environ.get("AUGENGINE_TREES", "50"))
PLACE_MM = 0.02  # half of the last digit of positions with two decimals, three axes, and the fit of a line
RESAMPLED_LOSS = 0.1  # of a label's volume, or one voxel: the bound of `max_label_loss`
# A small label may grow: the largest share wins a whole voxel, and no slice that shows it loses it.
RESAMPLED_GAIN = 1.0  # of a label's volume, and one voxel in each slice


@pytest.mark.parametrize("seed", range(TREES))
def test_a_tree_comes_in_whole(tmp_path: Path, seed: int) -> None:
    tree = grow(tmp_path / "in", seed)
    summary = ingest(
        tmp_path / "in",
        str(tmp_path / "out"),
        layout="auto",
        options=tree.stated(),
        preparation=Preparation(slices=False),
        actors=INLINE,
    )
    assert summary["layout"] == tree.layout
    files = summary["input_files"]
    assert files["found"] == files["used"] + files["failed"] + sum(files["unused"].values())
    assert files["found"] == sum(1 for p in (tmp_path / "in").rglob("*") if p.is_file())
    reasons = [s["reason"] for s in summary["sources"] if s["reason"]]
    assert not reasons
    store = Store(tmp_path / "out")
    samples = list(iter_samples(store, dataset_files(store)))
    assert len(samples) == len(tree.volumes)
    found = {_key(s.affine, s.image): s for s in samples}
    splits = defaultdict(set)
    for expected in tree.volumes:
        sample = _pick(expected, samples)
        splits[expected.patient].add((sample.split, sample.subject_id))
        if expected.volumes_mm3 is None:
            assert sample.label is None
        else:
            assert sample.label is not None
            assert _volumes(sample) == pytest.approx(expected.volumes_mm3, rel=1e-5)
        if expected.echo_time_ms is not None:
            assert sample.acquisition.echo_time_ms == pytest.approx(expected.echo_time_ms, rel=1e-6)
    assert len(found) == len(samples)
    assert all(len(where) == 1 for where in splits.values()), splits  # one split and one subject id per patient
    assert len({next(iter(w))[1] for w in splits.values()}) == len(splits)  # and no two patients are one subject


@pytest.mark.parametrize("seed", range(0, TREES, 5))
def test_resampling_keeps_labelled_volume_or_says_so(tmp_path: Path, seed: int) -> None:
    tree = grow(tmp_path / "in", seed)
    summary = ingest(
        tmp_path / "in",
        str(tmp_path / "out"),
        options=tree.stated(),
        preparation=Preparation(spacing_mm=1.0),
        actors=INLINE,
    )
    store = Store(tmp_path / "out")
    by_volume = defaultdict(list)
    for sample in iter_samples(store, dataset_files(store)):
        by_volume[sample.volume_id].append(sample)
    lost = {s["source"]: s["reason"] for s in summary["sources"] if s["reason"]}
    assert all("label" in reason or "constant" in reason or "percentile" in reason for reason in lost.values()), lost
    truth = sorted((v.volumes_mm3 or {} for v in tree.volumes), key=str)
    assert len(by_volume) + len(lost) == len(truth)
    for samples in by_volume.values():
        if samples[0].label is None:
            continue
        measured: dict[int, float] = defaultdict(float)
        slices: dict[int, int] = defaultdict(int)
        for sample in samples:
            for code, volume in _volumes(sample).items():
                measured[code] += volume
                slices[code] += 1
        voxel = float(np.prod(samples[0].spacing_mm))
        notes = next(s["notes"] for s in summary["sources"] if s["source"] == samples[0].volume_id)
        close = [
            t
            for t in truth
            if t.keys() == measured.keys()
            and all((1 - RESAMPLED_LOSS) * t[c] - voxel <= measured[c] for c in t)
            and all(measured[c] <= (1 + RESAMPLED_GAIN) * t[c] + voxel * slices[c] for c in t)
        ]
        assert close or any("label" in note for note in notes), (measured, truth, notes)


def _volumes(sample: Sample) -> dict[int, float]:
    assert sample.label is not None
    voxel = abs(np.linalg.det(sample.affine[:3, :3]))
    return {int(c): float((sample.label == c).sum() * voxel) for c in np.unique(sample.label) if c}


def _key(affine: np.ndarray, image: np.ndarray) -> bytes:
    return affine.tobytes() + image.tobytes()


def _pick(expected: Expected, samples: list[Sample]) -> Sample:
    """The only sample whose bright voxels lie where those of the expected volume do."""
    fitting = []
    for sample in samples:
        channel = sample.image[expected.channel] if expected.channel < len(sample.image) else sample.image[0]
        index = [np.argwhere(channel == value) for value in BRIGHT]
        if all(len(i) == 1 for i in index):
            places = np.concatenate(index) @ sample.affine[:3, :3].T + sample.affine[:3, 3]
            if np.linalg.norm(places - expected.landmarks_mm, axis=1).max() <= PLACE_MM:
                fitting.append(sample)
    assert len(fitting) == 1, f"{len(fitting)} samples have their landmarks where the file has them"
    return fitting[0]
