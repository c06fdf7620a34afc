"""NRRD files: spaces, units, where the data lie, the list axis, and what a header may not reach."""

from pathlib import Path

import nrrd
import numpy as np
import pytest
from mri_files import block
from reading import scanned

from augengine.errors import DataError
from augengine.io.folders import NrrdReader
from augengine.io.nrrd import data_files, read_nrrd
from augengine.io.sources import SourceOptions

HEADER = {"space": "left-posterior-superior", "space directions": np.diag([0.8, 0.8, 3.0]), "space origin": [1.0, 2, 3]}
TEXT = (
    "NRRD0005\ntype: uint16\ndimension: 3\nspace: left-posterior-superior\nsizes: 12 10 6\n"
    "space directions: (0.8,0,0) (0,0.8,0) (0,0,3)\nkinds: domain domain domain\nendian: little\nencoding: {encoding}\n"
    "space origin: (1,2,3)\ndata file: {data}\n"
)


def slices(folder: Path) -> None:
    for k in range(6):
        (folder / f"d{k:03d}.raw").write_bytes(block()[:, :, k].astype("<u2").tobytes(order="F"))


def header(path: Path, data: str, encoding: str = "raw") -> Path:
    path.write_text(TEXT.format(data=data, encoding=encoding))
    return path


@pytest.mark.parametrize("encoding", ["raw", "gzip", "bzip2", "ascii"])
@pytest.mark.parametrize("name", ["a.nhdr", "a.nrrd"])
def test_encodings_attached_and_detached(tmp_path: Path, encoding: str, name: str) -> None:
    nrrd.write(str(tmp_path / name), block(), {**HEADER, "encoding": encoding})
    data, affine, _ = read_nrrd(tmp_path / name)
    np.testing.assert_array_equal(data, block())
    np.testing.assert_allclose(affine[:3], [[-0.8, 0, 0, -1], [0, -0.8, 0, -2], [0, 0, 3, 3]])
    reader = NrrdReader(tmp_path, SourceOptions())
    (source,) = scanned(reader)
    assert len(source.files) == (2 if name == "a.nhdr" else 1)
    np.testing.assert_array_equal(reader.read(source).sample.image[0], block())


@pytest.mark.parametrize(
    ("data", "order"),
    [
        ("d%03d.raw 0 5 1 2", 1),
        ("d%03d.raw 0 5 1", 1),
        ("d%03d.raw 5 0 -1 2", -1),
        ("LIST 2\n" + "\n".join(f"d{k:03d}.raw" for k in range(6)), 1),
        ("LIST\n" + "\n".join(f"d{k:03d}.raw" for k in range(5, -1, -1)), -1),
    ],
)
def test_data_of_several_files(tmp_path: Path, data: str, order: int) -> None:
    slices(tmp_path)
    header(tmp_path / "a.nhdr", data)
    np.testing.assert_array_equal(read_nrrd(tmp_path / "a.nhdr")[0], block()[..., ::order])
    reader = NrrdReader(tmp_path, SourceOptions())
    (source,) = scanned(reader)
    assert len(source.files) == 7
    assert not reader.listing().unused


def test_missing_and_short_data_files(tmp_path: Path) -> None:
    for data in ("gone.raw", "gone%d.raw 0 5 1", "LIST\ngone.raw"):
        with pytest.raises(DataError, match="a data file that the header names is missing"):
            read_nrrd(header(tmp_path / "a.nhdr", data))
    slices(tmp_path)
    (tmp_path / "d003.raw").write_bytes(b"\0\0")
    with pytest.raises(DataError, match="must hold the voxels"):
        read_nrrd(header(tmp_path / "a.nhdr", "d%03d.raw 0 5 1"))
    with pytest.raises(DataError, match="this file is missing"):
        read_nrrd(tmp_path / "b.nhdr")
    (tmp_path / "c.nrrd").write_bytes(b"")
    with pytest.raises(DataError, match="empty"):
        read_nrrd(tmp_path / "c.nrrd")


@pytest.mark.parametrize("data", ["../secret.raw", "{root}/secret.raw", "LIST 2\nin.raw\n../secret.raw"])
def test_a_header_reaches_no_file_outside_of_the_data_set(tmp_path: Path, data: str) -> None:
    inside = tmp_path / "in"
    inside.mkdir()
    (tmp_path / "secret.raw").write_bytes(block().tobytes(order="F"))
    (inside / "in.raw").write_bytes(b"x")
    header(inside / "a.nhdr", data.format(root=tmp_path))
    assert [f.name for f in data_files(inside / "a.nhdr")][-1] == "secret.raw"
    (source,) = scanned(NrrdReader(inside, SourceOptions()))
    assert "below the folder of the data set" in str(source.error)


def test_a_data_file_in_a_folder_beside_is_used(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "headers").mkdir()
    (tmp_path / "raw" / "x.bin").write_bytes(block().astype("<u2").tobytes(order="F"))
    header(tmp_path / "headers" / "a.nhdr", "../raw/x.bin")
    reader = NrrdReader(tmp_path, SourceOptions())
    (source,) = scanned(reader)
    assert source.files == ("headers/a.nhdr", "raw/x.bin")
    np.testing.assert_array_equal(reader.read(source).sample.image[0], block())


@pytest.mark.parametrize("axis", [0, 3])
def test_layers_come_first_wherever_the_file_has_them(tmp_path: Path, axis: int) -> None:
    both = np.stack([block(seed=0), block(seed=1)])
    rows = np.insert(np.diag([0.8, 0.8, 3.0]), axis, np.nan, axis=0)
    kinds = np.insert(np.array(["domain"] * 3, dtype="U6"), axis, "list").tolist()
    nrrd.write(
        str(tmp_path / "a.nrrd"), np.moveaxis(both, 0, axis), {**HEADER, "kinds": kinds, "space directions": rows}
    )
    data, affine, _ = read_nrrd(tmp_path / "a.nrrd")
    np.testing.assert_array_equal(data, both)
    np.testing.assert_allclose(affine[2, 2], 3)
    one = np.moveaxis(both[:1], 0, axis)
    nrrd.write(str(tmp_path / "b.nrrd"), one, {**HEADER, "kinds": kinds, "space directions": rows})
    np.testing.assert_array_equal(read_nrrd(tmp_path / "b.nrrd")[0], both[0])


@pytest.mark.parametrize(("unit", "factor"), [("mm", 1), ("um", 1000), ("cm", 0.1), ("m", 0.001)])
def test_units_become_mm(tmp_path: Path, unit: str, factor: float) -> None:
    stated = {
        "space": "LPS",
        "space directions": HEADER["space directions"] * factor,
        "space origin": np.array(HEADER["space origin"]) * factor,
        "space units": [unit] * 3,
    }
    nrrd.write(str(tmp_path / "a.nrrd"), block(), stated)
    np.testing.assert_allclose(
        read_nrrd(tmp_path / "a.nrrd")[1][:3], [[-0.8, 0, 0, -1], [0, -0.8, 0, -2], [0, 0, 3, 3]]
    )


def test_units_and_spaces_that_say_nothing_are_refused(tmp_path: Path) -> None:
    nrrd.write(str(tmp_path / "a.nrrd"), block(), {**HEADER, "space units": ["parsec"] * 3})
    with pytest.raises(DataError, match="must be a length"):
        read_nrrd(tmp_path / "a.nrrd")
    nrrd.write(str(tmp_path / "b.nrrd"), block(), {**HEADER, "space directions": np.diag([800.0, 800, 3000])})
    with pytest.raises(DataError, match=r"0\.01 to 100 mm.*micrometres: mend space units"):
        read_nrrd(tmp_path / "b.nrrd")
    nrrd.write(str(tmp_path / "c.nrrd"), block(), {**HEADER, "space": "scanner-xyz"})
    with pytest.raises(DataError, match=r"found scanner-xyz.*names the patient's sides"):
        read_nrrd(tmp_path / "c.nrrd")
