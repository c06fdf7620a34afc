"""NIfTI headers as programs write them: units, forms that disagree, sizes, packing, pairs, single slices."""

import gzip
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from mri_files import block, write_nifti

from augengine.errors import DataError
from augengine.geometry import spacing_mm
from augengine.io.nifti import open_nifti, read_nifti

AFFINE = np.array([[-0.8, 0, 0, 12], [0, 0.8, 0, -9], [0, 0, 3.0, 4], [0, 0, 0, 1]])


def both_forms(path: Path, data: np.ndarray | None = None, **patches: bytes) -> Path:
    """A file with sform and qform, and some bytes of its header replaced, by their offset."""
    image = nib.Nifti1Image(block() if data is None else data, AFFINE)
    image.set_qform(AFFINE, 1)
    image.set_sform(AFFINE, 1)
    nib.save(image, path)
    raw = bytearray(path.read_bytes())
    for name, content in patches.items():
        start = {"sform": 280, "sform_code": 254, "qform_code": 252, "qfac": 76, "thickness": 88, "units": 123}[name]
        raw[start : start + len(content)] = content
    path.write_bytes(raw)
    return path


@pytest.mark.parametrize(("code", "factor"), [(2, 1.0), (0, 1.0), (3, 1000.0), (1, 0.001), (5, 1.0)])
def test_units_become_mm_in_both_forms(tmp_path: Path, code: int, factor: float) -> None:
    for form in ("sform", "qform"):
        image = nib.Nifti1Image(block(), AFFINE @ np.diag([factor] * 3 + [1]))
        stated = image.affine.copy()
        stated[:3, 3] *= factor
        image.set_sform(stated, int(form == "sform"))
        image.set_qform(stated, int(form == "qform"))
        image.header["xyzt_units"] = code
        nib.save(image, tmp_path / "a.nii")
        file = open_nifti(tmp_path / "a.nii")
        np.testing.assert_allclose(file.placed(), AFFINE, atol=1e-5)
        assert len(file.notes) == int(code in (1, 3, 5))


@pytest.mark.parametrize(
    ("sizes", "unit", "meant"),
    [
        ((800, 800, 3000), 2, "micrometres"),
        ((800, 800, 3000), 0, "micrometres"),
        ((0.0008, 0.0008, 0.003), 2, "metres"),
        ((0.8, 0.8, 3), 3, "mm"),
        ((0.8, 0.8, 3), 1, "mm"),
        ((0.8, 0.8, 101), 2, "another unit"),
    ],
)
def test_sizes_that_no_scan_has_are_refused(tmp_path: Path, sizes: tuple[float, ...], unit: int, meant: str) -> None:
    image = nib.Nifti1Image(block(), np.diag([*sizes, 1.0]))
    image.header["xyzt_units"] = unit
    nib.save(image, tmp_path / "a.nii")
    with pytest.raises(DataError, match=rf"0\.01 to 100 mm.*likely means {meant}: mend xyzt_units"):
        read_nifti(tmp_path / "a.nii")


@pytest.mark.parametrize(
    ("patches", "note"),
    [
        ({}, None),
        ({"sform": bytes(48)}, "the sform is stated but no usable matrix"),
        ({"sform": struct.pack("<12f", *[np.nan] * 12)}, "the sform is stated but no usable matrix"),
        (
            {"sform": struct.pack("<12f", 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0)},
            "the sform is stated but no usable matrix",
        ),
        ({"sform": bytes(48), "sform_code": bytes(2)}, None),
        ({"sform": struct.pack("<12f", 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0)}, "contradicts the voxel size"),
    ],
)
def test_a_good_qform_stands_in_for_a_broken_sform(tmp_path: Path, patches: dict, note: str | None) -> None:
    file = open_nifti(both_forms(tmp_path / "a.nii", **patches))
    np.testing.assert_allclose(file.placed(), AFFINE, atol=1e-5)
    assert (note is None and not file.notes) or any(note in n for n in file.notes)


def test_other_forms_that_differ_are_noted_and_the_sform_taken(tmp_path: Path) -> None:
    other = AFFINE.copy()
    other[:3, 3] += 5
    moved = struct.pack("<12f", *other[:3].ravel())
    file = open_nifti(both_forms(tmp_path / "a.nii", sform=moved))
    np.testing.assert_allclose(file.placed(), other, atol=1e-5)
    assert file.notes == ("sform and qform differ; sform was taken",)
    both_forms(tmp_path / "b.nii", sform=bytes(48), qform_code=bytes(2))
    with pytest.raises(DataError, match="must state where the voxels lie"):
        read_nifti(tmp_path / "b.nii")


def test_qfac_that_is_none_is_one(tmp_path: Path) -> None:
    file = open_nifti(both_forms(tmp_path / "a.nii", qfac=struct.pack("<f", 0), sform_code=bytes(2)))
    right = AFFINE.copy()
    right[:3, 2] *= -1  # the standard reads 0 as 1; this file's was -1
    np.testing.assert_allclose(file.placed(), right, atol=1e-5)
    assert file.notes == ("pixdim[0] is neither 1 nor -1; taken as 1",)
    kept = open_nifti(both_forms(tmp_path / "b.nii", thickness=struct.pack("<f", 0)))
    np.testing.assert_allclose(kept.placed(), AFFINE, atol=1e-5)


@pytest.mark.parametrize("shape", [(12, 10), (12, 10, 1), (12, 10, 1, 1)])
def test_a_flat_image_is_one_slice(tmp_path: Path, shape: tuple[int, ...]) -> None:
    data = block()[..., 0].reshape(shape)
    path = both_forms(tmp_path / "a.nii", data, thickness=struct.pack("<f", 0), sform_code=bytes(2))
    values, affine, _ = read_nifti(path)
    np.testing.assert_array_equal(values, data.reshape(12, 10, 1))
    np.testing.assert_allclose(spacing_mm(affine)[:2], 0.8, atol=1e-5)
    assert np.linalg.det(affine) != 0
    assert open_nifti(path).acquired_axis == 2


def test_the_axis_of_the_slices_is_the_headers(tmp_path: Path) -> None:
    for spacing, expected in (((1, 1, 1), 0), ((3, 1, 1), 0), ((1, 1, 3), None)):  # the last one was turned since
        image = nib.Nifti1Image(block(), np.diag([*spacing, 1.0]))
        image.header.set_dim_info(slice=0)
        nib.save(image, tmp_path / "a.nii")
        assert open_nifti(tmp_path / "a.nii").acquired_axis == expected
    write_nifti(tmp_path / "b.nii", block())
    assert open_nifti(tmp_path / "b.nii").acquired_axis is None


def test_packing_is_told_by_the_content(tmp_path: Path) -> None:
    write_nifti(tmp_path / "a.nii.gz", block(), AFFINE)
    (tmp_path / "b.nii").write_bytes((tmp_path / "a.nii.gz").read_bytes())
    (tmp_path / "c.nii.gz").write_bytes(gzip.decompress((tmp_path / "a.nii.gz").read_bytes()))
    (tmp_path / "D.NII.GZ").write_bytes((tmp_path / "a.nii.gz").read_bytes())
    for name, note in {"b.nii": "gzip-compressed", "c.nii.gz": "not compressed", "D.NII.GZ": None}.items():
        values, affine, notes = read_nifti(tmp_path / name)
        np.testing.assert_array_equal(values, block())
        np.testing.assert_allclose(affine, AFFINE, atol=1e-5)
        assert (note is None and not notes) or note in notes[0]


def test_empty_and_analyze_files_say_so(tmp_path: Path) -> None:
    (tmp_path / "a.nii.gz").write_bytes(b"")
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(b""))
    for name in ("a.nii.gz", "b.nii.gz"):
        with pytest.raises(DataError, match="this file is empty"):
            read_nifti(tmp_path / name)
    nib.save(nib.AnalyzeImage(block().astype(np.int16), np.diag([1, 1, 3, 1.0])), tmp_path / "old.img")
    with pytest.raises(DataError, match=r"Analyze 7\.5.*guess"):
        read_nifti(tmp_path / "old.hdr")
    nib.save(nib.Nifti1Pair(block(), AFFINE), tmp_path / "pair.img")
    np.testing.assert_array_equal(read_nifti(tmp_path / "pair.hdr")[0], block())


def test_byte_order_and_version(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(block().astype(">u2"), AFFINE, nib.Nifti1Header(endianness=">")), tmp_path / "a.nii")
    nib.save(nib.Nifti2Image(block(), AFFINE), tmp_path / "b.nii")
    for name in ("a.nii", "b.nii"):
        values, affine, _ = read_nifti(tmp_path / name)
        np.testing.assert_array_equal(values, block())
        np.testing.assert_allclose(affine, AFFINE, atol=1e-5)


def test_colour_and_complex_voxels_are_refused(tmp_path: Path) -> None:
    write_nifti(tmp_path / "c.nii", block().astype(np.complex64))
    rgb = np.zeros((4, 4, 4), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.save(nib.Nifti1Image(rgb, np.eye(4)), tmp_path / "rgb.nii")
    for name in ("c.nii", "rgb.nii"):
        with pytest.raises(DataError, match="real numbers"):
            read_nifti(tmp_path / name)


def test_a_flipped_bit_in_a_compressed_file_is_damage_not_a_voxel(tmp_path: Path) -> None:
    write_nifti(tmp_path / "a.nii.gz", block())
    nib.save(nib.Nifti1Pair(block(), np.diag([1.0, 1.0, 3.0, 1.0])), tmp_path / "pair.img.gz")
    (tmp_path / "pair.hdr").write_bytes(gzip.decompress((tmp_path / "pair.hdr.gz").read_bytes()))
    for name, opened in (("a.nii.gz", "a.nii.gz"), ("pair.img.gz", "pair.hdr")):
        np.testing.assert_array_equal(open_nifti(tmp_path / opened).values(), block())
        whole = (tmp_path / name).read_bytes()
        for place in (-8, -4, -40, -300):  # checksum, length, and the stream itself
            damaged = bytearray(whole)
            damaged[place] ^= 4
            (tmp_path / name).write_bytes(damaged)
            for read in (lambda file: file.values(), lambda file: file.stored()):
                with pytest.raises(DataError, match="damaged"):
                    read(open_nifti(tmp_path / opened))
        (tmp_path / name).write_bytes(whole)
