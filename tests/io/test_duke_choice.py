"""Which series of a Duke patient is the pre-contrast one: never a T2, a calibration, a subtraction or a later phase."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_files import block, write_slices
from reading import scanned

from augengine.io.duke import DukeReader
from augengine.io.duke_choice import FAT_SATURATION, LONGEST_TE_MS, LONGEST_TR_MS
from augengine.io.sources import Source, SourceOptions, Unused

PATIENT = "Breast_MRI_001"
DYNAMIC = {"RepetitionTime": "5", "EchoTime": "2.4", "FlipAngle": "10", "ScanOptions": ["PFP", "FS"]}
T2 = {"RepetitionTime": "4000", "EchoTime": "90", "ScanningSequence": "SE", "AcquisitionTime": "095000"}
SUB = {"ImageType": ["DERIVED", "SECONDARY", "SUB"]}
Series = list[tuple[str, dict[str, Any]]]


def at(time: str, **tags: Any) -> dict[str, Any]:
    return {**DYNAMIC, "AcquisitionTime": time, **tags}


def study(root: Path, series: Series) -> None:
    """Series number n + 1 has the pixels of seed n, and a UID that sorts the other way round."""
    for n, (description, tags) in enumerate(series):
        write_slices(
            root / PATIENT / "study" / str(n),
            block(seed=n),
            series=f"1.2.3.{90 - n}",
            **{"PatientID": PATIENT, "SeriesDescription": description, "SeriesNumber": n + 1, **tags},
        )


def taken(root: Path, **options: Any) -> tuple[int | None, Source]:
    """The number of the series whose pixels were read, and the source."""
    reader = DukeReader(root, SourceOptions(**options))
    (source,) = scanned(reader)
    if source.error is not None:
        return None, source
    image = reader.read(source).sample.image[0]
    return next(n for n in range(20) if np.array_equal(image, block(seed=n))), source


PHASES: Series = [("ax 3d dyn", at("100001")), ("ax 3d dyn Ph2", at("100120")), ("ax 3d dyn Ph3", at("100240"))]


@pytest.mark.parametrize(
    ("series", "wanted"),
    [
        ([("ax T2 tse pre", T2), *PHASES], 1),
        ([("pre scan calib", {**T2, "EchoTime": "1"}), *PHASES], 1),
        ([("asset prescan", at("095900")), *PHASES], 1),
        ([("ax dyn pre", at("1000")), ("ax dyn post-pre SUB", {**at("100030"), **SUB})], 0),
        ([*PHASES, ("ax dyn sub", {**at("095959"), **SUB})], 0),
        ([("ax dyn mip", at("095959", ImageType=["DERIVED", "SECONDARY", "MIP"])), *PHASES], 1),
        ([("ax t1 nonfs", at("095500", ScanOptions=["PFP"])), *PHASES], 1),  # not fat-saturated: no phase of it
        ([*PHASES, ("sag delayed", at("101500", FlipAngle="11"))], 0),
        ([("ax dyn", at("235930")), ("ax dyn 2", at("000100")), ("ax dyn 3", at("000230"))], 0),  # midnight
        ([("b", at("000100", AcquisitionDate="20200102")), ("a", at("235930", AcquisitionDate="20200101"))], 1),
        ([("b", at("000100", AcquisitionDate="20200101")), ("a", at("235930", AcquisitionDate="20200101"))], 1),
        (
            [
                ("b", {**DYNAMIC, "AcquisitionDateTime": "20200101101500"}),
                ("a", {**DYNAMIC, "AcquisitionDateTime": "20200101101000.5+0100"}),
            ],
            1,
        ),
        ([("b", {**DYNAMIC, "SeriesTime": "10:15:00"}), ("a", {**DYNAMIC, "SeriesTime": "10:14:59"})], 1),
        ([("b", at("1015", TriggerTime="90")), ("a", at("1015", TriggerTime="0"))], 1),
        ([("b", at("1015", AcquisitionNumber=2)), ("a", at("1015", AcquisitionNumber=1))], 1),
        ([("ax dyn pre+post", at("1012")), ("ax dyn pre+post", at("1010")), ("ax dyn pre+post", at("1014"))], 1),
        ([("Ax_Vibrant_PRE", at("1010")), ("Ax_Vibrant_POST1", at("1012"))], 0),
        ([("ax dyn precontrast", at("1010")), ("ax dyn", at("1012"))], 0),
        # Only some scanners mark the later phases among the scan options.
        ([("ax dyn", at("1010")), ("ax dyn", at("1012", ScanOptions=["MP_GEMS", "PFP", "FS"]))], 0),
    ],
)
def test_the_pre_contrast_series_is_found(tmp_path: Path, series: Series, wanted: int) -> None:
    study(tmp_path, series)
    number, source = taken(tmp_path)
    assert source.error is None
    assert number == wanted


@pytest.mark.parametrize("times", [("101000", "101130", "101300", "101430"), ("101000",) * 4, (None,) * 4])
def test_real_names_of_a_multi_phase_series(tmp_path: Path, times: tuple[str | None, ...]) -> None:
    names = ["ax 3d dyn", "Ph1/ax 3d dyn", "Ph2/ax 3d dyn", "Ph3/ax 3d dyn"]
    series: Series = [("ax t1 3mm", {"RepetitionTime": "600", "EchoTime": "10", "AcquisitionTime": "100500"})]
    for name, time, number in zip(names, times, (7, 701, 702, 703), strict=True):
        stated = {} if time is None else {"AcquisitionTime": time}
        series.append((name, {**DYNAMIC, **stated, "SeriesNumber": number}))
    study(tmp_path, [series[0], *reversed(series[1:])])
    number, source = taken(tmp_path)
    assert number == 4
    why = "the phases state no times" if None in times else "the first phases state one time"
    rule = "temporal order" if len(set(times)) == 4 else f"series number, since {why}"
    assert source.notes == (f"pre-contrast series by {rule}",)


@pytest.mark.parametrize(
    ("series", "reason"),
    [
        ([("Ph1/ax 3d dyn", at("1001")), ("Ph2/ax 3d dyn", at("1002"))], "called a later one"),
        ([("ax dyn 1st pass", at("1001")), ("ax dyn 2nd pass", at("1002"))], "called a later one"),
        ([("ax dyn post", at("1001"))], "without either"),
        # The scanner chose another TR for the first phase: the second one must not be taken for it.
        ([("dyn", at("1000", RepetitionTime="4.9")), ("dyn", at("1001")), ("dyn", at("1002"))], "series 1 may be its"),
        ([("dyn pre", at("1000", FlipAngle="12")), ("dyn", at("1001")), ("dyn", at("1002"))], "series 1 may be its"),
        ([("ax dyn pre", at("1000")), ("ax dyn pre", at("1001"))], "found series 1, 2 by series description"),
        ([("dyn", at("1000", SeriesNumber=5)), ("dyn", at("1000", SeriesNumber=5))], "found series 5, 5"),
        # Times that an anonymiser shifted: 60 s between phases became 0.005 s, in another order.
        ([("dyn", at("100000.010")), ("dyn", at("100000.005")), ("dyn", at("100000.000"))], "two lie 0.005 s apart"),
        ([("dyn", at("100000")), ("dyn", at("100000.9")), ("dyn", at("100200"))], "the order of phases is not known"),
        ([("ax T2 pre", T2)], "without either"),
        ([("ax T2 pre", T2), ("ax 3d dyn", at("1000"))], "without either"),
        (
            [
                ("a", at("1000")),
                ("a", at("1001")),
                ("b", at("1000", FlipAngle="20")),
                ("b", at("1001", FlipAngle="20")),
            ],
            "without either",
        ),
        ([("only a sub", {**at("1000"), **SUB})], "no MR series"),
        ([("phase", at("1000", ComplexImageComponent="PHASE"))], "no MR series"),
    ],
)
def test_what_is_not_clear_is_refused(tmp_path: Path, series: Series, reason: str) -> None:
    study(tmp_path, series)
    number, source = taken(tmp_path)
    assert number is None
    assert reason in str(source.error)


def test_a_pre_contrast_series_that_lost_a_slice_is_not_replaced(tmp_path: Path) -> None:
    study(tmp_path, [("dyn", at("1000")), ("dyn", at("1001")), ("dyn", at("1002"))])
    (tmp_path / PATIENT / "study" / "0" / "s002.dcm").unlink()
    number, source = taken(tmp_path)
    assert number is None
    assert "about 1 missing" in str(source.error)


def test_phases_within_one_series(tmp_path: Path) -> None:
    for n in range(3):
        write_slices(
            tmp_path / PATIENT / "study",
            block(seed=n),
            name=f"{n}_{{:03d}}.dcm",
            PatientID=PATIENT,
            SeriesDescription="ax dyn pre",
            TemporalPositionIdentifier=3 - n,
            **at(f"10{3 - n}000"),
        )
    assert taken(tmp_path)[0] == 2


def test_a_later_time_than_another_phase_is_noted(tmp_path: Path) -> None:
    study(tmp_path, [("ax dyn pre", at("1005")), ("ax dyn", at("1001"))])
    number, source = taken(tmp_path)
    assert number == 0
    assert "by the header's times another phase was acquired before it" in source.notes


def test_every_other_series_is_named(tmp_path: Path) -> None:
    study(
        tmp_path,
        [
            ("ax dyn pre", at("1000")),
            ("ax dyn", at("1001")),
            ("ax dyn sub", {**at("1001"), **SUB}),
            ("ax T2", T2),
            ("ax dyn", at("1002", ComplexImageComponent="PHASE")),
            ("Segmentation", at("1003")),
        ],
    )
    write_slices(tmp_path / PATIENT / "study" / "seg", block(), series="1.9", Modality="SEG", PatientID=PATIENT)
    reader = DukeReader(tmp_path, SourceOptions())
    (entry,) = reader.listing().entries
    folder = f"{PATIENT}/study"
    assert sorted(reader.scan(entry).unused, key=lambda u: u.path) == [
        Unused(f"{folder}/1/", "a later phase of the dynamic study", 6),
        Unused(f"{folder}/2/", "difference of images", 6),
        Unused(f"{folder}/3/", "another series, not of the dynamic study", 6),
        Unused(f"{folder}/4/", "phase image", 6),
        Unused(f"{folder}/5/", "a segmentation", 6),
        Unused(f"{folder}/seg/", "a DICOM Segmentation (layout dicom reads it with --labels)", 6),
    ]


def test_every_real_protocol_may_be_a_dynamic_one(real_data: Path) -> None:
    with (real_data / "A9_duke_protocol" / "duke_protocol_joint_counts.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert sum(int(row["n"]) for row in rows) == 922
    assert max(float(row["tr_max"]) for row in rows) < LONGEST_TR_MS / 5
    assert max(float(row["te_max"]) for row in rows) < LONGEST_TE_MS / 3
    assert all(any(map(FAT_SATURATION.fullmatch, row["scan_options"].split("\\"))) for row in rows)


def test_files_without_suffix_and_links_make_a_patient(tmp_path: Path) -> None:
    write_slices(tmp_path / "store" / "pre", block(), name="IM{:04d}", PatientID=PATIENT, SeriesDescription="ax pre")
    (tmp_path / "in" / "data" / PATIENT).mkdir(parents=True)
    (tmp_path / "in" / "data" / PATIENT / "study").symlink_to(tmp_path / "store")
    hidden = tmp_path / "in" / "__MACOSX" / "data" / PATIENT
    hidden.mkdir(parents=True)
    (hidden / "._IM0000").write_bytes(b"\0\5\x16\7")
    assert taken(tmp_path / "in")[0] == 0
