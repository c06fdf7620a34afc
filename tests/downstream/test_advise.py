"""A pilot over ratios: what it advises, whom it looks at, and that it stops as soon as intervals decide."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import slice_sample, write_samples
from toy_experiments import Threshold, quiet

from augengine.bundled import recipe_file
from augengine.commands.advise import ARM, advise_command
from augengine.downstream.advice import Advice, advise
from augengine.downstream.checks import check_out
from augengine.downstream.experiment import Experiment
from augengine.downstream.pilot import PLOT, RESULT, experiment_of, pilot
from augengine.downstream.pilot_protocol import pilot_of, protocol_of
from augengine.downstream.protocols import protocol
from augengine.downstream.results import Plan, Row, Scores
from augengine.downstream.segmenters import SEGMENTERS
from augengine.errors import ConfigError, DataError, RunError
from augengine.io.store import Store
from augengine.pipeline.units import INLINE
from augengine.records import Provenance, Sample
from augengine.train.config import read_recipe

DICE = ("dice", "mean")
SEEDS = range(3)


def scores(gains: dict[str, dict[float, float]], patients: int = 12, noise: float = 0.002) -> Scores:
    """Cell → ratio → gain; every patient and seed differs a little."""
    random = np.random.default_rng(0)
    found: Scores = {}
    for cell, by_ratio in gains.items():
        base = {s: {f"P{n}": 0.5 + 0.03 * n for n in range(patients)} for s in SEEDS}
        found[Row(cell, "classical", 0.25)] = {DICE: base}
        for ratio, gain in by_ratio.items():
            found[Row(cell, ARM, ratio)] = {
                DICE: {s: {p: v + gain + noise * random.normal() for p, v in of.items()} for s, of in base.items()}
            }
    return found


def judged(gains: dict[str, dict[float, float]], **more: Any) -> Advice:
    return advise(scores(gains, **more), DICE, ARM, "classical", 0.01, 3, SEEDS)


def test_the_ratio_with_the_largest_gain_is_advised() -> None:
    found = judged({"A → A": {0.25: 0.03, 0.5: 0.05, 1.0: 0.02}})
    assert (found.verdict, found.ratio, found.patients) == ("use", 0.5, 12)
    assert str(found).startswith("use --ratio 0.5 (gain by ratio 0.25: +0.03")


def test_small_gains_are_not_worth_it_however_certain() -> None:
    assert judged({"A → A": {0.25: 0.004, 0.5: 0.005}}).verdict == "not worth it"
    assert judged({"A → A": {0.25: -0.04, 0.5: -0.05}}).verdict == "not worth it"


def test_what_may_be_either_is_undecided() -> None:
    assert judged({"A → A": {0.25: 0.01, 0.5: 0.02}}, noise=0.2).verdict == "undecided"


def test_a_ratio_that_does_harm_in_no_cell_goes_before_a_better_one_that_does() -> None:
    found = judged({"A → B": {0.25: 0.04, 1.0: 0.12}, "A → A": {0.25: 0.0, 1.0: -0.03}})
    assert (found.verdict, found.ratio) == ("use", 0.25)
    alone = judged({"A → B": {1.0: 0.12}, "A → A": {1.0: -0.03}})
    assert (alone.ratio, alone.options[0].costs) == (1.0, ("A → A",))
    assert str(alone).endswith("costs Dice in A → A")


def test_a_patient_of_two_cells_counts_once() -> None:
    one, two = (
        judged({"A → A": {1.0: 0.02}}, noise=0.05),
        judged({"A → A": {1.0: 0.02}, "B → A": {1.0: 0.02}}, noise=0.05),
    )
    assert one.patients == two.patients == 12
    assert two.options[0].gain.estimate == pytest.approx(np.mean([i.estimate for i in two.options[0].cells.values()]))


def test_more_ratios_and_looks_make_intervals_wider() -> None:
    few = advise(scores({"A": {1.0: 0.02}}, noise=0.05), DICE, ARM, "classical", 0.01, 1, SEEDS)
    many = advise(scores({"A": {1.0: 0.02, 0.5: 0.02}}, noise=0.05), DICE, ARM, "classical", 0.01, 3, SEEDS)
    assert few.options[0].gain.level == pytest.approx(0.95)
    assert many.options[0].gain.level == pytest.approx(1 - 0.05 / 6)


def test_the_pilot_of_a_protocol_tests_nobody_whom_the_protocol_tests() -> None:
    for name in ("duke_strict", "duke_paper", "brats_paper", "lgg_sites"):
        asked = pilot_of(protocol(name))
        assert {split for cell in asked.cells for _, split in asked.tests(cell)} == {"val"}
        assert not asked.reference


SPLITS = {"train": range(1, 11), "val": range(11, 18), "test": range(18, 24)}


def rows() -> list[Sample]:
    """Patients of two vendors in turn."""
    return [slice_sample(n, split=split) for split, numbers in SPLITS.items() for n in numbers]


def brightened(source: Sample) -> Sample:
    made = Provenance(f"cf-{source.sample_id}", source.sample_id, "mix", "d", "acquisition", {"params": {}})
    return source.replace(image=np.round(source.image * np.float32(0.8)), provenance=made)


def test_domains_and_classes_come_from_the_rows(tmp_path: Path) -> None:
    data = write_samples(tmp_path / "data", rows())
    asked = protocol_of(data, "manufacturer")
    assert set(asked.domains) == {"SIEMENS", "GE MEDICAL SYSTEMS"}
    assert len(asked.cells) == 4
    assert set(asked.classes) == set(protocol_of(data).classes) != set()
    assert len(protocol_of(data).cells) == 1
    with pytest.raises(ConfigError, match="key of domains"):
        protocol_of(data, "manufacturr")
    with pytest.raises(ConfigError, match="domains of numbers are ranges"):
        protocol_of(data, "field_strength")
    with pytest.raises(ConfigError, match="label"):
        protocol_of(data, lesion=("tumor",))
    with pytest.raises(DataError, match="none of 'val'"):
        protocol_of(write_samples(tmp_path / "train", [r for r in rows() if r.split == "train"]))


@pytest.fixture
def _threshold() -> Iterator[None]:
    SEGMENTERS["threshold"] = Threshold
    Threshold.fits.clear()
    yield
    del SEGMENTERS["threshold"]


def experiment(tmp_path: Path, made: list[Sample], ratios: tuple[float, ...] = (0.5, 1.0)) -> Experiment:
    data = write_samples(tmp_path / "data", rows())
    added = write_samples(tmp_path / "added", made)
    classes = {"fat": ("fat",)}
    asked = protocol_of(data).model_copy(update={"classes": classes})
    recipes = {"unet": read_recipe("unet_duke_small")}  # the stand-in trains without, but its rows are counted by it
    base = Experiment(asked, data, str(tmp_path / "out"), recipes, (added,), segmenter="threshold", seeds=5, steps=1)
    return experiment_of(base, ARM, ratios)


@pytest.mark.usefixtures("_threshold")
def test_a_pilot_stops_when_it_knows_and_looks_at_no_test_patient(tmp_path: Path) -> None:
    said: list[str] = []
    made = [brightened(row) for row in rows() if row.split == "train"]
    found = pilot(experiment(tmp_path, made), 0.01, quiet, said.append, actors=INLINE)
    assert found.verdict != "undecided"
    assert found.seeds == 3, "all seeds agree, so the first look decides"
    assert len(said) == 1
    looked = {subject for chunk in Plan.read(str(tmp_path / "out")).chunks for subject in chunk["subjects"]}
    assert looked == {row.subject_id for row in rows() if row.split == "val"}
    told = json.loads((tmp_path / "out" / RESULT).read_text())
    assert told["verdict"] == found.verdict
    assert [option["ratio"] for option in told["options"]] == [0.5, 1.0]
    assert (tmp_path / "out" / PLOT).stat().st_size > 5_000
    fits = len(Threshold.fits)
    again = pilot(experiment(tmp_path, made), 0.01, quiet, said.append, actors=INLINE)
    assert (again, len(Threshold.fits)) == (found, fits), "the same call again trains nothing"


@pytest.mark.usefixtures("_threshold")
def test_ratios_beyond_the_rows_are_left_out_but_the_smallest_must_do(tmp_path: Path) -> None:
    made = [brightened(row) for row in rows() if row.split == "train"]
    found = pilot(experiment(tmp_path, made, (0.5, 1.0, 4.0)), 0.01, quiet, lambda text: None, actors=INLINE)
    assert [option.ratio for option in found.options] == [0.5, 1.0]
    with pytest.raises(DataError, match="4 augmented rows for each"):
        pilot(experiment(tmp_path / "two", made, (4.0, 8.0)), 0.01, quiet, lambda text: None, actors=INLINE)


@pytest.mark.usefixtures("_threshold")
def test_too_few_patients_decide_nothing(tmp_path: Path) -> None:
    made = [brightened(row) for row in rows() if row.split == "train"]
    few = [row for row in rows() if row.split != "val" or row.subject_id in ("S011", "S012")]
    asked = experiment(tmp_path, made)
    data = write_samples(tmp_path / "few", few)
    with pytest.raises(DataError, match="decides on 5 labelled patients"):
        pilot(replace(asked, data=data), 0.01, quiet, lambda text: None, actors=INLINE)
    with pytest.raises(ConfigError, match="looks at 3 seeds at least"):
        pilot(replace(asked, seeds=2), 0.01, quiet, lambda text: None, actors=INLINE)
    assert not Threshold.fits, "before anything is trained"


def test_segmenters_that_have_learnt_nothing_decide_nothing() -> None:
    blind = {
        row: {DICE: {s: {p: 0.001 * v for p, v in of.items()} for s, of in found[DICE].items()}}
        for row, found in scores({"A → A": {0.25: -0.04, 0.5: 0.05}}).items()
    }
    found = advise(blind, DICE, ARM, "classical", 0.01, 3, SEEDS)
    assert (found.verdict, found.ratio) == ("undecided", None)
    assert str(found).startswith("undecided: the segmenters have learnt next to nothing, so more --steps")
    assert judged({"A → A": {0.25: 0.05}}).baseline == pytest.approx(0.665)


def test_a_folder_of_another_job_is_refused(tmp_path: Path) -> None:
    for name in ("manifest.json", "augmented/manifest.json", "checkpoint/model.json"):
        store = Store(str(tmp_path / name.replace("/", "-")))
        store.write(name, b"{}")
        with pytest.raises(RunError, match="an output folder of its own"):
            check_out(store)
    check_out(Store(str(tmp_path / "new")))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"ratios": "0,0.5"}, "ratios are above 0"),
        ({"ratios": "nan"}, "give numbers separated by commas"),
        ({"ratios": "0.5,inf"}, "give numbers separated by commas"),
        ({"lesion": "tumour"}, "unknown label 'tumour'"),
        ({"lesion": "fat", "ratios": "0.5,2"}, "at most 1"),
        ({"protocol_name": "duke_strict", "by": "site"}, "a protocol says what"),
    ],
)
def test_mistakes_end_before_anything_is_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: dict[str, Any], message: str
) -> None:
    data, made = (write_samples(tmp_path / name, rows()) for name in ("data", "made"))
    with pytest.raises(SystemExit) as ended:
        advise_command(data, [made], out=str(tmp_path / "out"), **flags)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
    assert not Store(str(tmp_path / "out")).exists("experiment.json")


@pytest.mark.slow
def test_the_command_trains_real_networks_and_says_what_it_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_samples(tmp_path / "data", rows())
    added = write_samples(tmp_path / "added", [brightened(row) for row in rows() if row.split == "train"])
    recipe = tmp_path / "small.yaml"
    recipe.write_text(recipe_file("unet_duke_small").read_text())
    out = tmp_path / "out"
    advise_command(data, [added], ratios="0.5,1,3", seeds=3, steps=2, recipe=[f"unet={recipe}"], out=str(out), actors=2)
    said = capsys.readouterr().out
    assert "ratios 3 were left out" in said
    told = json.loads((out / RESULT).read_text())
    assert [option["ratio"] for option in told["options"]] == [0.5, 1.0]
    assert told["steps"] == 2
