"""`augengine measure`: runs of known quality beside the rows that they were made from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import lesion_sample, tiny_spec, write_checkpoint, write_samples
from typer.testing import CliRunner

from augengine.cli import app
from augengine.diffusion.build import build
from augengine.diffusion.checkpoint import save_model, subject_hash
from augengine.diffusion.discriminative import SegmenterSpec
from augengine.errors import CheckpointError, DataError
from augengine.io.store import Store
from augengine.metrics.referee import Referee
from augengine.pipeline.units import INLINE
from augengine.records import Provenance, Sample
from augengine.report.measured import Asked, Features, Figure, measure_runs

LESION = ("necrosis", "oedema", "enhancing")
WHITE_MATTER = np.array([400.0, 350.0], np.float32)
SPLITS = {**dict.fromkeys(range(4), "train"), 4: "val", 5: "val", 6: "test", 7: "test", 8: "test", 9: "test"}


def source(subject: int) -> Sample:
    return lesion_sample(subject, split=SPLITS[subject])


def made(parent: Sample, name: str, **changes: Any) -> Sample:
    lineage = Provenance(f"{parent.sample_id}-{name}", parent.sample_id, "p", "d", "tumor_removal", {})
    return parent.replace(provenance=lineage, **changes)


def healed(parent: Sample) -> Sample:
    """White matter where the lesion was, in image and label; nothing else changes."""
    assert parent.label is not None
    gone = np.isin(parent.label, [parent.labels[name] for name in LESION])
    image = np.where(gone, WHITE_MATTER[:, None, None] + 5 * np.arange(32) % 7, parent.image)
    label = np.where(gone, parent.labels["white_matter"], parent.label)
    return made(parent, "healed", image=image.astype(np.float32), label=label.astype(np.uint8))


def relabelled(parent: Sample) -> Sample:
    """The lesion goes from the label alone."""
    return made(parent, "relabelled", label=healed(parent).label)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("measured")
    sources = [source(s) for s in SPLITS]
    later = [s for s in sources if s.split != "train"]
    return {
        "data": write_samples(folder / "data", sources, per_file=3),
        "copied": write_samples(folder / "copied" / "augmented", [made(s, "copied") for s in later], per_file=4),
        "healed": write_samples(folder / "healed", [healed(s) for s in later], per_file=4),
        "relabelled": write_samples(folder / "relabelled", [relabelled(s) for s in later], per_file=4),
    }


def referee(folder: Path, subjects: tuple[int, ...] = (0, 1)) -> str:
    spec = tiny_spec("painter", channels=("t1", "flair")).model_copy(
        update={
            "kind": "segmenter",
            "network": SegmenterSpec(channels=(8, 16), res_units=1),
            "diffusion": None,
            "regions": {"tumour": LESION, "csf": ("csf",)},
            "mask": "none",
            "lesion": (),
            "labels": (),
            "subject_hashes": tuple(subject_hash(source(s).subject_id) for s in subjects),
        }
    )
    store = Store(str(folder))
    save_model(store, spec, build(spec, 0).state_dict())
    return store.uri


@pytest.fixture
def bright_is_tumour(monkeypatch: pytest.MonkeyPatch) -> None:
    """A referee that calls tumour what is brighter than white matter in FLAIR."""

    def seen(self: Referee, samples: list[Sample]) -> list[np.ndarray]:
        return [np.stack([s.image[1] > 400, (s.image[0] < 150) & (s.image[0] > 40)]) for s in samples]

    monkeypatch.setattr(Referee, "seen", seen)


def of(figures: list[Figure], run: str) -> dict[str, Figure]:
    return {figure.measure: figure for figure in figures if figure.run == run}


def test_runs_of_known_quality(folders: dict[str, str], tmp_path: Path, bright_is_tumour: None) -> None:
    runs = {name: folders[name] for name in ("copied", "healed", "relabelled")}
    asked = Asked(run_split="test", lesion=LESION, referee=referee(tmp_path))
    figures, notes = measure_runs(folders["data"], runs, asked, actors=INLINE)
    copied, cured, left = (of(figures, name) for name in runs)
    assert copied["frechet"].estimate == pytest.approx(0, abs=1e-6)
    assert cured["frechet"].estimate > 1e-3
    assert copied["ssim"].estimate == 1
    assert 0.5 < cured["ssim"].estimate < 0.99
    assert cured["ssim"].interval is not None
    assert cured["ssim"].interval.subjects == 4
    assert "tumor_residual" not in copied, "no lesion was removed"
    assert (cured["tumor_residual"].estimate, cured["residual_floor"].estimate) == (0, 0)
    assert left["tumor_residual"].estimate > 0.5
    assert left["tumor_residual"].judge.startswith("segmenter:")
    assert (cured["diffmap_iou"].estimate, left["diffmap_iou"].estimate) == (1, pytest.approx(0, abs=1e-6))
    assert left["variance_ratio"].estimate > cured["variance_ratio"].estimate
    assert copied["gen_dice"].estimate == copied["gen_dice_real"].estimate > 0.5
    assert cured["gen_dice"].estimate > left["gen_dice"].estimate
    assert copied["label_frechet"].judge == "label-shape-1 of necrosis, oedema, enhancing"
    assert any("copied: no row that a lesion was removed from" in note for note in notes)


def test_a_threshold_needs_validation_rows(folders: dict[str, str], tmp_path: Path) -> None:
    test_alone = write_samples(tmp_path / "run", [healed(source(s)) for s in (6, 7, 8)])
    figures, notes = measure_runs(folders["data"], {"x": test_alone}, Asked(lesion=LESION), actors=INLINE)
    assert "diffmap_iou" not in of(figures, "x")
    assert any("split val" in note for note in notes)
    given, _ = measure_runs(folders["data"], {"x": test_alone}, Asked(lesion=LESION, threshold=0.02), actors=INLINE)
    assert of(given, "x")["diffmap_iou"].estimate > 0.9


def test_rows_that_nothing_was_made_of_are_compared_as_a_set(folders: dict[str, str]) -> None:
    figures, notes = measure_runs(folders["data"], {"itself": folders["data"]}, Asked(), actors=INLINE)
    assert {"frechet", "kid", "mmd", "frechet_same_n"} <= set(of(figures, "itself"))
    assert "ssim" not in of(figures, "itself")
    assert any("as a set alone" in note for note in notes)


def test_judges_that_know_the_rows_or_cannot_answer_are_refused(folders: dict[str, str], tmp_path: Path) -> None:
    runs, biased = {"healed": folders["healed"]}, referee(tmp_path / "biased", (6,))
    with pytest.raises(DataError, match="only subjects that did not train it"):
        measure_runs(folders["data"], runs, Asked(lesion=LESION, referee=biased), actors=INLINE)
    with pytest.raises(CheckpointError, match="region of lesion labels"):
        measure_runs(folders["data"], runs, Asked(lesion=("necrosis",), referee=biased), actors=INLINE)
    features = Features("checkpoint", biased, "0" * 8)
    with pytest.raises(CheckpointError, match="sha256"):
        measure_runs(folders["data"], runs, Asked(extractors=(features,)), actors=INLINE)


def test_the_command_writes_table_json_and_plot(folders: dict[str, str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    runs = [folders["copied"], f"cured={folders['healed']}"]
    done = CliRunner().invoke(app, ["measure", folders["data"], *runs, "--out", str(out), "--inline"])
    assert done.exit_code == 0, done.output
    found = json.loads((out / "measures.json").read_text())
    assert {figure["run"] for figure in found["figures"]} == {"copied", "cured"}
    table = (out / "measures.md").read_text()
    assert table.startswith("| measure | rests on | copied | cured |")
    assert "| ssim ↑ |" in table
    assert "(real–real" in table
    assert (out / "measures.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["DATA", "RUN", "RUN"], "name of its own"),
        (["DATA", "RUN", "--extractor", "resnet50"], "weights_path"),
        (["DATA", "RUN", "--extractor", "inception=x"], "valid: checkpoint, meshnet"),
        (["DATA", "RUN", "--split", "tset"], "'test'"),
    ],
)
def test_mistakes_are_one_line(folders: dict[str, str], arguments: list[str], message: str) -> None:
    told = {"DATA": folders["data"], "RUN": folders["healed"]}
    done = CliRunner().invoke(app, ["measure", *(told.get(a, a) for a in arguments), "--inline"])
    assert done.exit_code == 2
    assert message in done.output
    assert "Traceback" not in done.output


def test_a_sweep_runs_every_combination_and_measures_them_side_by_side(tmp_path: Path) -> None:
    rows = [lesion_sample(s, split=SPLITS[s]) for s in SPLITS]
    data, out = write_samples(tmp_path / "data", rows), tmp_path / "out"
    policy = tmp_path / "policy.yaml"
    policy.write_text(
        "{version: 1, name: sweep, edit: tumor_removal, params: {labels: [necrosis, oedema, enhancing]},"
        " sampler: {solver: ddim, steps: 2}, gates: [{name: changed, min: 0.0}]}"
    )
    painter = write_checkpoint(tmp_path / "painter", channels=("t1", "flair"), kind="painter")
    vary = ["--vary", "sampler.steps=1,2; sampler.strength=0.5,1", "--vary", "params.margin_mm=4,8"]
    arguments = [str(policy), data, *vary, "--set", "select.split=test", "--checkpoint", painter]
    done = CliRunner().invoke(app, ["sweep", *arguments, "--out", str(out), "--inline"])
    assert done.exit_code == 0, done.output
    found = json.loads((out / "measures.json").read_text())
    names = [f"steps={s},strength={v},margin_mm={m}" for s, v in (("1", "0.5"), ("2", "1")) for m in "48"]
    assert list(found["about"]["runs"]) == names
    ssim = {figure["run"]: figure["estimate"] for figure in found["figures"] if figure["measure"] == "ssim"}
    assert all(ssim[a] > ssim[b] for a, b in zip(names[::2], names[1::2], strict=True)), "a wider margin paints more"
    done = CliRunner().invoke(app, ["sweep", *arguments, "--vary", "sampler.guidance", "--out", str(out), "--inline"])
    assert (done.exit_code, "give key=A,B" in done.output) == (2, True)


POLICY = (
    "{version: 1, name: sweep, edit: tumor_removal, params: {labels: [necrosis, oedema, enhancing]},"
    " sampler: {solver: ddim, steps: 2}, gates: [{name: changed, min: GATE}], output: {max_reject_rate: 0.5}}"
)


@pytest.fixture
def swept(folders: dict[str, str], tmp_path: Path) -> list[str]:
    """Arguments of a sweep over two settings, and where it writes."""
    (tmp_path / "policy.yaml").write_text(POLICY.replace("GATE", "0.0"))
    painter = write_checkpoint(tmp_path / "painter", channels=("t1", "flair"), kind="painter")
    return [
        str(tmp_path / "policy.yaml"),
        folders["data"],
        "--vary",
        "sampler.steps=1,2",
        "--checkpoint",
        painter,
        "--set",
        "select.split=test",
        "--inline",
        "--out",
        str(tmp_path / "out"),
    ]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--referee", "PAINTER"], "a referee is a segmenter of single rows"),
        (["--predictor", "PAINTER"], "an acquisition predictor is needed"),
        (["--extractor", "resnet50=/nowhere/x.safetensors"], "weights are never downloaded"),
        (["--vary", "sampler.strength=1,0.5", "--set", "select.where.manufacturer=NOBODY"], "takes no row"),
        (
            ["--vary", "select.split=test,val"],
            "set a key once, and a section before its keys; found select",
        ),
    ],
)
def test_a_sweep_makes_no_row_before_everything_is_looked_at(
    swept: list[str], tmp_path: Path, flags: list[str], message: str
) -> None:
    told = [str(tmp_path / "painter") if flag == "PAINTER" else flag for flag in flags]
    done = CliRunner().invoke(app, ["sweep", *swept, *told])
    assert (done.exit_code, message in done.output) == (2, True), done.output
    assert not list(tmp_path.glob("out/*/accepted")), "a setting was run before the mistake was seen"


def test_a_sweep_without_its_checkpoint_makes_no_row(swept: list[str], tmp_path: Path) -> None:
    at = swept.index("--checkpoint") + 1
    done = CliRunner().invoke(app, ["sweep", *swept[:at], "/nowhere", *swept[at + 1 :]])
    assert (done.exit_code, "/nowhere" in done.output) == (2, True), done.output
    assert not list(tmp_path.glob("out/*/accepted"))


def test_runs_to_be_measured_are_looked_at_before_any_row(folders: dict[str, str], tmp_path: Path) -> None:
    steps: list[object] = []
    runs = {"there": folders["healed"], "gone": str(tmp_path / "gone")}
    with pytest.raises(DataError, match="gone"):
        measure_runs(folders["data"], runs, Asked(), actors=INLINE, report=lambda *told: steps.append(told))
    assert not steps


def test_a_setting_that_rejects_too_much_is_told(swept: list[str], tmp_path: Path) -> None:
    """Gates that no row passes: the runs are made and measured, and the notes say so."""
    (tmp_path / "policy.yaml").write_text(POLICY.replace("GATE", "2.0"))
    done = CliRunner().invoke(app, ["sweep", *swept, "--keep-going"])
    assert "steps=1: " in done.output, done.output
    assert "rejected" in done.output
