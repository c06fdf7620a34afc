"""A phantom study from nothing: whose labels reach the generator and the augmented rows, with real trainings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from augengine.diffusion.checkpoint import load_generator
from augengine.downstream.protocols import Cell, protocol
from augengine.downstream.study import Study, build
from augengine.io.dataset import dataset_files, run_files
from augengine.io.shards import iter_samples
from augengine.io.store import Store
from augengine.phantom.cohort import Cohort
from augengine.phantom.protocols import GE, SIEMENS
from augengine.pipeline.units import INLINE, Progress
from augengine.prepare import Preparation
from augengine.records import Sample

ROOT = Path(__file__).parents[2]


@contextmanager
def silent(name: str) -> Iterator[Progress]:
    yield lambda done, total, counts: None


def rows(uri: str, *kinds: str) -> list[Sample]:
    store = Store(uri)
    names = [n for kind in kinds for n in run_files(store, kind)] or dataset_files(store)
    return list(iter_samples(store, names))


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session")
def test_true_labels_are_edited_and_never_shown_to_the_generator(tmp_path: Path) -> None:
    recipe = yaml.safe_load((ROOT / "augengine/recipes/cddgm_small.yaml").read_text())
    recipe |= {"steps": 2, "optimiser": {**recipe["optimiser"], "batch_size": 4}}
    recipe["network"] |= {"channels": [8, 8], "head_channels": 8}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    study = Study(
        Cohort(subjects=12, matrix=64, slices=3, slice_spacing_mm=20, siemens_fraction=0.5),
        Preparation(size=32, drop_end_slices=1),
        recipe=str(tmp_path / "recipe.yaml"),
        policy="duke_acquisition",
        labeller="unet_duke_small",
        labeller_steps=2,
        fractions=(0.5, 0.25, 0.25),
    )
    asked = protocol("phantom_transductive").model_copy(update={"cells": (Cell(train="GE", test="Siemens"),)})
    out = str(tmp_path / "out")
    # Untrained rows pass every gate of the control.
    built = build(study, asked, out, {"untrained"}, silent, lambda line: None, actors=INLINE)
    cohort = {s.sample_id: s for s in rows(built.data)}
    split_of = {s.subject_id: s.split for s in cohort.values()}
    assert Counter(split_of.values()) == {"train": 6, "val": 3, "test": 3}
    made = rows(built.rows["untrained"][0], "accepted")
    assert made
    for sample in made:
        assert sample.provenance is not None
        source = cohort[sample.provenance.parent_id]
        assert (source.acquisition.manufacturer, source.split) == (GE, "train")
        assert sample.label.tobytes() == source.label.tobytes()  # type: ignore[union-attr]
        assert sample.acquisition.manufacturer == SIEMENS
    (labelled,) = Path(out, "pseudo_labels").iterdir()
    shown = rows(str(labelled))
    assert {s.acquisition.manufacturer for s in shown} == {GE, SIEMENS}
    assert {s.split for s in shown} == {"train", "val"}
    assert all(s.label is not None and s.label_confidence is not None for s in shown)
    assert any(s.label.tobytes() != cohort[s.sample_id].label.tobytes() for s in shown)  # type: ignore[union-attr]
    (generator,) = Path(out, "generators").iterdir()
    assert load_generator(f"{generator}/checkpoint").spec.labels == ("fat", "fibroglandular")
    again = build(replace(study), asked, out, {"untrained"}, silent, lambda line: None, actors=INLINE)
    assert again == built
