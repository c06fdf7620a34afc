"""Every command of README and docs, read out of the Markdown: run in order on phantoms, or excepted with a reason."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chain_commands import PAGES, commands
from chain_toys import CHAINS, EXCEPTIONS, chain, hide_masks, phantom, run_all, stable_diffusion_vae, toy_project

from augengine import bundled

VENDOR_CELLS = ("Both → Both", "GE → GE", "GE → Siemens", "Siemens → Siemens", "Siemens → GE")


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> Iterator[Path]:
    """What `/data` is in the pages, and the working directory: a project in small."""
    folder = tmp_path_factory.mktemp("disk")
    toy_project(folder / "project")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder / "project")
        patch.setattr(bundled, "RECIPES", folder / "project/recipes")
        patch.setattr(bundled, "POLICIES", folder / "project/policies")
        yield folder


@pytest.fixture(scope="module")
def duke(disk: Path) -> Path:
    """Patients of two vendors, half of them with masks."""
    flags = ("--subjects", "40", "--seed", "5")
    root = phantom(disk, "Duke-Breast-Cancer-MRI", "duke-classic", *flags)
    hide_masks(root)
    return disk


@pytest.fixture(scope="module")
def brats(disk: Path) -> Path:
    phantom(disk, "BraTS2021", "brats2021", "--labels", "tissue", "--subjects", "20")
    phantom(disk, "BraTS2023", "brats2023", "--subjects", "20")
    return disk


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def figures(folder: Path) -> dict[tuple[str, str], float]:
    """(run, measure) to value of a table of measures, all three files of which must be there."""
    assert (folder / "measures.md").read_text().startswith("| measure | rests on |")
    assert (folder / "measures.png").read_bytes().startswith(b"\x89PNG")
    return {(f["run"], f["measure"]): f["estimate"] for f in read(folder / "measures.json")["figures"]}


def cells(folder: Path) -> set[str]:
    """Cells of an evaluation whose real arm has rows in the tables, which say how many patients were tested."""
    tables = (folder / "tables.md").read_text()
    shown = {cell: "| {} | {} | real |".format(*cell.split(" → ")) in tables for cell in (*VENDOR_CELLS, "all → all")}
    return {cell for cell, there in shown.items() if there}


def test_every_command_is_run_or_excepted() -> None:
    shown = {(c.page, c.text) for page in PAGES for c in commands(page)}
    run = {(c.page, c.text) for name in CHAINS for c in chain(name)}
    left = {(page, text) for page, text in shown - run if not text.startswith(tuple(EXCEPTIONS))}
    assert not left, f"neither a chain nor an exception: {sorted(left)}"
    idle = [begins for begins in EXCEPTIONS if not any(text.startswith(begins) for _, text in shown - run)]
    assert not idle, f"exceptions for commands that no page has, or that a chain runs: {idle}"
    own = Path(__file__).read_text()
    assert all(f'chain("{name}")' in own for name in CHAINS), "a chain that no test runs"


@pytest.mark.slow
def test_duke_paper(duke: Path) -> None:
    run_all(chain("004 paper"), duke)
    found = figures(duke / "sweep")
    assert {run for run, _ in found} == {"steps=2,strength=0.4,guidance=3", "steps=3,strength=0.8,guidance=3"}
    for measure in ("ssim", "frechet", "mmd", "model.gain", "field_strength_t.top1_before", "echo_time_ms.error"):
        assert ("steps=3,strength=0.8,guidance=3", measure) in found, measure
    assert cells(duke / "table3") == set(VENDOR_CELLS)


@pytest.mark.long
def test_duke_strict(duke: Path) -> None:
    run_all(chain("004 strict"), duke)
    assert cells(duke / "table3_strict") == set(VENDOR_CELLS)
    for vendor, normal in (("siemens", "SIEMENS"), ("ge", "GE MEDICAL SYSTEMS")):
        assert read(duke / vendor / "checkpoint/model.json")["manufacturers"] == [normal]


@pytest.mark.long
def test_duke_transductive(duke: Path) -> None:
    if not (duke / "split/_SUCCESS.json").exists():
        run_all(chain("004 strict")[:1], duke)
    run_all(chain("004 transductive"), duke)
    assert cells(duke / "table3_transductive") == set(VENDOR_CELLS)


@pytest.mark.long
def test_mask_ablated_training(brats: Path) -> None:
    run_all(chain("001"), brats)
    found = figures(brats / "table2")
    for run in ("m1_drawn", "m2_drawn", "m3_drawn"):
        for measure in ("frechet", "kid", "ssim", "gen_dice"):
            assert (run, measure) in found, (run, measure)
    for run in ("m2_healed", "m3_healed"):
        for measure in ("tumor_residual", "residual_floor", "diffmap_iou"):
            assert (run, measure) in found, (run, measure)
    assert read(brats / "m3/checkpoint/model.json")["channels"] == ["flair"]
    assert {"csf", "grey_matter", "white_matter", "oedema"} <= set(read(brats / "m3/checkpoint/model.json")["labels"])


@pytest.mark.long
def test_promptable_counterfactuals(brats: Path) -> None:
    stable_diffusion_vae(brats / "sd-vae-ft-ema")
    run_all(chain("000"), brats)
    assert cells(brats / "pcf") == {"all → all"}
    assert ("moved_dit", "ssim") in figures(brats / "moved")
    assert read(brats / "pcf_dit_paper/checkpoint/model.json")["parts"]["autoencoder"]["pretrained"]
    for folder in ("prompts_unet", "prompts_dit"):
        found = figures(brats / folder)
        assert [run for run, measure in found if measure == "void_fraction"] == [
            f"mass_effect_margin_mm={mm},beyond_brain={beyond}" for mm in (0, 10) for beyond in ("false", "true")
        ]


@pytest.mark.long
def test_ldm_seg(brats: Path) -> None:
    run_all(chain("002"), brats)
    assert cells(brats / "ldm_seg") == {"all → all"}
    by_size = read(brats / "ldm_seg/ensembles.json")
    assert {figure["samples"] for figure in by_size["figures"]} == {1, 2}
    assert by_size["plateau"]["all → all"] in (1, 2)
    assert ("drawn", "label_frechet") in figures(brats / "table1")


@pytest.mark.long
def test_dmcie(disk: Path) -> None:
    root = phantom(disk, "BraTS2020", "brats2021", "--subjects", "12")
    cases = sorted(path for path in root.iterdir() if path.is_dir())
    for n, case in enumerate(cases, 1):  # the years differ in the names of their cases alone
        new = f"BraTS20_Training_{n:03d}"
        for file in list(case.iterdir()):
            file.rename(case / file.name.replace(case.name, new))
        case.rename(root / new)
    run_all(chain("003"), disk)
    assert cells(disk / "dmcie") == {"all → all"}


@pytest.mark.slow
def test_lesion_insertion(brats: Path) -> None:
    run_all(chain("lesion insertion"), brats)
    survey = read(brats / "lesions/lesions.json")
    assert survey["about"]["lesion"] == ["necrosis", "enhancing", "oedema"]
    counts = read(brats / "inserted/augmented/manifest.json")["counts"]
    assert counts["accepted"] > 0
    assert counts["failed"] == 0


@pytest.mark.slow
def test_readme(brats: Path) -> None:
    run_all(chain("README"), brats)
    assert (brats / "first_run/augmented/contact_sheet.png").is_file()
    assert b"Synthetic data" in (brats / "first.html").read_bytes()


@pytest.mark.long
def test_start(disk: Path) -> None:
    run_all(chain("start"), disk)
    assert Path("runs/first/augmented/contact_sheet.png").is_file()
    assert read(Path("runs/first/augmented/manifest.json"))["counts"]["accepted"] > 0
    assert b"Synthetic data" in Path("runs/first.html").read_bytes()


@pytest.mark.long
def test_how_to_use_nifti(disk: Path) -> None:
    phantom(disk, "mine", "brats2021", "--subjects", "20")
    run_all(chain("how to use NIfTI"), disk)
    counts = read(disk / "mine_run/augmented/manifest.json")["counts"]
    assert counts["accepted"] > 0
    assert counts["failed"] == 0
    run_all(chain("how to calibrate"), disk)
    assert read(disk / "mine_gates.json")


@pytest.mark.long
def test_how_to_fine_tune(disk: Path) -> None:
    phantom(disk, "own", "brain-shards", "--labels", "tissue", "--subjects", "12", "--seed", "5")
    run_all(chain("how to fine-tune"), disk)
    tuned = read(disk / "tuned/checkpoint/model.json")
    assert tuned["initialised_from"] == read(disk / "pretrained/checkpoint/model.json")["sha256"]


@pytest.mark.slow
def test_how_to_use_brats(disk: Path) -> None:
    run_all(chain("how to use BraTS"), disk)
    assert Path("runs/healed/augmented/contact_sheet.png").is_file()


@pytest.mark.slow
def test_how_to_use_duke(duke: Path) -> None:
    run_all(chain("how to use Duke"), duke)
    assert (duke / "run/augmented/contact_sheet.png").is_file()
    assert (duke / "steps/augmented/contact_sheet.png").is_file()
    assert b"Synthetic data" in (duke / "report.html").read_bytes()
