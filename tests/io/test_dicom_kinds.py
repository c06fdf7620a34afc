"""What is no magnitude image is named, however the vendor says so; what only sounds like one of these is read."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_files import block, errors, found, images, unused, write_slices

PRIMARY = ["ORIGINAL", "PRIMARY"]


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({"ImageType": [*PRIMARY, "P", "ND"]}, "phase image"),  # Siemens
        ({"ImageType": [*PRIMARY, "R", "ND"]}, "real part of a complex image"),
        ({"ImageType": [*PRIMARY, "PHASE MAP", "P", "FFE"]}, "phase image"),  # Philips
        ({"ImageType": [*PRIMARY, "VELOCITY MAP", "P", "PCA"]}, "velocity map"),
        ({"ImageType": [*PRIMARY, "R", "FFE", "R", "FFE"]}, "real part of a complex image"),
        ({"ImageType": [*PRIMARY, "R_IR", "R", "IR"]}, "real part of a complex image"),
        ({"ImageType": [*PRIMARY, "I", "FFE"]}, "imaginary part of a complex image"),
        ({"ImageType": [*PRIMARY, "B0 MAP", "B0", "FFE"]}, "field map"),
        ({"ImageType": [*PRIMARY, "T1", "NONE", "PHASE"]}, "phase image"),
        ({"ImageType": [*PRIMARY, "IMAGINARY"]}, "imaginary part of a complex image"),
        ({"ImageType": [*PRIMARY, "REAL"]}, "real part of a complex image"),
        ({"ImageType": [*PRIMARY, "LOCALIZER"]}, "localiser"),
        ({"ComplexImageComponent": "PHASE"}, "phase image"),
        ({"ComplexImageComponent": "REAL"}, "real part of a complex image"),
        ({"ComplexImageComponent": "IMAGINARY"}, "imaginary part of a complex image"),
        ({"ImageType": ["DERIVED", "SECONDARY", "PROJECTION IMAGE", "MIP"]}, "projection through slices"),
        ({"ImageType": ["DERIVED", "PRIMARY", "OTHER", "MAX_IP"]}, "projection through slices"),
        ({"ImageType": ["DERIVED", "PRIMARY", "ANGIO", "SUBTRACTION"]}, "difference of images"),
        ({"ImageType": ["DERIVED", "PRIMARY", "M", "SUB", "ND"]}, "difference of images"),
        ({"ImageType": ["DERIVED", "PRIMARY", "DIFFUSION", "ADC"]}, "parameter map"),
        ({"ImageType": ["DERIVED", "PRIMARY", "T2_STAR MAP", "ND"]}, "parameter map"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "a colour image"),
    ],
)
def test_no_magnitude_image_is_taken(tmp_path: Path, tags: dict[str, object], reason: str) -> None:
    write_slices(tmp_path / "p", block(), **tags)
    assert errors(tmp_path) == []
    assert unused(tmp_path) == {"p/": reason}


@pytest.mark.parametrize(
    "image_type",
    [
        [*PRIMARY, "M", "ND"],
        [*PRIMARY, "M_FFE", "M", "FFE"],
        [*PRIMARY, "OTHER"],
        ["DERIVED", "PRIMARY", "DIXON", "IN_PHASE"],
        ["DERIVED", "PRIMARY", "DIXON", "OUT_PHASE"],
        ["DERIVED", "PRIMARY", "M", "OPP_PHASE"],
        ["DERIVED", "PRIMARY", "MPR", "SUBTLE", "FAT"],
        [*PRIMARY, "PROPELLER", "IR", "RARE"],
        ["ORIGINAL", "P"],  # only from the third value on
    ],
)
def test_what_only_sounds_like_it_is_taken(tmp_path: Path, image_type: list[str]) -> None:
    write_slices(tmp_path / "p", block(), ImageType=image_type, ComplexImageComponent="MAGNITUDE")
    assert np.array_equal(images(tmp_path)[0], block())


@pytest.mark.parametrize("block_number", [0x10, 0x11])
@pytest.mark.parametrize("part", [0, 1, 2, 3])
def test_the_part_of_a_complex_image_in_the_private_block_of_ge(tmp_path: Path, part: int, block_number: int) -> None:
    for path in write_slices(tmp_path / "p", block(), Manufacturer="GE MEDICAL SYSTEMS"):
        ds = pydicom.dcmread(path)
        if block_number == 0x11:  # another writer has taken the usual block
            ds.private_block(0x0043, "SOMEONE ELSE", create=True).add_new(0x2F, "SS", 1)
        ds.private_block(0x0043, "GEMS_PARM_01", create=True).add_new(0x2F, "SS", part)
        assert pydicom.tag.Tag(0x0043, (block_number << 8) + 0x2F) in ds
        ds.save_as(path)
    assert len(errors(tmp_path)) == (1 if part == 0 else 0)
    if part:
        words = ("phase", "real", "imaginary")
        assert words[part - 1] in unused(tmp_path)["p/"]


def test_a_private_element_of_another_creator_says_nothing(tmp_path: Path) -> None:
    for path in write_slices(tmp_path / "p", block()):
        ds = pydicom.dcmread(path)
        ds.private_block(0x0043, "SOMEONE ELSE", create=True).add_new(0x2F, "SS", 1)
        ds.save_as(path)
    assert errors(tmp_path) == [None]


def test_magnitude_and_phase_in_one_series_and_folder(tmp_path: Path) -> None:
    write_slices(tmp_path / "p", block(seed=1), name="m{:03d}.dcm", SeriesNumber=3)
    write_slices(tmp_path / "p", block(seed=2), name="p{:03d}.dcm", SeriesNumber=3, ImageType=[*PRIMARY, "P", "ND"])
    write_slices(
        tmp_path / "p", block(seed=3), name="q{:03d}.dcm", SeriesNumber=4, series="1.2.4", ComplexImageComponent="PHASE"
    )
    (image,) = images(tmp_path)
    assert np.array_equal(image, block(seed=1))
    assert unused(tmp_path) == {"p/": "series 3: phase image; series 4: phase image"}


def test_times_that_no_sequence_has_are_left_out(tmp_path: Path) -> None:
    write_slices(tmp_path / "p", block(), EchoTime="0", RepetitionTime="-1", InversionTime="0")
    (source,) = found(tmp_path)[1]
    assert (source.acquisition.echo_time_ms, source.acquisition.repetition_time_ms) == (None, None)
    assert source.acquisition.inversion_time_ms == 0  # as scanners write where there is none
    assert [note for note in source.notes if "which no sequence has" in note] == [
        "echo_time_ms is stated as 0, which no sequence has, and is left out",
        "repetition_time_ms is stated as -1, which no sequence has, and is left out",
    ]
