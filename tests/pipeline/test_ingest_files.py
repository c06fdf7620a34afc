"""Who a volume belongs to, and what became of every file: used, of a failed volume, or named with a reason."""

from pathlib import Path

import numpy as np
import pytest
from mri_files import block, write_nifti

from augengine.errors import ConfigError, RunError
from augengine.io.sources import Scanned, SourceOptions
from augengine.pipeline.ingest import ingest
from augengine.pipeline.ingest_plan import plan_ingest
from augengine.pipeline.ingest_scan import scan_entry
from augengine.pipeline.units import INLINE
from augengine.report.console import console
from augengine.report.ingest_report import print_preview, print_unused


def time_points(root: Path) -> Path:
    """Six patients with two scans each, named as UPENN-GBM names them, and things that are no image."""
    for patient in range(6):
        for visit in (11, 21):
            write_nifti(root / f"UPENN-GBM-{patient:05d}_{visit}_T1.nii.gz", block(seed=patient * 100 + visit))
    (root / "readme.txt").write_text("about")
    (root / ".DS_Store").write_bytes(b"x")
    return root


def options(**values: object) -> SourceOptions:
    return SourceOptions(public_ids=True, channels={"t1": "*_T1.nii.gz"}, **values)


def test_a_pattern_makes_time_points_one_subject(tmp_path: Path) -> None:
    root = time_points(tmp_path / "in")
    apart = plan_ingest(root, "auto", options(), inline=True)
    assert len({s.subject_id for s in apart.sources}) == 12
    plan = plan_ingest(root, "auto", options(subject=r"UPENN-GBM-\d{5}"), inline=True)
    assert len(plan.sources) == 12
    assert {s.subject_id for s in plan.sources} == {f"UPENN-GBM-{n:05d}" for n in range(6)}
    assert len({s.volume_id for s in plan.sources}) == 12
    grouped = plan_ingest(root, "auto", options(subject=r"GBM-(\d+)_", site_pattern=r"_(\d\d)_"), inline=True)
    assert {s.subject_id for s in grouped.sources} == {f"{n:05d}" for n in range(6)}
    assert {s.site for s in grouped.sources} == {"11", "21"}


def test_a_volume_that_the_pattern_leaves_out_fails_with_that_reason(tmp_path: Path) -> None:
    plan = plan_ingest(time_points(tmp_path / "in"), "auto", options(subject="GBM-0000[0-4]"), inline=True)
    left_out = [s for s in plan.sources if s.error]
    assert len(left_out) == 2
    assert all("--subject must match" in str(s.error) for s in left_out)
    with pytest.raises(ValueError, match="regular expression"):
        options(subject="(")


def test_a_table_names_person_and_site(tmp_path: Path) -> None:
    for scanner in ("chiba", "mgh", "unf"):
        write_nifti(tmp_path / f"in/sub-{scanner}/anat/sub-{scanner}_T1w.nii.gz", block())
    (tmp_path / "in/participants.tsv").write_text(
        "participant_id\tperson\thospital\nsub-chiba\tvolunteer\tChiba\nsub-mgh\tvolunteer\tMGH\nsub-unf\tn/a\tUNF\n"
    )
    stated = SourceOptions(public_ids=True, subject_column="person", site_column="hospital")
    plan = plan_ingest(tmp_path / "in", "auto", stated, inline=True)
    assert [(s.subject_id, s.site) for s in plan.sources if not s.error] == [
        ("volunteer", "Chiba"),
        ("volunteer", "MGH"),
    ]
    (error,) = [str(s.error) for s in plan.sources if s.error]
    assert "must state 'person' of every volume" in error
    assert "an empty cell" in error
    assert plan.files() == {"found": 4, "used": 4, "failed": 0, "unused": {}}
    with pytest.raises(ConfigError, match="hospitl"):
        plan_ingest(tmp_path / "in", "auto", SourceOptions(site_column="hospitl"), inline=True)


def test_every_file_is_used_failed_or_named(tmp_path: Path) -> None:
    root = time_points(tmp_path / "in")
    write_nifti(root / "UPENN-GBM-00099_11_T1.nii.gz", np.full((8, 8, 4), 7, np.uint8))  # constant: it fails
    summary = ingest(root, str(tmp_path / "out"), options=options(), actors=INLINE)
    files = summary["input_files"]
    assert (files["found"], files["used"], files["failed"]) == (15, 12, 1)
    assert sum(files["unused"].values()) == 2
    assert {item.path: item.reason for item in summary["unused"]}[".DS_Store"] == "hidden"


def test_a_reader_that_passes_a_file_over_is_found_out(tmp_path: Path) -> None:
    plan = plan_ingest(time_points(tmp_path / "in"), "auto", options(), inline=True)
    reader = plan.reader
    (tmp_path / "in" / "new.nii.gz").write_bytes(b"")  # nobody listed it
    with pytest.raises(RunError, match="files found must equal"):
        type(plan)(reader, plan.sources, plan.splits, plan.shared, plan.unused, plan.found + 1).files()

    class Careless(type(reader)):  # type: ignore[misc]
        def scan(self, entry: dict) -> Scanned:
            return Scanned([])

    careless = Careless(reader.root, reader.options)
    found = scan_entry(careless, careless.listing().entries[0])
    assert "neither" in found["sources"][0]["error"]


def test_the_preview_shows_what_would_be_one_patient(tmp_path: Path) -> None:
    plan = plan_ingest(time_points(tmp_path / "in"), "auto", options(subject=r"UPENN-GBM-\d{5}"), inline=True)
    with console.capture() as shown:
        print_preview(plan.sources, plan.splits, plan.files())
        print_unused(plan.unused, tmp_path / "unused.tsv")
    text = shown.get()
    assert "12 volumes of 6 subjects" in text
    assert "readme.txt" in text
    assert (tmp_path / "unused.tsv").read_text().splitlines()[0] == "path\tfiles\treason"
