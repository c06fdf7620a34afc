"""`jobs/evaluate.py`: a leak ends it with a non-zero exit code and the subject's name; flags that cannot be obeyed."""

from __future__ import annotations

from pathlib import Path

import pytest
from builders import slice_sample, write_samples
from toy_experiments import Threshold
from typer import Typer
from typer.testing import CliRunner, Result

from augengine.bundled import PROTOCOLS
from augengine.commands.evaluate import evaluate
from augengine.downstream.segmenters import SEGMENTERS
from augengine.records import Provenance, Sample

TISSUES = {"fat": 1, "fibroglandular": 2}


@pytest.fixture
def data(tmp_path: Path) -> str:
    splits = {"train": range(1, 5), "val": range(5, 7), "test": range(7, 11)}
    rows = [slice_sample(n, split=split, labels=TISSUES) for split, numbers in splits.items() for n in numbers]
    return write_samples(tmp_path / "data", rows)


def augmented(subject: int) -> Sample:
    source = slice_sample(subject, labels=TISSUES)
    return source.replace(provenance=Provenance(f"cf-{subject}", source.sample_id, "p", "d", "acquisition", {}))


def called(*flags: str) -> Result:
    app = Typer()
    app.command()(evaluate)
    return CliRunner().invoke(app, list(flags))


@pytest.mark.usefixtures("ray_session")
def test_an_injected_test_subject_ends_the_command_and_is_named(data: str, tmp_path: Path) -> None:
    rows = write_samples(tmp_path / "augmented", [augmented(1), augmented(2), augmented(8)])
    out = tmp_path / "out"
    flags = ["--protocol", "duke_transductive", "--arms", "counterfactual", "--steps", "1", "--seeds", "1"]
    result = called("--data", data, "--augmented", rows, "--out", str(out), *flags)
    assert result.exit_code == 2
    assert "S008 is the row's own subject" in result.output
    assert not (out / "segmenters").exists()


def test_a_segmenter_without_recipes_is_told_its_steps(data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SEGMENTERS, "threshold", Threshold)
    result = called("--data", data, "--arms", "real", "--segmenter", "threshold")
    assert result.exit_code == 2, result.output
    assert "no number of steps of its own; found threshold; give --steps" in result.output


def test_flags_that_cannot_be_obeyed(data: str, tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text((PROTOCOLS / "duke_strict.yaml").read_text().replace("cells:", "cels:"))
    line = 1 + own.read_text().splitlines().index("cels:")
    cases = {
        f"own.yaml:{line}: unknown key 'cels'; did you mean 'cells'?": ["--data", data, "--protocol", str(own)],
        "rows of a folder get a name of their own": ["--data", data, "--augmented", "classical=x"],
        "unknown arm 'removl'; did you mean 'removal'?": [
            "--data",
            data,
            "--augmented",
            "removal=x",
            "--arms",
            "removl",
        ],
        "some of the training patients, not all": ["--data", data, "--draws", "3"],
        "give numbers of patients, or all": ["--data", data, "--train-subjects", "5,few"],
        "keeps the rules of the experiment": ["--tables-only", "--largest-component", "--out", str(tmp_path)],
        "either --data or --phantom": ["--out", str(tmp_path)],
        "such as duke_paper": ["--data", data, "--protocol", "dukepaper"],
        "did you mean 'counterfactual'": ["--data", data, "--arms", "counterfactuals"],
        "takes recipes for unet (segmenter), error (error_corrector)": [
            "--data",
            data,
            "--segmenter",
            "dmcie",
            "--arms",
            "real",
        ],
        "takes recipes for unet (segmenter); found unet (acquisition)": [
            "--data",
            data,
            "--arms",
            "real",
            "--recipe",
            "unet=cddgm",
        ],
        "recipe pcf-dit is built on autoencoder, which the segmenter pcf does not train": [
            "--data",
            data,
            "--arms",
            "real",
            "--segmenter",
            "pcf",
            "--recipe",
            "counterfactual=pcf_dit,prompter=unet3d",
        ],
        "give numbers": ["--data", data, "--ratio-curve", "a,b"],
    }
    for says, flags in cases.items():
        result = called(*flags)
        assert result.exit_code == 2, says
        assert says in result.output, result.output
