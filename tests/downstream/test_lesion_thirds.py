"""Scores by thirds of lesion contrast, and the largest connected part of a prediction."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from builders import slice_sample, write_samples
from toy_experiments import Threshold, quiet

from augengine.downstream.contrast import thirds
from augengine.downstream.contrast_tables import ratios_of
from augengine.downstream.experiment import Experiment
from augengine.downstream.measures import largest_parts
from augengine.downstream.protocols import Protocol
from augengine.downstream.results import Plan, Row, measure
from augengine.downstream.run import run
from augengine.downstream.segmenters import SEGMENTERS
from augengine.downstream.tables import write_tables
from augengine.errors import AugengineError, RunError
from augengine.pipeline.units import INLINE
from augengine.records import Sample

ASKED = Protocol.model_validate(
    {
        "name": "tiny",
        "key": "none",
        "domains": {"all": ["all"]},
        "cells": [{"train": "all", "test": "all"}],
        "classes": {"fat": ["fat"]},
        "generator_sees": "train_domain",
        "metrics": ["dice"],
        "lesion": ["fat"],
        "contrast_channel": "t1",
    }
)


def scan(subject: int, ratio: float, split: str = "test") -> list[Sample]:
    """Two slices of tissue at 100 with a square at `ratio` of that; the frame's rim is air."""
    rows = []
    for index in (0, 1):
        image, label = np.zeros((1, 40, 40), np.float32), np.zeros((40, 40), np.uint8)
        image[:, 2:38, 2:38] = 100
        label[16:24, 16:24] = 1
        image[:, 16:24, 16:24] = round(100 * ratio)
        rows.append(
            slice_sample(subject, index, split=split, image=image, label=label, intensity_range=((0.0, 200.0),))
        )
    return rows


@pytest.fixture(autouse=True)
def _threshold() -> Iterator[None]:
    SEGMENTERS["threshold"] = Threshold
    yield
    del SEGMENTERS["threshold"]


def experiment(folder: Path, protocol: Protocol = ASKED) -> Experiment:
    tested = {10: 1.05, 11: 1.1, 12: 1.6, 13: 1.7, 14: 1.8, 15: 1.9}
    rows = [row for n in range(1, 5) for row in scan(n, 1.8, "train")]
    rows += [row for subject, ratio in tested.items() for row in scan(subject, ratio)]
    return Experiment(
        protocol,
        write_samples(folder / "rows", rows),
        str(folder / "out"),
        {},
        segmenter="threshold",
        arms=("real", "classical"),
        seeds=2,
        steps=1,
    )


def test_faint_lesions_are_told_apart(tmp_path: Path) -> None:
    asked = experiment(tmp_path)
    run(asked, quiet, actors=INLINE)
    plan, scores = Plan.read(asked.out), measure(asked.out, actors=INLINE)
    ratios = ratios_of(plan, asked.out)
    assert ratios == pytest.approx({"S010": 1.05, "S011": 1.1, "S012": 1.6, "S013": 1.7, "S014": 1.8, "S015": 1.9})
    results = write_tables(plan, scores, asked.out)
    found = {(one["arm"], one["third"]): one for one in results["thirds"]}
    assert found.keys() == {(arm, third) for arm in ("real", "classical") for third in ("faint", "middle", "bright")}
    faint, bright = found["real", "faint"], found["real", "bright"]
    assert (faint["low"], faint["high"], faint["patients"]) == (pytest.approx(1.05), pytest.approx(1.1), 2)
    assert faint["mean"] == 0 < 1 == bright["mean"]
    values = scores[Row("all → all", "classical", 1.0)]["dice", "mean"]
    assert found["classical", "faint"]["mean"] == pytest.approx(
        np.mean([values[s][p] for s in values for p in ("S010", "S011")])
    )
    assert (faint["against"], found["classical", "faint"]["against"]) == (None, "real")
    text = Path(asked.out, "tables.md").read_text()
    assert "by thirds of lesion contrast" in text
    assert "| all → all | classical | all | faint | 1.05–1.10 | 2 |" in text


def test_contrast_needs_its_channel_and_its_measures(tmp_path: Path) -> None:
    wrong = ASKED.model_copy(update={"contrast_channel": "flair"})
    with pytest.raises(AugengineError, match="contrast_channel of protocol tiny is a channel of the rows"):
        run(experiment(tmp_path, wrong), quiet, actors=INLINE)
    without = experiment(tmp_path / "b", Protocol.model_validate(ASKED.model_dump() | {"contrast_channel": None}))
    run(without, quiet, actors=INLINE)
    plan = Plan.read(without.out)
    assert ratios_of(plan, without.out) == {}
    with pytest.raises(RunError, match="the lesion contrast of every test patient is measured"):
        ratios_of(replace(plan, protocol=ASKED), without.out)


def test_thirds_leave_out_patients_without_a_lesion() -> None:
    found = list(thirds({"a": 1.0, "b": float("nan"), "c": 2.0, "d": 3.0, "e": 1.5}))
    assert [third.patients for third in found] == [("a", "e"), ("c",), ("d",)]
    assert [t.name for t in thirds({"a": 1.0})] == ["faint"]
    assert list(thirds({"b": float("nan")})) == []


def test_the_largest_part_of_each_class_is_kept() -> None:
    prediction = np.zeros((12, 12, 6), np.uint8)
    prediction[1:4, 1:4, 0:2] |= 1  # 18 voxels
    prediction[4, 4, 2] |= 1  # touches it by a corner
    prediction[8:11, 8:11, 1] |= 1  # 9
    prediction[8:11, 8:11, 3:6] |= 2  # 27
    prediction[0, 0, 0] |= 2
    found = largest_parts(prediction)
    assert np.count_nonzero(found & 1) == 19
    assert not (found[8:11, 8:11, 1] & 1).any()
    assert np.count_nonzero(found & 2) == 27
    parted = largest_parts(prediction, (slice(0, 1), slice(1, 6)))
    assert np.count_nonzero(parted & 1) == 10, "the square and its corner are apart from the slice before"
    assert not largest_parts(np.zeros((4, 4, 1), np.uint8)).any()


def test_scores_are_of_the_largest_part_where_the_protocol_says_so(tmp_path: Path) -> None:
    rows = [row for n in range(1, 5) for row in scan(n, 1.8, "train")]
    tested = scan(10, 1.8)
    for row in tested:
        row.image[:, 5:7, 5:7] = 190  # a false positive
    asked = replace(experiment(tmp_path), data=write_samples(tmp_path / "spotted", [*rows, *tested]), arms=("real",))
    run(asked, quiet, actors=INLINE)
    whole = measure(asked.out, actors=INLINE)[Row("all → all", "real", 1.0)]["dice", "fat"][0]["S010"]
    assert whole == pytest.approx(2 * 64 / (64 + 68))
    tidy = replace(asked, protocol=ASKED.model_copy(update={"largest_component": True}))
    done = run(tidy, quiet, actors=INLINE)
    assert done.trainings.made == 0
    assert measure(asked.out, actors=INLINE)[Row("all → all", "real", 1.0)]["dice", "fat"][0]["S010"] == 1
