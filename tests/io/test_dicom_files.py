"""A folder of DICOM: files without Part 10's beginning, directories, company, lost slices, links, and people."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_files import (
    block,
    errors,
    found,
    images,
    unused,
    volumes,
    without,
    write_dicomdir,
    write_slices,
)

from augengine.errors import DataError
from augengine.io.dicom_header import looks_like_dicom
from augengine.io.layouts import open_layout
from augengine.io.sources import SourceOptions
from augengine.pipeline.ingest_plan import plan_ingest


@pytest.mark.parametrize("name", ["s{:03d}.dcm", "IM{:03d}"])
@pytest.mark.parametrize("what", ["preamble", "meta", "both"])
@pytest.mark.parametrize("implicit", [False, True])
def test_a_data_set_without_part_10(tmp_path: Path, what: str, name: str, implicit: bool) -> None:
    for path in write_slices(tmp_path / "p", block(), name=name):
        if implicit:
            ds = pydicom.dcmread(path)
            ds.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
            pydicom.dcmwrite(path, ds, implicit_vr=True, little_endian=True, enforce_file_format=True)
        without(path, what)
        assert looks_like_dicom(path)
    assert np.array_equal(images(tmp_path)[0], block())
    reader, _ = open_layout(tmp_path, "auto", SourceOptions())
    assert reader.layout == "dicom"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x08",
        b"\x08\x00\x05\x00",
        b"# text",
        b"\x5c\x01\x00\x00" + bytes(344),
        bytes(400),
        b"\x1f\x8b" + bytes(200),
        b"\x08\x00\xff\xff\xff\xff\xff\xff" + bytes(200),
        b"NRRD0004\ntype: short",
    ],
)
def test_what_does_not_look_like_dicom(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    assert not looks_like_dicom(tmp_path / "x")


@pytest.mark.parametrize(("slices", "at"), [(".", "."), ("IMAGES", "."), ("p1", "p1"), ("p1/IMAGES", "p1")])
def test_a_directory_of_the_medium_is_named(tmp_path: Path, slices: str, at: str) -> None:
    write_slices(tmp_path / slices, block())
    write_dicomdir(tmp_path / at / "DICOMDIR")
    assert np.array_equal(images(tmp_path)[0], block())
    path = "DICOMDIR" if at == "." else f"{at}/DICOMDIR"
    assert unused(tmp_path) == {path: "a directory of the medium (DICOMDIR)"}


def test_company_is_named_with_what_it_is(tmp_path: Path) -> None:
    write_slices(tmp_path / "p", block())
    (tmp_path / "p" / "VERSION").write_bytes(b"")
    (tmp_path / "p" / "readme.txt").write_text("x")
    (tmp_path / "p" / "Thumbs.db").write_bytes(bytes(4000))
    for name, modality, sop, more in (
        ("report", "SR", "1.2.840.10008.5.1.4.1.1.88.33", {}),
        ("state", "PR", "1.2.840.10008.5.1.4.1.1.11.1", {}),
        ("key", "KO", "1.2.840.10008.5.1.4.1.1.88.59", {}),
        ("segments", "SEG", "1.2.840.10008.5.1.4.1.1.66.4", {}),
        ("ct", "CT", "1.2.840.10008.5.1.4.1.1.2", {}),
        ("capture", "MR", "1.2.840.10008.5.1.4.1.1.7", {"ImagePositionPatient": None}),
        ("colour", "MR", "1.2.840.10008.5.1.4.1.1.4", {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}),
        ("raw", "MR", "1.2.840.10008.5.1.4.1.1.66", {"Rows": None}),
        ("spectrum", "MR", "1.2.840.10008.5.1.4.1.1.4.2", {}),
    ):
        write_slices(
            tmp_path / "p",
            block()[..., :1],
            series=f"1.2.{len(name)}.{ord(name[0])}",
            name=f"{name}.dcm",
            Modality=modality,
            SOPClassUID=sop,
            **more,
        )
    assert np.array_equal(images(tmp_path)[0], block())
    reasons = {Path(path).name: reason.rpartition(": ")[2] for path, reason in unused(tmp_path).items()}
    assert reasons == {
        "VERSION": "an empty file",
        "readme.txt": "no DICOM file",
        "Thumbs.db": "no DICOM file",
        "report.dcm": "no MR image (modality SR, Comprehensive SR Storage)",
        "state.dcm": "no MR image (modality PR, Grayscale Softcopy Presentation State Storage)",
        "key.dcm": "no MR image (modality KO, Key Object Selection Document Storage)",
        "segments.dcm": "a DICOM Segmentation (layout dicom reads it with --labels)",
        "ct.dcm": "no MR image (modality CT, CT Image Storage)",
        "capture.dcm": "a capture of a screen, without a place in the patient",
        "colour.dcm": "a colour image",
        "raw.dcm": "no image in this DICOM object (raw data, spectrum or the like)",
        "spectrum.dcm": "no image in this DICOM object (raw data, spectrum or the like)",
    }


@pytest.mark.parametrize("name", ["s{:03d}.dcm", "IM{:03d}", "1.2.840.{}", "{:03d}.IMA"])
@pytest.mark.parametrize("length", [0, 90, 700])
def test_a_lost_slice_rules_out_its_series_whatever_its_name(tmp_path: Path, name: str, length: int) -> None:
    paths = write_slices(tmp_path / "p", block(), name=name)
    paths[-1].write_bytes(paths[-1].read_bytes()[:length])
    write_slices(tmp_path / "q", block(seed=1), series="1.2.3")
    bad, good = sorted(errors(tmp_path), key=lambda e: e is None)
    assert good is None
    assert "cannot be read" in str(bad)
    assert any("may be a slice of a series beside it" in reason for reason in unused(tmp_path).values())


def test_a_locked_slice_rules_out_its_series_and_other_locked_files_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_slices(tmp_path / "p", block(), name="IM{:03d}")
    (tmp_path / "p" / "notes").write_text("x")
    locked = {"notes"}
    real = Path.open

    def opened(path: Path, *args: object, **more: object) -> object:
        if path.name in locked:
            raise PermissionError(13, "Permission denied")
        return real(path, *args, **more)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", opened)
    assert errors(tmp_path) == [None]
    assert unused(tmp_path) == {"p/notes": "a file that cannot be opened (Permission denied)"}
    locked.add("IM003")
    (error,) = errors(tmp_path)
    assert "Permission denied" in str(error)
    assert not looks_like_dicom(tmp_path / "p" / "IM003")


def test_a_damaged_value_spoils_its_series_and_no_other(tmp_path: Path) -> None:
    paths = write_slices(tmp_path / "p", block())
    write_slices(tmp_path / "q", block(seed=1), series="1.2.3")
    raw = paths[2].read_bytes()
    assert raw.count(b"US\x02\x00\x0a\x00") == 1  # Rows
    paths[2].write_bytes(raw.replace(b"US\x02\x00\x0a\x00", b"SQ\x02\x00\x0a\x00"))
    assert sorted(e is None for e in errors(tmp_path)) == [False, True]


@pytest.mark.parametrize("what", ["series", "subject", "slices"])
def test_links_are_followed(tmp_path: Path, what: str) -> None:
    root, store = tmp_path / "in", tmp_path / "store"
    write_slices(root / "p1" / "a", block(seed=1), series="1.2.1", PatientID="1")
    write_slices(store / "b", block(seed=2), series="1.2.2", PatientID="2")
    if what == "series":
        (root / "p1" / "b").symlink_to(store / "b")
    elif what == "subject":
        (root / "p2").symlink_to(store)
    else:
        (root / "p2").mkdir()
        for path in (store / "b").iterdir():
            (root / "p2" / path.name).symlink_to(path)
    arrays = images(root)
    assert len(arrays) == 2
    assert any(np.array_equal(a, block(seed=2)) for a in arrays)


PLACEHOLDERS = (
    "",
    "Anonymous",
    "anon",
    "ANONYMIZED",
    "anonymised",
    "0",
    "000000",
    "Unknown",
    "^",
    "xxx",
    "N/A",
    "none",
)


@pytest.mark.parametrize("patient", PLACEHOLDERS)
def test_a_placeholder_makes_no_two_people_one(tmp_path: Path, patient: str) -> None:
    for n in range(3):
        for study in range(2):
            write_slices(
                tmp_path / f"case{n}" / str(study),
                block(seed=n),
                series=f"1.2.{n}.{study}",
                PatientID=patient,
                StudyInstanceUID=f"1.3.{n}.{study}",
            )
    _, sources = found(tmp_path)
    assert len(sources) == 6
    assert len({s.subject_id for s in sources}) == 3
    assert {s.participant for s in sources} == {"case0", "case1", "case2"}
    assert all("subject by folder" in s.notes[0] for s in sources)


@pytest.mark.parametrize("patient", ["ANON001", "Anonymous7", "1", "P0", "patient3", "00A"])
def test_pseudonyms_are_people(tmp_path: Path, patient: str) -> None:
    for n in range(2):
        write_slices(tmp_path / f"scan{n}", block(seed=n), series=f"1.2.{n}", PatientID=patient)
    _, sources = found(tmp_path)
    assert len({s.subject_id for s in sources}) == 1
    assert all(s.notes == () for s in sources)  # one study


def test_one_patient_id_in_folders_of_several_studies_is_noted(tmp_path: Path) -> None:
    for n in range(3):
        write_slices(
            tmp_path / f"site{n}", block(seed=n), series=f"1.2.{n}", PatientID="17", StudyInstanceUID=f"1.3.{n}"
        )
    _, sources = found(tmp_path)
    assert len({s.subject_id for s in sources}) == 1
    assert [s.notes for s in sources] == [("one PatientID in 3 folders: taken as one subject",)] * 3


@pytest.mark.parametrize("folder", [".", "export"])
def test_studies_without_people_in_one_folder(tmp_path: Path, folder: str) -> None:
    write_slices(tmp_path / folder, block(), PatientID="", name="a{:03d}.dcm")
    write_slices(tmp_path / folder, block(seed=1), PatientID="", name="b{:03d}.dcm", series="1.2.3")
    _, sources = found(tmp_path)  # one study: one person
    assert [s.error for s in sources] == [None, None]
    assert len({s.subject_id for s in sources}) == 1
    assert "subject by" in sources[0].notes[0]
    write_slices(
        tmp_path / folder, block(seed=2), PatientID="", name="c{:03d}.dcm", series="1.2.4", StudyInstanceUID="1.3.4"
    )
    assert all("who is who cannot be told" in str(e) for e in errors(tmp_path))
    plan = plan_ingest(tmp_path, "dicom", SourceOptions(subject=r"([abc])\d+"), inline=True)
    assert [s.error for s in plan.sources] == [None] * 3
    assert len({s.subject_id for s in plan.sources}) == 3


def test_a_series_torn_over_folders_is_never_half_a_volume(tmp_path: Path) -> None:
    for n, path in enumerate(write_slices(tmp_path / "all", block())):
        target = tmp_path / ("a" if n < 3 else "b") / path.name
        target.parent.mkdir(exist_ok=True)
        path.rename(target)
    (tmp_path / "all").rmdir()
    write_slices(tmp_path / "c", block(seed=1), series="1.2.3")
    torn = [e for e in errors(tmp_path) if e is not None]
    assert len(torn) == 2
    assert "lie in several folders" in torn[0]
    assert len(volumes_of(tmp_path)) == 1


def volumes_of(root: Path) -> list[object]:
    reader, sources = found(root)
    return [reader.read(s) for s in sources if s.error is None]


def test_copies_in_two_folders_are_not_torn(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        for path in write_slices(tmp_path / "once", block()):
            target = tmp_path / folder / path.name
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(path.read_bytes())
            path.unlink()
    (tmp_path / "once").rmdir()
    assert errors(tmp_path) == [None, None]
    plan = plan_ingest(tmp_path, "dicom", SourceOptions(), inline=True)
    assert sorted(str(s.error)[:11] for s in plan.sources) == ["None", "this volume"]


def test_echoes_right_in_the_root_are_not_torn(tmp_path: Path) -> None:
    for n in range(2):
        write_slices(tmp_path, block(seed=n), name=f"e{n}_{{:03d}}.dcm", EchoTime=str(5 + n))
    assert len(volumes(tmp_path)) == 2


def test_a_folder_without_any_volume_is_an_error(tmp_path: Path) -> None:
    write_slices(tmp_path / "p", block(), ComplexImageComponent="PHASE")
    with pytest.raises(DataError, match=r"must hold a volume; found 6 × phase image"):
        plan_ingest(tmp_path, "dicom", SourceOptions(), inline=True)


@pytest.mark.parametrize("folder", [".", "export"])
def test_files_without_patient_and_study_are_nobodys(tmp_path: Path, folder: str) -> None:
    """All of them were the subject "." before, whoever they are of."""
    for n in range(2):
        write_slices(
            tmp_path / folder,
            block(seed=n),
            PatientID="",
            StudyInstanceUID="",
            series=f"1.2.{n}",
            name=f"{n}s{{:03d}}.dcm",
        )
    assert all("PatientID and StudyInstanceUID are empty or removed" in str(e) for e in errors(tmp_path))
    plan = plan_ingest(tmp_path, "dicom", SourceOptions(subject=r"(\d)s"), inline=True)
    assert [s.error for s in plan.sources] == [None] * 2
    assert len({s.subject_id for s in plan.sources}) == 2


def test_a_folder_for_each_patient_needs_no_study(tmp_path: Path) -> None:
    for n in range(2):
        write_slices(tmp_path / f"case{n}", block(seed=n), PatientID="", StudyInstanceUID="", series=f"1.2.{n}")
    assert errors(tmp_path) == [None, None]


def test_removed_uids_are_told_from_a_file_that_is_cut_off(tmp_path: Path) -> None:
    for n in range(2):
        write_slices(tmp_path / "p", block(seed=n), name=f"{n}s{{:03d}}.dcm", SeriesInstanceUID="")
    why = errors(tmp_path)
    assert len(why) == 12
    assert all("no SeriesInstanceUID, as after de-identification" in str(e) for e in why)
    assert all("12 of the 12 such images of this folder share their position" in str(e) for e in why)
    assert not any("cut off" in str(e) for e in why)
    write_slices(tmp_path / "q", block(), SeriesInstanceUID="")
    assert sum("0 of the 6 such images" in str(e) for e in errors(tmp_path)) == 6
