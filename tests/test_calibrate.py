"""Calibration: pairs that sound gates accept, defects that they reject, and bounds that follow from both."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from builders import GE, SIEMENS, slice_sample, write_samples
from typer.testing import CliRunner

from augengine.commands.calibrate import calibrate_command
from augengine.gates import Case, Gates
from augengine.gates.calibration import calibrate, propose
from augengine.gates.defects import DEFECTS
from augengine.gates.real_rows import RealRow, elsewhere, mirrored, read_real_rows, recoloured
from augengine.policy.spec import GateSpec, Select
from augengine.records import Sample

POLICY = """
version: 1
name: gates
edit: acquisition
select: {split: train}
params: {target: {empirical: {from: samples}}}
gates:
  - {name: changed, min: 0.003}
  - {name: void_fraction, max: 0.003}
  - {name: checkerboard, max: 0.05}
  - {name: duplicate, max: 0}
  - {name: label_agreement, min: 0.9}
  - {name: label_swap, max: 0.7}
  - {name: volume_ratio, min: 0.5}
"""


def two_tissues(subject: int, index: int, grain: float = 8) -> Sample:
    """A disc of two tissues that the label names."""
    i, j = np.mgrid[:48, :48] / 48 - 0.5
    rng = np.random.default_rng([subject, index])
    x, y = rng.uniform(-0.1, 0.1, 2)
    label = (i**2 + j**2 < 0.16).astype(np.uint8) + ((i - x) ** 2 + (j - y) ** 2 < 0.03)
    image = np.array([20, 400, 700])[label] + rng.normal(0, grain, i.shape)
    return slice_sample(
        subject,
        index,
        image=np.round(image.clip(min=0)).astype(np.float32)[None],
        label=label.astype(np.uint8),
        labels={"fat": 1, "fibroglandular": 2},
    )


SAMPLES = [two_tissues(s, n) for s in range(16) for n in range(3)]


def test_defects_change_only_what_they_are_named_after() -> None:
    case = Case(SAMPLES[0], recoloured(SAMPLES[0]))
    for name, defect in DEFECTS.items():
        damaged, again = (defect(case, np.random.default_rng(0)) for _ in range(2))
        assert damaged is not None
        assert again is not None
        assert np.array_equal(damaged.after.image, again.after.image)
        of_label = name in ("shifted_label", "swapped_label")
        assert np.array_equal(damaged.after.image, case.after.image) == of_label
        assert np.array_equal(damaged.after.label, case.after.label) != of_label  # type: ignore[arg-type]
        assert damaged.before is case.before
    swapped = DEFECTS["swapped_label"](case, np.random.default_rng(0))
    assert swapped is not None
    assert np.array_equal(swapped.after.label, np.array([0, 2, 1])[case.after.label])
    one = case.after.replace(label=(case.after.label == 1).astype(np.uint8))  # type: ignore[union-attr]
    assert DEFECTS["swapped_label"](Case(one, one), np.random.default_rng(0)) is None


def test_a_local_edit_gets_its_void_in_its_region() -> None:
    region = np.zeros((48, 48), bool)
    region[16:32, 20:36] = True
    for seed in range(5):
        damaged = DEFECTS["void"](Case(SAMPLES[0], SAMPLES[0], region), np.random.default_rng(seed))
        assert damaged is not None
        empty = (damaged.after.image == 0).all(axis=0)
        assert empty[region].sum() >= 4
        assert 10 < empty.sum() < 80


def test_real_rows_are_spread_and_paired(tmp_path: Path) -> None:
    uri = write_samples(tmp_path / "data", [*SAMPLES, *(s.replace(split="test") for s in SAMPLES)], per_file=24)
    rows = read_real_rows(uri, Select(split="train"), 12)
    assert len(rows) == 12
    assert len({r.row.subject_id for r in rows}) == 12
    for row in rows:
        assert row.row.split == "train"
        last = row.row.slice_index == 2
        assert (row.case("neighbour") is None) == last
        if row.following is not None:
            assert (row.following.volume_id, row.following.slice_index) == (row.row.volume_id, row.row.slice_index + 1)
        assert row.stranger is not None
        assert {row.row.acquisition, row.stranger.acquisition} == {SIEMENS, GE}
        assert row.case("unseen") is None
    assert len(read_real_rows(uri, Select(split=None), 500)) == 96


def test_a_mirrored_lesion_is_healthy_tissue() -> None:
    label = np.zeros((32, 32), np.uint8)
    label[4:8, 10:14] = 3
    row = slice_sample(1, label=label, labels={"lesion": 3})
    case = mirrored(row, ("lesion",))
    assert case is not None
    assert np.array_equal(case.before.label, label[::-1])
    assert not case.after.label.any()  # type: ignore[union-attr]
    assert mirrored(slice_sample(1), ("lesion",)) is None


def test_a_lesion_elsewhere_and_its_mirror_image_are_healthy_tissue() -> None:
    label = np.zeros((32, 32), np.uint8)
    label[9:12, 14:18] = 3
    body = np.zeros((1, 32, 32), np.float32)
    body[:, 4:28, 4:28] = 100
    row = slice_sample(1, label=label, labels={"lesion": 3}).replace(image=body, affine=np.diag([1.0, 1, 1, 1]))
    case = elsewhere(row, ("lesion",))
    assert case is not None
    place = case.before.label == 3
    assert place.sum() == 12
    assert (body[0, place] == 100).all()
    assert not (place & (label == 3)).any()
    assert not (place[::-1] & (label == 3)).any()
    assert not case.after.label.any()  # type: ignore[union-attr]
    assert elsewhere(row.replace(label=np.full_like(label, 3)), ("lesion",)) is None  # no room
    assert elsewhere(row.replace(affine=np.eye(4)[[2, 0, 1, 3]]), ("lesion",)) is None  # a slice without left and right


def test_one_subject_is_halved_by_rows() -> None:
    rows = [RealRow(s, None, None) for s in SAMPLES]
    alone = [RealRow(r.row.replace(subject_id="S1"), None, None) for r in rows]
    specs = [GateSpec(name="checkerboard", max=0.05)]
    found = {name: calibrate(Gates(specs), of, per_defect=5) for name, of in {"many": rows, "one": alone}.items()}
    assert found["many"].halves == "subjects"
    assert found["one"].halves == "rows"
    assert 0 < found["one"].rows < len(rows)
    assert found["one"].gates[0].proposed != specs[0]


def test_bounds_are_proposed_on_the_sides_that_a_gate_has() -> None:
    values = np.linspace(1, 2, 101)
    low = propose(GateSpec(name="changed", min=0), values, 0.1)
    assert low.max is None
    assert low.min == pytest.approx(1.1 * (1.1 / 1.5) ** 0.25, rel=1e-3)
    both = propose(GateSpec(name="changed", min=-9, max=9), values - 1.5, 0.1)
    assert (both.min, both.max) == (pytest.approx(-0.5), pytest.approx(0.5))
    assert propose(GateSpec(name="changed", min=7), [], 0.1).min == 7
    assert propose(GateSpec(name="changed", min=7), [1.0, 1.0], 0.1).min == 7


def test_calibration_counts_false_rejects_and_recall() -> None:
    rows = [RealRow(s, None, None) for s in SAMPLES]
    specs = [GateSpec(name="checkerboard", max=0.05), GateSpec(name="volume_ratio", min=0)]
    found = calibrate(Gates(specs), rows, per_defect=5)
    assert 0 < found.rows < len(rows)
    assert set(found.planted.values()) == {5}
    assert found.false_rejects == 0
    assert found.recall == {
        "void": 0,
        "shifted_label": 0,
        "swapped_label": 0,
        "checkerboard": 1,
        "blur": 0,
        "duplicate": 0,
    }
    assert found.gates[1].measured == 0  # no lesion anywhere: nothing to be measured, and nothing rejected
    blind = calibrate(Gates([GateSpec(name="checkerboard", max=1)]), rows, per_defect=5)
    assert blind.recall["checkerboard"] == 0
    assert blind.proposed_recall["checkerboard"] == 1
    grained = [RealRow(two_tissues(s, 0, grain=25), None, None) for s in range(16)]
    soft = calibrate(Gates([GateSpec(name="sharpness", min=0.6)]), grained, per_defect=5)
    assert soft.recall["blur"] == 1
    assert soft.false_rejects <= 0.2
    nothing_passes = calibrate(Gates([GateSpec(name="checkerboard", min=1)]), rows, per_defect=5)
    assert nothing_passes.false_rejects == 1


def test_the_command_prints_rates_and_writes_json(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(POLICY)
    uri = write_samples(tmp_path / "data", SAMPLES, per_file=24)
    app = typer.Typer(add_completion=False)
    app.command()(calibrate_command)
    out = tmp_path / "out.json"
    result = CliRunner().invoke(app, [str(tmp_path / "policy.yaml"), uri, "--rows", "48", "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert "checkerboard" in result.output
    told = " ".join(result.output.split())
    assert "volume_ratio: no row could be measured" in told
    assert "checkerboard: no row could be measured" not in told
    found = json.loads(out.read_text())
    assert found["false_rejects"] <= 0.05
    assert min(rate for defect, rate in found["recall"].items() if defect != "blur") >= 0.95  # no gate for that
    assert found["gates"]["volume_ratio"]["false_rejects"] is None
    one = write_samples(tmp_path / "one", SAMPLES[:3])
    elsewhere = POLICY.replace("select: {split: train}", "select: {where: {manufacturer: Acme}}")
    (tmp_path / "elsewhere.yaml").write_text(elsewhere)
    refused = CliRunner().invoke(app, [str(tmp_path / "elsewhere.yaml"), uri])
    assert "0 rows, no manufacturer 'Acme', nearest: " in " ".join(refused.stderr.split())
    result = CliRunner().invoke(app, [str(tmp_path / "policy.yaml"), one])
    assert result.exit_code == 2
    assert "at least 8 real rows" in result.stderr
