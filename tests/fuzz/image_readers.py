"""Damaged and lying NIfTI, NRRD and DICOM files; what is accepted must be what a plain reading of the bytes gives.

The oracles read the bytes by the formats' own texts, by offsets and types, with none of the code under test.
"""

from __future__ import annotations

import bz2
import gzip
import io
import math
import re
import struct
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from dicom_files import at, write_frames, write_slices
from fuzz import mutations
from fuzz.pool import Silent
from mri_files import block

from augengine.errors import DataError
from augengine.io import nrrd
from augengine.io.dicom import DicomReader
from augengine.io.nifti import read_nifti
from augengine.io.sources import SourceOptions

LARGEST_SPACING_MM = 1000.0
SHAPE = (7, 6, 5)
# --- NIfTI-1, by offsets of nifti1.h
FIELDS = {
    "sizeof_hdr": (0, "i"),
    "dim": (40, "8h"),
    "intent_code": (68, "h"),
    "datatype": (70, "h"),
    "bitpix": (72, "h"),
    "pixdim": (76, "8f"),
    "vox_offset": (108, "f"),
    "scl_slope": (112, "f"),
    "scl_inter": (116, "f"),
    "xyzt_units": (123, "B"),
    "qform_code": (252, "h"),
    "sform_code": (254, "h"),
    "quatern": (256, "6f"),
    "srow": (280, "12f"),
    "magic": (344, "4s"),
}
TYPES = {
    2: "u1",
    4: "i2",
    8: "i4",
    16: "f4",
    32: "c8",
    64: "f8",
    256: "i1",
    512: "u2",
    768: "u4",
    1024: "i8",
    1280: "u8",
}


def nifti_bytes(kind: str = "i2", scale: tuple[float, float] = (0.0, 0.0)) -> bytes:
    """A NIfTI-1 file of `SHAPE`, written by offsets."""
    head = bytearray(352)
    code = next(c for c, t in TYPES.items() if t == kind)
    for name, values in {
        "sizeof_hdr": (348,),
        "dim": (3, *SHAPE, 1, 1, 1, 1),
        "datatype": (code,),
        "bitpix": (8 * np.dtype(kind).itemsize,),
        "pixdim": (1, 1, 1.5, 2, 1, 1, 1, 1),
        "vox_offset": (352,),
        "scl_slope": scale[:1],
        "scl_inter": scale[1:],
        "xyzt_units": (2,),
        "sform_code": (1,),
        "srow": (-1, 0, 0, 5, 0, 1.5, 0, 6, 0, 0, 2, 7),
        "magic": (b"n+1\0",),
    }.items():
        offset, form = FIELDS[name]
        struct.pack_into(f"<{form}", head, offset, *values)
    return bytes(head) + block(SHAPE).transpose(2, 1, 0).astype(f"<{kind}").tobytes()


def nifti(rng: np.random.Generator, folder: Path) -> None:
    """A NIfTI file, compressed or not."""
    kind = mutations.pick(rng, ("i2", "u1", "f4", "u2", "f8"))
    content = nifti_bytes(kind, mutations.pick(rng, ((0.0, 0.0), (1.0, 0.0), (2.0, -3.0))))
    packed = rng.random() < 0.4
    choice = rng.random()
    if choice < 0.5:
        content = _lying_header(rng, content)
    elif choice < 0.8:
        content = mutations.damaged(rng, content)
    name = "scan.nii.gz" if packed else "scan.nii"
    if packed:
        content = gzip.compress(content, mtime=0)
        if choice >= 0.8:
            content = mutations.damaged(rng, content)
    elif choice >= 0.8:
        content = mutations.flipped(rng, content, int(rng.integers(1, 40)))
    (folder / name).write_bytes(content)
    data, affine, _ = read_nifti(folder / name)
    plain = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    _same("NIfTI", data, affine, *_plain_nifti(plain))


def _lying_header(rng: np.random.Generator, content: bytes) -> bytes:
    out = bytearray(content)
    for _ in range(int(rng.integers(1, 3))):
        offset, form = FIELDS[mutations.pick(rng, list(FIELDS))]
        letter, count = form[-1], int(form[:-1] or 1)
        if letter == "s":
            continue
        n = int(rng.integers(count))
        value = mutations.pick(rng, [v for v in mutations.NUMBERS if not isinstance(v, bool)])
        size = struct.calcsize(letter)
        if letter == "f":
            with np.errstate(over="ignore"):
                raw = (
                    np.float32(value).tobytes()
                    if abs(value) < 1e300 or not math.isfinite(value)
                    else np.float32(1e38).tobytes()
                )
        else:
            whole = int(value) if isinstance(value, int) or (math.isfinite(value) and abs(value) < 1e30) else -1
            raw = (whole % 2 ** (8 * size)).to_bytes(size, "little")
        out[offset + n * size : offset + (n + 1) * size] = raw
    return bytes(out)


def _plain_nifti(content: bytes) -> tuple[np.ndarray, np.ndarray | None]:
    order = "<" if struct.unpack_from("<i", content)[0] in (348, 540) else ">"

    def get(name: str) -> tuple[Any, ...]:
        offset, form = FIELDS[name]
        return struct.unpack_from(f"{order}{form}", content, offset)

    dim, (code,), (offset,) = get("dim"), get("datatype"), get("vox_offset")
    if dim[0] < 1 or dim[0] > 7 or any(n < 1 for n in dim[1 : dim[0] + 1]):
        raise Silent(f"dimensions {dim}")
    shape, kind = dim[1 : dim[0] + 1], np.dtype(TYPES.get(code, "V1")).newbyteorder(order)
    count = math.prod(shape)
    if kind.kind == "V" or not math.isfinite(offset) or int(offset) + count * kind.itemsize > len(content):
        raise Silent(f"datatype {code}, offset {offset}, {count} voxels in {len(content)} bytes")
    data = np.frombuffer(content, kind, count, int(offset)).reshape(shape, order="F").astype(np.float64)
    (slope,), (inter,) = get("scl_slope"), get("scl_inter")
    if math.isfinite(slope) and slope != 0:
        data = data * slope + (inter if math.isfinite(inter) else 0.0)
    while data.ndim > 3 and data.shape[-1] == 1:
        data = data[..., 0]
    while data.ndim < 3:
        data = data[..., None]
    affine = None
    unit = {0: 1.0, 1: 1e3, 2: 1.0, 3: 1e-3}.get(get("xyzt_units")[0] & 7, 1.0)
    if get("sform_code")[0] > 0:
        affine = np.vstack([np.reshape(get("srow"), (3, 4)).astype(float) * unit, [0, 0, 0, 1]])
    return data, affine if affine is not None and get("qform_code")[0] == 0 else None


def _same(what: str, data: np.ndarray, affine: np.ndarray, wanted: np.ndarray, stated: np.ndarray | None) -> None:
    if data.shape != wanted.shape:
        raise Silent(f"{what}: shape {data.shape}, where the bytes say {wanted.shape}")
    with np.errstate(all="ignore"):
        near = np.isclose(data.astype(np.float64), wanted, rtol=1e-4, atol=1e-6, equal_nan=True)
        near |= ~np.isfinite(wanted.astype(np.float32))
    if not near.all():
        raise Silent(f"{what}: {int((~near).sum())} voxels differ")
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite(affine).all() or not ((spacing > 0) & (spacing < LARGEST_SPACING_MM)).all():
        raise Silent(f"{what}: spacing {spacing} mm")
    if stated is None or not np.isfinite(stated).all() or data.shape[2] < 2:
        return
    if abs(np.linalg.det(stated[:3, :3])) > 1e-9 and not np.allclose(affine, stated, rtol=1e-4, atol=1e-3):
        raise Silent(f"{what}: affine {affine.tolist()}, stated {stated.tolist()}")


# --- NRRD
NRRD_TYPES = {
    "int16": "i2",
    "short": "i2",
    "uint8": "u1",
    "uchar": "u1",
    "float": "f4",
    "double": "f8",
    "uint16": "u2",
    "ushort": "u2",
    "int32": "i4",
    "int": "i4",
    "unsigned short": "u2",
}


def nrrd_lines(encoding: str, detached: str | None) -> list[str]:
    """A header of `SHAPE`, int16."""
    lines = [
        "NRRD0004",
        "type: int16",
        "dimension: 3",
        "space: left-posterior-superior",
        "sizes: " + " ".join(map(str, SHAPE)),
        "space directions: (1,0,0) (0,1.5,0) (0,0,2)",
        "kinds: domain domain domain",
        "endian: little",
        f"encoding: {encoding}",
        "space origin: (3,4,5)",
    ]
    return [*lines, *([f"data file: {detached}"] if detached else [])]


NRRD_LINES = (
    "line skip: {n}",
    "byte skip: {n}",
    "lineskip: {n}",
    "byteskip: {n}",
    "line skip: 100000000000",
    "byte skip: -1",
    "byte skip: -2",
    "sizes: {n} 6 5",
    "sizes: 7 6",
    "sizes: 7 6 5 {n}",
    "dimension: {n}",
    "type: block",
    "type: float",
    "endian: big",
    "encoding: hex",
    "encoding: ascii",
    "encoding: bzip2",
    "space: RAS",
    "space: scanner-xyz",
    'space units: "cm" "cm" "cm"',
    "space directions: none (1,0,0) (0,1,0)",
    "space directions: (nan,0,0) (0,1,0) (0,0,1)",
    "space directions: (1e30,0,0) (0,1,0) (0,0,1)",
    "space origin: (inf,0,0)",
    "data file: ../outside.raw",
    "data file: /etc/hostname",
    "data file: LIST",
    "data file: x%0{n}d.raw 0 {n} 1",
    "data file: %d.raw 1 4 0",
    "data file: %s%s%s 1 2 1",
    "block size: {n}",
    "content: {n}",
    "key:=value",
    "spacings: {n} 1 1",
    "old min: x",
    "axis mins: {n}",
    "kinds: {n}",
    "measurement frame: (1,0,0) (0,1,0) (0,0,{n})",
    "data file: scan.nhdr",
)


def nrrd_file(rng: np.random.Generator, folder: Path) -> None:
    """An NRRD file with its data attached or beside it; a secret lies outside of the data's folder."""
    root = folder / "data"
    root.mkdir()
    (folder / "outside.raw").write_bytes(bytes(math.prod(SHAPE) * 2))
    encoding = mutations.pick(rng, ("raw", "gzip", "raw", "bzip2"))
    data = block(SHAPE).transpose(2, 1, 0).astype("<i2").tobytes()
    packed = {"raw": bytes, "gzip": lambda b: gzip.compress(b, mtime=0), "bzip2": bz2.compress}[encoding](data)
    detached = "scan.raw" if rng.random() < 0.4 else None
    lines = nrrd_lines(encoding, detached)
    for _ in range(int(rng.integers(0, 3))):
        n = int(rng.integers(1, len(lines) + 1))
        line = mutations.pick(rng, NRRD_LINES).replace("{n}", str(mutations.pick(rng, (*mutations.NUMBERS, 9, 12))))
        name = line.split(":")[0]
        same = [k for k, old in enumerate(lines) if old.split(":")[0] == name]
        if same and rng.random() < 0.8:
            lines[same[0]] = line
        elif rng.random() < 0.1:
            del lines[min(n, len(lines) - 1)]
        else:
            lines.insert(n, line)
    head = "\n".join(lines).encode() + b"\n"
    content = head + (b"" if detached else b"\n" + packed)
    if rng.random() < 0.4:
        content = mutations.damaged(rng, content)
    elif detached and rng.random() < 0.3:
        packed = mutations.damaged(rng, packed)
    path = root / ("scan.nhdr" if detached else "scan.nrrd")
    path.write_bytes(content)
    if detached:
        (root / "scan.raw").write_bytes(packed)
    if nrrd.outside_files(path, root):
        raise DataError("data files must lie below the data's folder")
    found, affine, _ = nrrd.read_nrrd(path)
    wanted, stated = _plain_nrrd(content, packed if detached else None, root)
    _same("NRRD", found, affine, wanted, stated)


def _plain_nrrd(content: bytes, beside: bytes | None, root: Path) -> tuple[np.ndarray, np.ndarray]:
    """Only what this file's cases can hold; whatever else is accepted was not to be."""
    head, _, attached = content.partition(b"\n\n")
    fields: dict[str, str] = {}
    for line in head.decode("utf-8", "replace").splitlines()[1:]:
        if line.startswith("#") or ":=" in line:
            continue
        name, _, value = line.partition(":")
        name = name.strip().lower().replace("lineskip", "line skip").replace("byteskip", "byte skip")
        if name in fields and fields[name] != value.strip():
            raise Silent(f"field {name} stated twice, differently")
        fields[name] = value.strip()
    place = fields.get("data file", fields.get("datafile"))
    if place is not None:
        target = (root / place).resolve()
        if not target.is_relative_to(root.resolve()):
            raise Silent(f"read {place}")
        if not target.is_file():
            raise Silent(f"read {place}, which is not there")
        body = target.read_bytes()
    else:
        body = attached
    lines, skip = int(fields.get("line skip", 0)), int(fields.get("byte skip", 0))
    for _ in range(lines):
        _, found, body = body.partition(b"\n")
        if not found:
            raise Silent(f"{lines} lines to skip")
    unpacked = {
        "raw": bytes,
        "gzip": gzip.decompress,
        "gz": gzip.decompress,
        "bzip2": bz2.decompress,
        "bz2": bz2.decompress,
    }
    encoding = fields.get("encoding", "").lower()
    if encoding in ("ascii", "text", "txt", "hex"):
        raise Silent(f"encoding {encoding} of binary data")
    if encoding == "raw" and skip > 0:
        body = body[skip:]
    body = unpacked[encoding](body)
    if encoding != "raw" and skip > 0:
        body = body[skip:]
    sizes = [int(n) for n in fields["sizes"].split()]
    kind = np.dtype(NRRD_TYPES.get(fields["type"], "V1")).newbyteorder(
        {"big": ">", "little": "<"}.get(fields.get("endian", ""), "=")
    )
    count = math.prod(sizes)
    if skip == -1:
        body = body[len(body) - count * kind.itemsize :]
    if kind.kind == "V" or len(body) != count * kind.itemsize:
        raise Silent(f"{len(body)} bytes for {count} voxels of {kind}")
    data = np.frombuffer(body, kind).reshape(sizes, order="F")
    vectors = re.findall(r"\(([^)]*)\)", fields["space directions"])
    signs = np.array(nrrd.SPACES[fields["space"].lower()], float)
    units = re.findall(r'"([^"]*)"', fields.get("space units", ""))
    scale = np.array([nrrd.UNITS_MM[u] for u in units] or [1.0] * 3)
    affine = np.eye(4)
    affine[:3, :3] = np.array([[float(v) for v in vector.split(",")] for vector in vectors]).T
    affine[:3, 3] = [float(v) for v in fields["space origin"].strip("()").split(",")]
    affine[:3] *= (signs * scale)[:, None]
    axes = [n for n, word in enumerate(re.findall(r"none|\([^)]*\)", fields["space directions"])) if word != "none"]
    data = data.transpose(*[n for n in range(data.ndim) if n not in axes], *axes)
    while data.ndim > 3 and data.shape[0] == 1:
        data = data[0]
    while data.ndim > 3 and data.shape[-1] == 1:
        data = data[..., 0]
    return data, affine


# --- DICOM
TAGS = (
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "SamplesPerPixel",
    "InstanceNumber",
    "PixelSpacing",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "SliceThickness",
    "EchoTime",
    "RepetitionTime",
    "FlipAngle",
    "MagneticFieldStrength",
    "RescaleSlope",
    "RescaleIntercept",
    "NumberOfFrames",
    "SeriesInstanceUID",
    "PhotometricInterpretation",
    "Manufacturer",
    "ManufacturerModelName",
    "ScanOptions",
    "ImageType",
    "PatientID",
    "SpacingBetweenSlices",
    "PixelPaddingValue",
    "AcquisitionTime",
    "Modality",
    "PlanarConfiguration",
    "InversionTime",
)
LENGTHS = {"PixelSpacing": 2, "ImagePositionPatient": 3, "ImageOrientationPatient": 6}
CREDIBLE = {
    "flip_angle_deg": (0, 360),
    "slice_thickness_mm": (0, 500),
    "echo_time_ms": (0, 1000),
    "repetition_time_ms": (0, 60_000),
    "inversion_time_ms": (0, 20_000),
    "field_strength_t": (0, 25),
}


@cache
def _series() -> tuple[dict[str, bytes], ...]:
    """A classic series and an Enhanced file, as bytes by name."""
    import tempfile

    found = []
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        write_slices(root / "a", block((8, 7, 4)))
        write_frames(
            root / "b" / "e.dcm", [block((8, 7, 3), n)[:, :, 0] for n in range(4)], [at(3.0 * n) for n in range(4)]
        )
        for kind in "ab":
            found.append({file.name: file.read_bytes() for file in sorted((root / kind).iterdir())})
    return tuple(found)


def dicom(rng: np.random.Generator, folder: Path) -> None:
    """A series of which one file, or all, are damaged or state something absurd."""
    files = dict(_series()[int(rng.random() < 0.3)])
    name = mutations.pick(rng, list(files))
    if rng.random() < 0.5:
        files[name] = mutations.damaged(rng, files[name])
    else:
        whole = rng.random() < 0.5
        tag, value = mutations.pick(rng, TAGS), _dicom_value(rng)
        for each in list(files) if whole else [name]:
            files[each] = _edited(files[each], tag, value)
    (folder / "p").mkdir()
    for each, content in files.items():
        (folder / "p" / each).write_bytes(content)
    reader = DicomReader(folder, SourceOptions(public_ids=True))
    entries = reader.listing().entries
    sources = reader.settle([source for entry in entries for source in reader.scan(entry).sources])
    errors = [source.error for source in sources if source.error]
    for source in sources:
        if source.error:
            continue
        for field, (low, high) in CREDIBLE.items():
            value = getattr(source.acquisition, field)
            if value is not None and not (math.isfinite(value) and low <= value <= high):
                raise Silent(f"DICOM: {field} of {value}")
        volume = reader.read(source)
        spacing = volume.sample.spacing_mm
        if not all(0 < v < LARGEST_SPACING_MM for v in spacing) or not np.isfinite(volume.sample.affine).all():
            raise Silent(f"DICOM: spacing {spacing}")
        _check_pixels(volume.sample.image[0], [folder / file for file in source.files])
    if errors:
        if any("\n" in error for error in errors):
            raise Silent(f"an error of several lines: {errors}")
        raise DataError(errors[0][:500])


def _dicom_value(rng: np.random.Generator) -> Any:
    return mutations.pick(
        rng,
        mutations.pick(
            rng, (mutations.NUMBERS, mutations.TEXTS, ("1\\2", "1\\1", "0\\0\\0", "1\\0\\0\\0\\1\\0", "1e9\\1e9"))
        ),
    )


def _edited(content: bytes, tag: str, value: Any) -> bytes:
    """The file with one attribute as text, whatever its type: numbers where the type is one."""
    dataset = pydicom.dcmread(io.BytesIO(content), force=True)
    stream = io.BytesIO()
    with pydicom.config.disable_value_validation():
        try:
            text = "" if value is None else str(value)
            setattr(dataset, tag, text.split("\\") if "\\" in text else text)
            if isinstance(value, int) and not isinstance(value, bool):
                setattr(dataset, tag, value)
            elif tag in LENGTHS and isinstance(value, float):
                setattr(dataset, tag, [value] * LENGTHS[tag])
            dataset.save_as(stream, enforce_file_format=False)
        except Exception:  # pydicom does not write it: another case
            return mutations.damaged(np.random.default_rng(len(content)), content)
    return stream.getvalue()


def _check_pixels(image: np.ndarray, paths: list[Path]) -> None:
    """Every plane of the volume is one that pydicom decodes from the files, after the rescale that they state."""
    planes = []
    for path in paths:
        try:
            dataset = pydicom.dcmread(path, force=True)
            if "TransferSyntaxUID" not in dataset.file_meta:
                return
            pixels = dataset.pixel_array
        except Exception:  # what pydicom itself refuses has no oracle here
            return
        if dataset.get("BitsStored", 16) != dataset.get("BitsAllocated", 16):
            return
        planes += list(pixels if pixels.ndim == 3 else pixels[None])
        if "RescaleSlope" in dataset or "RescaleIntercept" in dataset or "RealWorldValueMappingSequence" in dataset:
            return
    held = {np.ascontiguousarray(plane.astype(np.float32)).tobytes() for plane in planes}
    flat = {np.ascontiguousarray(np.asarray(image[:, :, k], np.float32).T).tobytes() for k in range(image.shape[2])}
    if not flat <= held:
        raise Silent(f"DICOM: {len(flat - held)} of {image.shape[2]} planes are none of the files'")


READERS = {"nifti": nifti, "nrrd": nrrd_file, "dicom": dicom}
