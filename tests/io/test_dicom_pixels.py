"""Stored values: which bits are theirs, which are padding, and how they are scaled."""

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from dicom_files import block, errors, found, images, item, volumes, write_slices
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)

from augengine.errors import DataError

TRUE = block().astype(np.int32) - 400  # -399 to 498: twelve bits, signed
LOW = (TRUE & 0x0FFF).astype(np.uint16)


def one(root: Path) -> Any:
    (volume,) = volumes(root)
    return volume


@pytest.mark.parametrize(
    ("stored", "tags"),
    [
        (LOW, {"PixelRepresentation": 1}),  # no sign in the unused bits
        (TRUE.astype(np.int16), {"PixelRepresentation": 1}),  # sign extended
        (LOW | 0xA000, {"PixelRepresentation": 1}),  # an overlay in them
        ((TRUE + 400).astype("u2") | 0x8000 * (TRUE > 300), {"PixelRepresentation": 0, "RescaleIntercept": "-400"}),
        (LOW << 4, {"PixelRepresentation": 1, "HighBit": 15}),  # the unused bits are the lowest
        (LOW << 2 | 3, {"PixelRepresentation": 1, "HighBit": 13}),
    ],
)
@pytest.mark.parametrize("syntax", [None, RLELossless, ImplicitVRLittleEndian])
def test_only_stored_bits_count(tmp_path: Path, stored: np.ndarray, tags: dict, syntax: UID | None) -> None:
    tags = {"BitsStored": 12, "HighBit": 11, **tags}
    for path in write_slices(tmp_path / "p", stored.astype(np.uint16), **tags):
        rewrite(path, syntax)
    volume = one(tmp_path)
    np.testing.assert_array_equal(volume.sample.image[0], TRUE)
    foreign = bool((stored.astype(np.uint16) >> 12).any()) and stored.dtype != np.int16 and tags["HighBit"] == 11
    assert any("bits beside the stored ones" in n for n in volume.notes) == foreign


def rewrite(path: Path, syntax: UID | None) -> None:
    """The same image in another transfer syntax."""
    if syntax is None:
        return
    ds = pydicom.dcmread(path)
    if syntax == RLELossless:
        ds.compress(syntax, generate_instance_uid=False)
    else:
        big = syntax == ExplicitVRBigEndian
        ds.PixelData = np.frombuffer(ds.PixelData, "<u2").astype(">u2" if big else "<u2").tobytes()
        ds["PixelData"].VR = "OW"
        new = pydicom.Dataset()
        new.update({e.tag: e for e in ds})
        new.file_meta, new.preamble = ds.file_meta, bytes(128)
        ds = new
    ds.file_meta.TransferSyntaxUID = syntax
    pydicom.dcmwrite(path, ds, enforce_file_format=True)


@pytest.mark.parametrize("signed", [False, True])
def test_compressed_pixels_have_no_high_bit_to_shift_by(tmp_path: Path, signed: bool) -> None:
    openjpeg = pytest.importorskip("openjpeg.utils")
    words = block((64, 48, 6))  # the encoder wants no smaller ones
    values = words.astype(np.int32) - 400 * signed
    tags = {"PixelRepresentation": int(signed), "BitsStored": 12, "HighBit": 13}
    for k, path in enumerate(write_slices(tmp_path / "p", words, **tags)):
        plane = np.ascontiguousarray(values[:, :, k].T).astype(np.int16 if signed else np.uint16)
        ds = pydicom.dcmread(path)
        ds.PixelData = encapsulate([bytes(openjpeg.encode_array(plane, bits_stored=12, photometric_interpretation=2))])
        ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
        ds.file_meta.TransferSyntaxUID = JPEG2000Lossless
        ds.save_as(path)
    np.testing.assert_array_equal(images(tmp_path)[0], values)


@pytest.mark.parametrize("syntax", [ExplicitVRBigEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_byte_order_and_deflation(tmp_path: Path, syntax: UID) -> None:
    for path in write_slices(tmp_path / "p", block(), PixelPaddingValue=int(block()[3, 4, 2])):
        rewrite(path, syntax)
    volume = one(tmp_path)
    np.testing.assert_array_equal(volume.sample.image[0], block())
    np.testing.assert_array_equal(volume.outside, block() == block()[3, 4, 2])


def test_slope_and_intercept_of_each_slice(tmp_path: Path) -> None:
    slopes = [1.0, 2.0, 0.5, 3.25, 1.5, 2.75]
    write_slices(
        tmp_path / "p", block(), per_slice=lambda k: {"RescaleSlope": str(slopes[k]), "RescaleIntercept": str(-k)}
    )
    np.testing.assert_allclose(images(tmp_path)[0], block() * np.array(slopes) - np.arange(6))


def test_the_real_world_mapping_scales_where_no_slope_is_stated(tmp_path: Path) -> None:
    mapping = [item(RealWorldValueSlope=0.5, RealWorldValueIntercept=-3.0)]
    write_slices(tmp_path / "a" / "p", block(), RealWorldValueMappingSequence=mapping)
    volume = one(tmp_path / "a")
    np.testing.assert_allclose(volume.sample.image[0], block() * 0.5 - 3)
    assert any("real-world value mapping" in n for n in volume.notes)
    write_slices(tmp_path / "b" / "p", block(), RealWorldValueMappingSequence=mapping, RescaleSlope="2")
    volume = one(tmp_path / "b")
    np.testing.assert_allclose(volume.sample.image[0], block() * 2.0)


def corners(value: int, dtype: str = "i2") -> tuple[np.ndarray, np.ndarray]:
    """Pixels of 40 x 40 x 6 with a value beyond a circle, as words, and where."""
    pixels = block((40, 40, 6)).astype(dtype)
    y, x = np.mgrid[:40, :40]
    outside = (x - 19.5) ** 2 + (y - 19.5) ** 2 > 19.5**2
    pixels[outside] = value
    return pixels.view("u2"), np.broadcast_to(outside[..., None], pixels.shape)


@pytest.mark.parametrize(
    ("value", "tags"),
    [
        (-32768, {"PixelRepresentation": 1, "PixelPaddingValue": -32768, "RescaleSlope": "2", "RescaleIntercept": "5"}),
        (-2000, {"PixelRepresentation": 1, "PixelPaddingValue": -2000}),
        (0, {"PixelPaddingValue": 0}),
        (-1, {"PixelPaddingValue": 65535}),
        (-2000, {"PixelRepresentation": 1, "PixelPaddingValue": -3000, "PixelPaddingRangeLimit": -1000}),
        (-2000, {"PixelRepresentation": 1, "PixelPaddingValue": -1000, "PixelPaddingRangeLimit": -3000}),
        # The padding value is no number of twelve bits: zeros are pixels like others.
        (-32768, {"PixelRepresentation": 1, "PixelPaddingValue": -32768, "BitsStored": 12, "HighBit": 11}),
    ],
)
def test_padding_is_not_measured(tmp_path: Path, value: int, tags: dict) -> None:
    words, outside = corners(value)
    words[20, 20] = words[20, 20] if value == 0 else 0
    write_slices(tmp_path / "p", words, **tags)
    volume = one(tmp_path)
    np.testing.assert_array_equal(volume.outside, outside)
    share = 100 * outside.mean()
    assert f"{share:.1f} % of the voxels are padding (PixelPaddingValue): not measured" in volume.notes


def test_a_padding_value_of_the_wrong_sign(tmp_path: Path) -> None:
    words, outside = corners(-2000)
    for path in write_slices(tmp_path / "p", words, PixelRepresentation=1):
        ds = pydicom.dcmread(path)
        ds.add_new(0x00280120, "US", 65536 - 2000)  # of signed pixels, it should be SS
        ds.save_as(path)
    np.testing.assert_array_equal(one(tmp_path).outside, outside)


def test_without_a_padding_value_all_is_measured(tmp_path: Path) -> None:
    write_slices(tmp_path / "a" / "p", corners(0)[0])
    assert one(tmp_path / "a").outside is None
    write_slices(tmp_path / "b" / "p", block(), PixelPaddingValue=0)  # and none is used
    assert one(tmp_path / "b").outside is None
    write_slices(tmp_path / "c" / "p", block() * 0, PixelPaddingValue=0)
    reader, (source,) = found(tmp_path / "c")
    with pytest.raises(DataError, match="nothing but padding"):
        reader.read(source)


def test_compressed_pixels_without_file_meta_information_are_refused(tmp_path: Path) -> None:
    for path in write_slices(tmp_path / "p", block()):
        rewrite(path, RLELossless)
        raw = path.read_bytes()
        path.write_bytes(raw[132 + 12 + pydicom.dcmread(path).file_meta.FileMetaInformationGroupLength :])
    reader, (source,) = found(tmp_path)
    assert errors(tmp_path) == [None]
    with pytest.raises(DataError, match="transfer syntax"):
        reader.read(source)


def test_a_slope_beside_a_real_world_mapping_is_used_and_the_map_is_noted(tmp_path: Path) -> None:
    """Stored 100 with slope 2 is 200, as for three of four readers; by the map it would be 0.1."""
    mapping = [item(RealWorldValueSlope=0.001, RealWorldValueIntercept=0.0)]
    pixels = block()
    pixels[0, 0] = 100
    write_slices(tmp_path / "a" / "p", pixels, RealWorldValueMappingSequence=mapping, RescaleSlope="2")
    volume = one(tmp_path / "a")
    assert (volume.sample.image[0][0, 0] == 200).all()
    assert volume.notes == ["the rescale slope was used; a real-world value mapping with other numbers was not"]
    same = [item(RealWorldValueSlope=2.0, RealWorldValueIntercept=0.0)]
    write_slices(tmp_path / "b" / "p", pixels, RealWorldValueMappingSequence=same, RescaleSlope="2")
    assert one(tmp_path / "b").notes == []
