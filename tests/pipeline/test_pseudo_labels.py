"""Pseudo-labels: what the segmenter says, whatever the rows said themselves, with its confidence beside it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from builders import write_checkpoint
from training_cases import LABELS, drawn, samples_of, spec_of, write_rows
from typer.testing import CliRunner

from augengine.cli import app
from augengine.diffusion.checkpoint import read_spec, save_model
from augengine.errors import CheckpointError, ConfigError, RunError
from augengine.intensity import normalise
from augengine.io.dataset import dataset_files
from augengine.io.labellers import labellers
from augengine.io.shards import iter_samples
from augengine.io.store import Store
from augengine.metrics.referee import Referee
from augengine.pipeline.pseudo_labels import pseudo_label, refined
from augengine.pipeline.units import INLINE
from augengine.records import Sample
from augengine.train.rows import SplitRows, dataset_facts

REGIONS = {"tissue": ("grey",), "middle": ("core",)}


def fitted(folder: Path, regions: dict[str, tuple[str, ...]], seed: int = 3) -> str:
    spec = spec_of("segmenter", data={"regions": regions})
    save_model(Store(folder), spec, drawn(spec, seed).state_dict())
    return str(folder)


def labelled(tmp_path: Path, samples: list[Sample], segmenter: str, name: str) -> list[Sample]:
    data = write_rows(tmp_path / f"{name}-data", samples)
    store = Store(pseudo_label(data, segmenter, str(tmp_path / name), actors=INLINE))
    return list(iter_samples(store, dataset_files(store)))


def test_rows_get_what_the_segmenter_says(tmp_path: Path) -> None:
    segmenter = fitted(tmp_path / "segmenter", REGIONS)
    rows = samples_of()
    found = labelled(tmp_path, [s.replace(label=None) for s in rows], segmenter, "bare")
    expected = Referee(segmenter).likely(rows)
    assert {s.split for s in found} == {"train"}
    for sample, row, probabilities in zip(found, rows, expected, strict=True):
        probabilities = refined(normalise(row), probabilities)
        rest = np.concatenate([1 - probabilities.sum(0, keepdims=True), probabilities])
        codes = np.array([0, row.labels["grey"], row.labels["core"]])
        assert np.array_equal(sample.label, codes[rest.argmax(0)])
        np.testing.assert_allclose(sample.label_confidence, 255 * rest.max(0), atol=0.51)
        assert sample.labels == row.labels
        assert np.array_equal(sample.image, row.image)
    assert len({s.label.tobytes() for s in found}) > 1


def test_true_labels_are_not_read(tmp_path: Path) -> None:
    segmenter, rows = fitted(tmp_path / "segmenter", REGIONS), samples_of()
    bare = labelled(tmp_path, [s.replace(label=None) for s in rows], segmenter, "bare")
    own = labelled(tmp_path, rows, segmenter, "own")
    assert [s.label.tobytes() for s in bare] == [s.label.tobytes() for s in own]


def test_another_segmenter_s_labels_are_not_taken_for_this_one_s(tmp_path: Path) -> None:
    rows, first = samples_of(), fitted(tmp_path / "first", REGIONS)
    data = write_rows(tmp_path / "data", rows)
    out = pseudo_label(data, first, str(tmp_path / "out"), actors=INLINE)
    assert pseudo_label(data, first, str(tmp_path / "out"), actors=INLINE) == out
    sha256 = read_spec(first).sha256
    assert labellers(Store(out)) == {"segmenter": sha256}
    assert dataset_facts(out, SplitRows("train")).teachers == (sha256,)
    retrained = fitted(tmp_path / "second", REGIONS, seed=4)
    others = [s.replace(image=s.image[:, ::-1].copy()) for s in rows]
    cases = {
        "another weights": (data, retrained),
        "another source": (write_rows(tmp_path / "others", others), first),
    }
    for says, (source, segmenter) in cases.items():
        with pytest.raises(RunError, match=says):
            pseudo_label(source, segmenter, str(tmp_path / "out"), actors=INLINE)


def test_a_region_of_several_labels_is_refused(tmp_path: Path) -> None:
    segmenter = fitted(tmp_path / "segmenter", {"all": tuple(LABELS)})
    with pytest.raises(ConfigError, match="a region of one label") as error:
        labelled(tmp_path, samples_of(), segmenter, "own")
    assert "all:" in str(error.value)
    with pytest.raises(CheckpointError, match="come from a segmenter"):
        labelled(tmp_path, samples_of(), write_checkpoint(tmp_path / "generator"), "other")


def test_rows_on_another_scale_are_refused_before_any_is_labelled(tmp_path: Path) -> None:
    segmenter = fitted(tmp_path / "segmenter", REGIONS)
    channels = [s.replace(channels=("flair",)) for s in samples_of()]
    with pytest.raises(CheckpointError, match="trained on channels t1; found flair"):
        labelled(tmp_path, channels, segmenter, "channels")
    ranges = [s.replace(intensity_rule=replace(s.intensity_rule, percentiles=(5.0, 95.0))) for s in samples_of()]
    with pytest.raises(CheckpointError, match="trained on percentiles 10 and 99"):
        labelled(tmp_path, ranges, segmenter, "ranges")
    assert not (tmp_path / "channels").exists()
    assert not (tmp_path / "ranges").exists()


def test_the_command_labels_a_folder(tmp_path: Path) -> None:
    data, segmenter = write_rows(tmp_path / "data", samples_of()), fitted(tmp_path / "segmenter", REGIONS)
    out = tmp_path / "out"
    done = CliRunner().invoke(app, ["pseudo-label", data, "--segmenter", segmenter, "--out", str(out), "--inline"])
    assert done.exit_code == 0, done.output
    assert labellers(Store(str(out))) == {"segmenter": read_spec(segmenter).sha256}


def test_intensities_part_what_a_segmenter_blurs() -> None:
    i, j = np.indices((48, 48))
    organ, gland = (i - 24) ** 2 + (j - 24) ** 2 < 400, (i - 20) ** 2 + (j - 24) ** 2 < 60
    shading = 1 + 0.5 * i / 48
    noise = np.random.default_rng(1).normal(0, 0.03, organ.shape)
    truth = np.stack([organ & ~gland, gland])
    for bright in (0.3, 1.0):  # gland darker and brighter than fat
        image = (np.where(gland, bright, 0.65) * shading * organ + noise)[None].astype(np.float32)
        # The segmenter knows the organ, and of the gland roughly where it is.
        belief = np.where((i - 22) ** 2 + (j - 22) ** 2 < 60, 0.7, 0.3) * organ
        prior = np.stack([0.95 * organ - 0.95 * belief, 0.95 * belief])
        found = refined(image, prior)
        before, after = (((p > 0.475) == truth)[:, organ].mean() for p in (prior, found))
        assert after > 0.97 > before
        np.testing.assert_allclose(found.sum(0), prior.sum(0), atol=1e-6)
        assert np.array_equal(found[:, ~organ], prior[:, ~organ])
    assert np.array_equal(refined(image, prior[:1]), prior[:1])  # one region has nothing to be parted from
