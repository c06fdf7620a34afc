"""What files and flags alone can tell is refused before Ray starts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from builders import slice_sample, write_checkpoint, write_samples
from typer.testing import CliRunner

from augengine.commands import ensembles, ingest, measure, pseudo_label, sweep, train
from augengine.downstream.protocols import protocol
from augengine.downstream.results import PLAN

ROOT = Path(__file__).parents[1]
COMMANDS = {
    "ingest": (ingest, ingest.ingest_command),
    "train": (train, train.train_command),
    "pseudo-label": (pseudo_label, pseudo_label.pseudo_label_command),
    "measure": (measure, measure.measure_command),
    "sweep": (sweep, sweep.sweep_command),
    "ensembles": (ensembles, ensembles.ensembles),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("files")
    (folder / "empty").mkdir()
    (folder / "of_unet").mkdir()
    plan = {
        "protocol": protocol("brats_paper").model_dump(mode="json"),
        "segmenter": "unet",
        "steps": 1,
        "ratio": 1.0,
        "trials": [],
        "chunks": [],
    }
    (folder / "of_unet" / PLAN).write_text(json.dumps(plan))
    return {
        "rows": write_samples(folder / "rows", [slice_sample(1)]),
        "empty": str(folder / "empty"),
        "absent": str(folder / "absent"),
        "of_unet": str(folder / "of_unet"),
        "generator": write_checkpoint(folder / "generator"),
        "recipes": str(ROOT / "augengine/recipes"),
        "policy": "duke_acquisition",
        "out": str(folder / "out"),
    }


@pytest.mark.parametrize(
    ("name", "args", "says"),
    [
        ("ingest", "{absent} --out {out}", "the data must be a folder"),
        ("ingest", "{empty} --layout dukee --out {out}", "did you mean 'duke'"),
        ("train", "{recipes}/pcf_dit.yaml --data {rows} --out {out}", "--part autoencoder=FOLDER"),
        ("train", "{recipes}/pcf_dit.yaml --data {rows} --part autoencoder={absent} --out {out}", "no model.json"),
        ("train", "{recipes}/cddgm.yaml --data {rows} --workers 3 --out {out}", "divide evenly"),
        ("train", "{recipes}/pcf_vae_paper.yaml --data {rows} --out {out}", "give --set pretrained=FOLDER"),
        ("train", "{recipes}/pcf_vae_paper.yaml --data {rows} --set pretrained={empty} --out {out}", "no config.json"),
        ("pseudo-label", "{rows} --segmenter {absent} --out {out}", "no model.json"),
        ("pseudo-label", "{rows} --segmenter {generator} --out {out}", "come from a segmenter"),
        ("measure", "{rows} {rows} --referee {absent} --out {out}", "no model.json"),
        ("sweep", "{policy} {rows} --vary sampler.steps=1,2 --checkpoint {absent} --out {out}", "no model.json"),
        ("ensembles", "{empty} --data {rows}", "holds experiment.json"),
        ("ensembles", "{of_unet} --data {rows}", "ldm_seg draws samples; found unet"),
        ("ensembles", "{of_unet} --data {rows} --samples 5", "two numbers or more"),
        ("ensembles", "{of_unet} --data {rows} --samples 1,2.5", "a whole number; found 2.5"),
    ],
)
def test_no_ray_is_needed_to_refuse(
    name: str, args: str, says: str, files: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    module, command = COMMANDS[name]

    def connect() -> None:
        raise AssertionError("Ray starts")

    monkeypatch.setattr(module, "connect", connect)
    app = typer.Typer(add_completion=False)
    app.command()(command)
    result = CliRunner().invoke(app, args.format(**files).split())
    assert result.exit_code == 2, result.exception
    assert says in result.stderr
    assert len(result.stderr.splitlines()) == 1
