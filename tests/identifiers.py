"""Unmistakable identifiers: planted in DICOM headers, folder and file names; searched for in files of any kind."""

from __future__ import annotations

import base64
import gzip
import io
import re
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from mri_files import write_nifti, write_series
from PIL import Image
from pydicom.dataset import Dataset

NAMES = {
    "PatientName": "Zqplantname^Quxanna",
    "PatientID": "ZQID7731",
    "PatientBirthDate": "19431127",
    "PatientAddress": "Zqstreet 5",
    "PatientTelephoneNumbers": "0551-7731-99",
    "OtherPatientIDs": "ZQOTHER77",
    "AccessionNumber": "ZQACC5512",
    "InstitutionName": "Zqhospital of Quxtown",
    "InstitutionAddress": "Zqlane 9",
    "ReferringPhysicianName": "Zqdoctor^Bob",
    "PerformingPhysicianName": "Zqperform^Eve",
    "OperatorsName": "Zqoperator^Sam",
    "StationName": "ZQSTATION1",
    "DeviceSerialNumber": "ZQSER8841",
    "StudyID": "ZQSTUDY3",
    "StudyDate": "20030317",
    "SeriesDate": "20030318",
    "AcquisitionDate": "20030319",
    "StudyDescription": "Zqstudytext",
    "SeriesDescription": "Zqseriestext",
    "ProtocolName": "Zqprotocol",
    "PatientComments": "Zqremark",
    "ImageComments": "Zqimagetext",
    "StudyInstanceUID": "1.2.826.0.1.7731.5512.1",
    "FrameOfReferenceUID": "1.2.826.0.1.7731.5512.2",
}
SERIES = "1.2.826.0.1.7731.5512.9"
FOLDER, FILE, STRAY, PRIVATE = "ZQFOLDER_Quxanna_7731", "zqfile_quxanna", "zqstray_letter", "zqprivate"
WORDS = tuple(
    part.lower()
    for text in (*NAMES.values(), SERIES, FOLDER, FILE, STRAY, PRIVATE)
    for part in text.split("^")
    if len(part) > 3  # "Bob" could stand anywhere
)
"""In small letters; what is searched is made small, too."""


def plant_dicom(root: Path, patients: int = 4, slices: int = 4, size: int = 32) -> None:
    """Series with everything planted; each patient has numbers of its own, the last one's file is cut off."""
    rng = np.random.default_rng(3)
    for n in range(patients):
        pixels = rng.integers(1, 900, (size, size, slices)).astype(np.uint16)
        tags: dict[str, Any] = {**NAMES, "PatientID": f"{NAMES['PatientID']}{n}"}
        request = Dataset()
        request.RequestingPhysician, request.AccessionNumber = "Zqdoctor^Bob", NAMES["AccessionNumber"]
        tags["RequestAttributesSequence"], tags["EchoTime"] = [request], f"{1.5 + n / 10:.1f}"
        tags["StudyInstanceUID"] = f"{NAMES['StudyInstanceUID']}.{n}"
        folder = root / f"{FOLDER}_{n}" / NAMES["AccessionNumber"]
        for k, path in enumerate(write_series(folder, pixels, series=f"{SERIES}.{n}", spacing=(2, 2), **tags)):
            target = path.with_name(f"{FILE}_{n}_{k}.dcm")
            path.rename(target)
            if n == patients - 1 and k == 0:
                target.write_bytes(target.read_bytes()[:-200])
        (folder / f"{STRAY}.txt").write_text(f"Dear {NAMES['PatientName']}\n")


def plant_nifti(root: Path, patients: int = 3, size: int = 16, first: int = 0) -> None:
    """Images with masks whose names are identifiers, and texts of whose headers are others, from number `first` on."""
    rng = np.random.default_rng(4 + first)
    for n in range(first, first + patients):
        image = rng.integers(1, 900, (size, size, 4)).astype(np.int16)
        folder = root / f"{FOLDER}_{n}"
        write_nifti(folder / f"{FILE}_{n}_t1.nii.gz", image)
        write_nifti(folder / f"{FILE}_{n}_mask.nii.gz", (image > 450).astype(np.uint8))
        for path in folder.iterdir():
            raw = bytearray(gzip.decompress(path.read_bytes()))
            raw[148 : 148 + 20] = b"Zqplantname Quxanna "  # `descrip`
            raw[228 : 228 + 16] = b"ZQACC5512 zqpriv"  # `aux_file`
            path.write_bytes(gzip.compress(bytes(raw)))


def found_in(root: Path, words: Iterable[str] = WORDS) -> dict[str, list[str]]:
    """Words by place: names below `root`, contents, and what is packed or compressed in them."""
    found: dict[str, list[str]] = {}
    for path in sorted(root.rglob("*")):
        place = str(path.relative_to(root))
        texts = [place.encode(), *(_layers(path) if path.is_file() and not path.is_symlink() else ())]
        hits = sorted({word for text in texts for word in words if word.encode() in text.lower()})
        if hits:
            found[place] = hits
    return found


def _layers(path: Path) -> Iterator[bytes]:
    content = path.read_bytes()
    yield content
    yield from _unpacked(path.name.lower(), content)


def _unpacked(name: str, content: bytes) -> Iterator[bytes]:
    if name.endswith(".parquet"):
        yield from _cells(content)
    elif name.endswith(".gz"):
        inner = gzip.decompress(content)
        yield inner
        yield from _unpacked(name.removesuffix(".gz"), inner)
    elif name.endswith((".html", ".svg")):
        for kind, packed in re.findall(rb"data:([\w/+.-]+);base64,([A-Za-z0-9+/=]+)", content):
            inner = base64.b64decode(packed)
            yield inner
            yield from _unpacked(f"x.{kind.decode().rpartition('/')[2]}", inner)
    elif name.endswith(".png"):
        with Image.open(io.BytesIO(content)) as picture:
            yield repr(picture.info).encode()
    elif name.endswith(".tar"):
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            for member in archive.getmembers():
                yield member.name.encode()
                inner = archive.extractfile(member)
                if inner is not None:
                    text = inner.read()
                    yield text
                    yield from _unpacked(member.name.lower(), text)
    elif zipfile.is_zipfile(io.BytesIO(content)):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for member in archive.namelist():
                yield member.encode()
                yield archive.read(member)


def _cells(content: bytes) -> Iterator[bytes]:
    """Schema, metadata and every value; numbers are values, too: dates may stand as such."""
    table = pq.read_table(io.BytesIO(content))
    yield str(table.schema).encode()
    yield repr(table.schema.metadata).encode()
    for column in table.columns:
        for value in column.to_pylist():
            yield value if isinstance(value, bytes) else repr(value).encode()
