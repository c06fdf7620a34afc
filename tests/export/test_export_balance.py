"""Exports in which augmented rows take the place of real ones of their kind."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from balanced_rows import HEALTHY, ILL, MADE, row
from training_cases import write_rows
from typer.testing import CliRunner

from augengine.cli import app
from augengine.errors import DataError
from augengine.train.rows import SplitRows, dataset_facts

HELD = range(50, 55)
"""Numbers of rows with a lesion that are for validation."""


@pytest.fixture
def folders(tmp_path: Path) -> tuple[str, str]:
    """Real rows, and rows that were made from the first of them."""
    real = [row(n, ill=n < ILL) for n in range(ILL + HEALTHY)]
    held = [row(n, ill=True).replace(split="val") for n in HELD]
    made = []
    for n in range(100, 100 + MADE):
        sample = row(n, ill=True, augmented=True)
        assert sample.provenance is not None
        made.append(sample.replace(provenance=replace(sample.provenance, parent_id=real[0].sample_id)))
    return write_rows(tmp_path / "real", [*real, *held]), write_rows(tmp_path / "made", made)


def call(folders: tuple[str, str], out: Path, *words: str) -> tuple[int, str]:
    real, made = folders
    told = ["export", "monai", real, "--augmented", made, "--out", str(out), "--inline", *words]
    found = CliRunner().invoke(app, told)
    return found.exit_code, found.output


def test_augmented_rows_take_the_place_of_real_ones_of_their_kind(folders: tuple[str, str], tmp_path: Path) -> None:
    """Half of the ten real rows with a lesion give way to five augmented ones; validation rows stay."""
    code, text = call(folders, tmp_path / "out", "--balance", "core", "--augmented-per-real", "0.5")
    assert code == 0, text
    record = json.loads((tmp_path / "out/export.json").read_text())
    assert record["counts"] == {"train augmented": 5, "train real": 5 + HEALTHY, "val real": len(HELD)}
    assert record["left_out"] == {"replaced by augmented rows": 5, "augmented_per_real": MADE - 5}
    assert "replaced by augmented rows" in text


def test_without_balance_all_real_rows_stay(folders: tuple[str, str], tmp_path: Path) -> None:
    assert call(folders, tmp_path / "out", "--augmented-per-real", "0.5")[0] == 0
    record = json.loads((tmp_path / "out/export.json").read_text())
    assert record["counts"] == {"train augmented": 15, "train real": ILL + HEALTHY, "val real": len(HELD)}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--balance", "core"), "augmented_per_real says which share"),
        (("--balance", "cor", "--augmented-per-real", "0.5"), "unknown label 'cor'"),
        (("--balance", "core", "--augmented-per-real", "1", "--channels", "t1,t1"), "--channels: give each name once"),
        (("--balance", "core", "--augmented-per-real", "0.5", "--stack"), "a stack needs all slices of its volume"),
    ],
)
def test_what_cannot_be_balanced_is_refused(
    folders: tuple[str, str], tmp_path: Path, words: tuple[str, ...], told: str
) -> None:
    code, text = call(folders, tmp_path / "out", *words)
    assert code == 2
    assert told in " ".join(text.split())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("ill", "kind"), [(True, "that show core"), (False, "without core")])
def test_the_kind_of_row_that_there_are_too_few_of_is_named(tmp_path: Path, ill: bool, kind: str) -> None:
    """Of three rows of each kind, one augmented row takes a place: all three would have to."""
    real = [row(n, ill=n < 3) for n in range(6)]
    sample = row(100, ill=ill, augmented=True)
    assert sample.provenance is not None
    made = sample.replace(provenance=replace(sample.provenance, parent_id=real[0].sample_id))
    folders = write_rows(tmp_path / "real", real), write_rows(tmp_path / "made", [made])
    code, text = call(folders, tmp_path / "out", "--balance", "core", "--augmented-per-real", "1")
    assert code == 2
    assert f"1 augmented rows {kind} for each of 3 real ones are 3; found 1" in " ".join(text.split())
    with pytest.raises(DataError, match=f"1 augmented rows {kind} for each of 3 real ones are 3; found 1"):
        dataset_facts(folders, SplitRows("train", balance=("core",), augmented_per_real=1.0))
