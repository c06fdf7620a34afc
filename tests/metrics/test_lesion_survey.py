"""Lesions of shards: contrast by patient, the sample of them, and the bank that it becomes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from builders import lesion_sample, write_samples
from typer.testing import CliRunner

from augengine.cli import app
from augengine.diffusion.checkpoint import load_model, subject_hash
from augengine.diffusion.lesion_bank import LesionBank
from augengine.errors import DataError
from augengine.io.store import Store
from augengine.metrics.lesion_survey import LesionSurvey, SurveyLesions
from augengine.metrics.partial import Pair
from augengine.report.lesions import site_rows, write_bank

LABELS = ("necrosis", "oedema", "enhancing")


def surveyed(*samples, kept: int = 8, box: int = 24) -> LesionSurvey:
    found = SurveyLesions(LABELS, kept, box, 0.0)([Pair(sample) for sample in samples])
    assert found is not None
    return found


def test_the_ratio_is_that_of_the_phantom() -> None:
    """The median of the lesion is its oedema or its rim, on tissue of 400 (t1) and 350 (flair)."""
    patient = surveyed(lesion_sample(1)).patients["L001"]
    sample = lesion_sample(1)
    inside = np.isin(sample.label, [1, 2, 4])
    expected = [np.median(sample.image[c][inside]) / tissue for c, tissue in enumerate((400, 350))]
    assert patient.contrast.ratios == pytest.approx(expected, rel=0.03)
    assert (patient.rows, patient.lesion_rows) == (1, 1)
    assert patient.volume_ml == pytest.approx(inside.sum() * 0.064)


def test_parts_of_a_data_set_add_up_in_any_order_and_the_sample_is_the_same() -> None:
    samples = [lesion_sample(n) for n in range(6)]
    whole = surveyed(*samples, kept=3)
    parts = [surveyed(sample, kept=3) for sample in samples]
    merged = parts[5]
    for part in parts[:5]:
        merged = merged.merge(part)
    assert merged.patients == whole.patients
    assert [found.rank for found in merged.lesions] == [found.rank for found in whole.lesions]
    assert len(whole.lesions) == 3


def test_only_training_subjects_lend_lesions() -> None:
    found = surveyed(lesion_sample(1, split="test"), lesion_sample(2))
    assert {lesion.subject_id for lesion in found.lesions} == {"L002"}
    assert set(found.patients) == {"L001", "L002"}
    assert len(found.recipients) == 1


def test_the_crop_holds_the_lesion_and_nothing_of_its_surroundings() -> None:
    sample = lesion_sample(1)
    (found,) = surveyed(sample).lesions
    assert found.crop.label.shape == (24, 24)
    counts = {n: int((found.crop.label == n).sum()) for n in (1, 2, 3)}
    assert counts == {n: int((sample.label == code).sum()) for n, code in ((1, 1), (2, 2), (3, 4))}
    flair = found.crop.log_ratio[1]
    assert flair.min() > np.log(400 / 350) - 0.15  # tissue would have 0
    assert found.crop.spacing_mm == (4.0, 4.0)


def test_a_bank_knows_whose_lesions_it_holds(tmp_path: Path) -> None:
    found = surveyed(*(lesion_sample(n) for n in range(3)))
    write_bank(found, LABELS, LABELS, 24, Store(str(tmp_path)))
    bank = load_model(str(tmp_path / "bank"))
    assert isinstance(bank.network, LesionBank)
    assert len(bank.network) == 3
    assert set(bank.spec.subject_hashes) == {subject_hash(f"L{n:03d}") for n in range(3)}
    assert bank.spec.lesion == LABELS
    again = bank.network.crop(0)
    assert np.allclose(again.log_ratio, found.lesions[0].crop.log_ratio, atol=2e-3)
    assert (again.label == found.lesions[0].crop.label).all()


def test_a_box_that_is_too_small_is_said() -> None:
    found = surveyed(lesion_sample(1), box=5)
    assert (found.lesions, found.too_large) == ([], 1)
    with pytest.raises(DataError, match="none that fits 5 voxels, 1 larger"):
        write_bank(found, LABELS, LABELS, 5, Store("memory://bank"))


def test_rows_of_several_shapes_are_refused() -> None:
    with pytest.raises(DataError, match="rows must share their shape"):
        surveyed(lesion_sample(1), lesion_sample(2, size=40))


def test_a_label_that_no_row_knows_is_refused(tmp_path: Path) -> None:
    data = write_samples(tmp_path / "data", [lesion_sample(1)])
    flags = ["--out", str(tmp_path / "out"), "--inline", "--lesion", "oedema,tumour"]
    done = CliRunner().invoke(app, ["lesions", data, *flags])
    assert done.exit_code == 2
    assert "--lesion: unknown label 'tumour'" in " ".join(done.output.split())
    assert not (tmp_path / "out").exists()


def test_the_command_tells_each_site_and_writes_all(tmp_path: Path) -> None:
    samples = [lesion_sample(n, site="A" if n % 2 else "B") for n in range(6)]
    data = write_samples(tmp_path / "data", samples)
    out = tmp_path / "lesions"
    done = CliRunner().invoke(app, ["lesions", data, "--out", str(out), "--inline", "--box", "24"])
    assert done.exit_code == 0, done.output
    assert "6 lesions of 6 training subjects" in " ".join(done.output.split())
    figures = json.loads((out / "lesions.json").read_text())
    assert len(figures["patients"]) == 6
    assert {p["site"] for p in figures["patients"].values()} == {"A", "B"}
    assert (out / "lesions.png").read_bytes().startswith(b"\x89PNG")
    bank = load_model(str(out / "bank"))
    assert set(bank.spec.lesion) == set(LABELS)  # of the default labels, those that there are
    assert np.unique(bank.network.crop(0).label).tolist() == [0, 1, 2, 3]
    _, rows = site_rows(surveyed(*samples))
    assert [row[:4] for row in rows] == [["A", "3", "3", "100%"], ["B", "3", "3", "100%"]]
