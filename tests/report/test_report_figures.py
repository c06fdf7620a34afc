"""Parts of a report beyond the rows: figures of other commands, places of lesions, copies, what was reached."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from builders import GE, SIEMENS, grained_sample, lesion_sample, slice_sample
from report_page import Seen
from report_runs import HOSTILE, edit, write_report_run
from typer.testing import CliRunner

from augengine.cli import app
from augengine.diffusion.build import build
from augengine.diffusion.checkpoint import save_model, subject_hash
from augengine.diffusion.conditions import Vocabulary
from augengine.diffusion.discriminative import PredictorSpec
from augengine.diffusion.spec import ModelSpec
from augengine.errors import DataError
from augengine.gates.base import LESION
from augengine.io.store import Store
from augengine.metrics.intervals import Interval
from augengine.report.measured import Figure
from augengine.report.measured_files import write_measured
from augengine.report.page.build import build_report
from augengine.report.page.copies import audit_copies
from augengine.report.page.rows import read_run

RECORD = Path(__file__).parents[2] / "benchmarks/results/experiment_quick.json"


def test_figures_of_measure_are_found_beside_a_run(tmp_path: Path) -> None:
    source = slice_sample(1)
    run = write_report_run(tmp_path / "mine", [source], accepted=[edit(source, "row")])
    other = write_report_run(tmp_path / "other", [source], accepted=[edit(source, "row")])
    found = [
        Figure("first", "ssim", "", 0.9, Interval(0.9, 0.85, 0.95, 0.95, 12, 1000)),
        Figure("first", "frechet_same_n", HOSTILE, 5.0, None, Interval(3.0, 2.0, 4.0, 0.95, 9, 100), 36),
    ]
    about = {"runs": {"first": run}, "split": "test"}
    write_measured(found, [HOSTILE], about, ["first"], Store(str(tmp_path / "mine/measure")))
    page = Seen(build_report([run]))
    assert page.table("measure", "rests on", "first") == [
        ["ssim ↑", "", "0.9 [0.85, 0.95]"],
        ["frechet_same_n ↓", HOSTILE, "5 (real–real 3 [2, 4], n = 36)"],
    ]
    assert HOSTILE in page.text
    assert "Nothing was measured" in Seen(build_report([other])).text
    given = Seen(build_report([run, other], figures_of=[str(tmp_path / "mine/measure")]))
    assert sum(table[0][:2] == ["measure", "rests on"] for table in given.tables) == 1


def test_gains_of_an_experiment_have_intervals(tmp_path: Path) -> None:
    figures = json.loads(RECORD.read_text())["figures"]
    Store(str(tmp_path / "experiment")).write_json("results.json", figures)
    source = slice_sample(1)
    run = write_report_run(tmp_path, [source], accepted=[edit(source, "row")])
    page = tmp_path / "r.html"
    result = CliRunner().invoke(
        app, ["report", run, "--figures", str(tmp_path / "experiment"), "--out", str(page), "--rows", "0"]
    )
    assert result.exit_code == 0, result.output
    gains = Seen(page.read_bytes()).table("domains", "arm", "against", "metric, class", "gain", "p (Holm)")
    assert len(gains) == len(figures["comparisons"])
    first = figures["comparisons"][0]
    assert gains[0][:4] == [first["cell"], first["arm"], first["against"], f"{first['metric']}, {first['class']}"]
    assert gains[0][4] == str(Interval(**first["difference"]))
    with pytest.raises(DataError, match=r"holds measures.json .* found neither; .*--out of one of these commands"):
        build_report([run], figures_of=[str(tmp_path / "out")])


def test_the_place_of_a_lesion_is_told_before_and_after(tmp_path: Path) -> None:
    source = lesion_sample(1, at_mm=(-8.0, 0.0, 4.0))
    assert source.label is not None
    moved, gone = np.roll(source.label, 3, axis=0), source.label * 0
    out = write_report_run(
        tmp_path, [source], accepted=[edit(source, "row-1", label=moved), edit(source, "row-2", label=gone)]
    )
    rows = read_run(out)
    codes = [code for name, code in source.labels.items() if name in LESION]
    middle = np.argwhere(np.isin(source.label, codes)).mean(axis=0)
    index = np.array([*middle, *[0.0] * (3 - source.label.ndim), 1.0])
    (before,) = rows.sources.values()
    assert before.lesion_mm == pytest.approx((source.affine @ index)[:3])
    first, second = (seen.lesion_mm for seen in rows.kept)
    assert first is not None
    assert first[0] - before.lesion_mm[0] == pytest.approx(3 * source.affine[0, 0])
    assert second is None
    text = Seen(build_report([out])).text
    assert "moved, grown or more of them 1" in text
    assert "gone 1" in text


def test_copies_are_told_beside_rows_held_out(tmp_path: Path) -> None:
    training = [grained_sample(n, n) for n in range(4)]
    unseen = [grained_sample(n, n, split="test") for n in range(10, 15)]
    source, donor = training[0], training[2]
    assert donor.label is not None
    place = np.argwhere(donor.label > 0)
    image = source.image.copy()
    image[:, place[:, 0] + 2, place[:, 1] + 1] = donor.image[:, place[:, 0], place[:, 1]] * 0.9
    honest = source.image + np.random.default_rng(7).normal(0, 200, source.image.shape) * (source.label > 0)
    made = [edit(source, "copied", image=image), edit(source, "honest", image=honest)]
    out = write_report_run(tmp_path, [*training, *unseen], accepted=made)
    audit = audit_copies(read_run(out), 4)
    found = {one.row_id: one for one in audit.accepted}
    assert found["copied"].distance < 0.01 < 0.1 < found["honest"].distance
    assert (found["copied"].neighbour, found["copied"].subject) == (donor.sample_id, donor.subject_id)
    assert (audit.training, len(audit.held_out)) == (4, 4)
    assert min(one.distance for one in audit.held_out) > 0.1
    page = Seen(build_report([out], audit_rows=4))
    closest = page.table("closest rows", "distance", "voxels", "training row", "subject")
    assert [line[0] for line in closest] == ["copied", "honest"]
    assert closest[0][3:] == [donor.sample_id, donor.subject_id]
    assert "so are 1 of the accepted rows." in page.text
    assert "Not audited" in Seen(build_report([out])).text


def test_what_a_predictor_reads_off_the_rows_is_drawn(tmp_path: Path) -> None:
    sources = [slice_sample(s) for s in range(3)]
    made = [
        edit(s, f"row-{n}", acquisition=GE.replace(echo_time_ms=3.0 + n, repetition_time_ms=6.0))
        for n, s in enumerate(sources)
    ]
    out = write_report_run(tmp_path, sources, accepted=made)
    spec = ModelSpec(
        kind="acquisition_predictor",
        network=PredictorSpec(width=8, norm_groups=8),
        vocabulary=Vocabulary.fit([GE, SIEMENS]),
        channels=("t1",),
        image_size=(32, 32),
        spacing_mm=(2.0, 2.0),
        subject_hashes=(subject_hash("somebody"),),
    )
    save_model(Store(str(tmp_path / "predictor")), spec, build(spec).state_dict())
    page = build_report([out], rows=2, predictor=str(tmp_path / "predictor")).decode()
    assert "reached by 2 rows: cross" in page
    assert page.count("l8 8m0 -8l-8 8") in (2, 4), "of each scatter that has both parameters"
    assert "cross" not in build_report([out], rows=2).decode().split("<main>")[1].split("</main>")[0]
