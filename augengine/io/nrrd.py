"""An NRRD file goes in; an array, its RAS+ affine in mm and its header come out."""

from __future__ import annotations

import math
import os
import re
import shlex
from pathlib import Path
from typing import Any

import nrrd
import numpy as np

from augengine.errors import DataError
from augengine.geometry import check_affine, spacing_mm
from augengine.io.units import check_spacing
from augengine.io.unpack import LARGEST_BYTES, Packing, check_declared, unpacked

SUFFIXES = (".nrrd", ".nhdr")
# World axes of the file's space, as signs against RAS+.
SPACES = {
    "left-posterior-superior": (-1, -1, 1),
    "lps": (-1, -1, 1),
    "right-anterior-superior": (1, 1, 1),
    "ras": (1, 1, 1),
    "left-anterior-superior": (-1, 1, 1),
    "las": (-1, 1, 1),
}
# In mm, as the units library that the format refers to spells them.
UNITS_MM = {
    "": 1.0,
    "mm": 1.0,
    "millimeter": 1.0,
    "um": 1e-3,
    "µm": 1e-3,
    "micron": 1e-3,
    "microns": 1e-3,
    "cm": 10.0,
    "m": 1e3,
}
PACKED: dict[str, Packing] = {
    "raw": "raw",
    "gzip": "gzip",
    "gz": "gzip",
    "bzip2": "bzip2",
    "bz2": "bzip2",
    "ascii": "raw",
    "text": "raw",
    "txt": "raw",
}
MOST_FILES = 100_000
"""Data files of a header, and its lines."""
TEXTS = ("ascii", "text", "txt")
_LONGEST_LINE = 2**16
_PATTERN = re.compile(r"[^%]*%0?\d{0,2}d[^%]*")
NOT_FOUND = "a data file that the header names is missing"


def read_nrrd(path: Path, within: Path | None = None) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """The array (`(I, J, K)`, or `(layers, I, J, K)` wherever the file has its layers), affine and header.

    Args:
        within: the folder that data files must lie below; that of the header by default.

    Raises:
        DataError: an empty, damaged or missing file, data files elsewhere, more voxels than the file can hold, an
            unknown or missing space, missing directions, or a unit of length that is none.
    """
    if path.is_file() and path.stat().st_size == 0:
        raise DataError("this file is empty", where=str(path), next_step="fetch it again or leave it out")
    try:
        if outside_files(path, within or path.parent):
            raise DataError("an NRRD header must name data files below the folder of the data set", where=str(path))
        parts, lines = data_files(path), _header_lines(path)
        listed = next((n for n, line in enumerate(lines) if re.match(r"data ?file:\s*LIST\b", line)), len(lines))
        _check_fields(lines[:listed], path)
        # pynrrd takes the lines of a list for fields of the header, and knows one data file only.
        header = dict(nrrd.read_header(["NRRD0005", *lines[: listed + 1]]))
        data = _joined(header, path, parts)
    except DataError:
        raise
    except FileNotFoundError:
        rule = "this file is missing" if not path.is_file() else NOT_FOUND
        raise DataError(rule, where=str(path), next_step="fetch it again or leave it out") from None
    except Exception as error:  # pynrrd, zlib and numpy raise many unrelated classes for damaged files
        raise DataError("this NRRD file is damaged", found=type(error).__name__, where=str(path)) from None
    space = str(header.get("space", "")).lower()
    if space not in SPACES:
        raise DataError(
            f"the NRRD space must be one of {', '.join(s for s in SPACES if '-' in s)}",
            found=space or "none",
            where=str(path),
            next_step="save the file in a space that names the patient's sides",
        )
    if "space directions" not in header or "space origin" not in header:
        raise DataError("an NRRD file must state space directions and origin", where=str(path))
    vectors, origin = np.asarray(header["space directions"], float), np.asarray(header["space origin"], float)
    spatial = [axis for axis, row in enumerate(vectors) if np.isfinite(row).all()]
    fits = vectors.ndim == 2 and vectors.shape == (data.ndim, 3) and origin.shape == (3,)
    if len(spatial) != 3 or not fits or data.ndim not in (3, 4):
        raise DataError("one file must hold one 3D volume", found=f"shape {data.shape}", where=str(path))
    others = [axis for axis in range(data.ndim) if axis not in spatial]
    data = data.transpose(*others, *spatial)
    affine = np.eye(4)
    affine[:3, :3] = vectors[spatial].T
    affine[:3, 3] = origin
    affine[:3] *= np.array(_units_mm(header, path))[:, None]
    affine = check_affine(np.diag([*SPACES[space], 1.0]) @ affine, str(path))
    check_spacing(spacing_mm(affine), str(header.get("space units", "not stated")), "space units", str(path))
    return data[0] if data.ndim == 4 and len(data) == 1 else data, affine, header


def _check_fields(lines: list[str], path: Path) -> None:
    """Refuse a field that stands twice, also in its two spellings (`byte skip`, `byteskip`): which holds is a guess."""
    names = [line.partition(":")[0].replace(" ", "").lower() for line in lines if ":" in line and ":=" not in line]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError("a field may stand once in an NRRD header", found=twice, where=str(path))


def data_files(path: Path) -> list[Path]:
    """Files that a header keeps its data in, in their order; none where the data follow the header.

    The format knows one name, a list of names, and a pattern with first, last and step; all are relative to the
    header's folder.

    Raises:
        DataError: a pattern that is none, or of more than `MOST_FILES` files.
    """
    lines = _header_lines(path)
    for n, line in enumerate(lines):
        field, _, value = line.partition(":")
        if field.strip().lower() not in ("data file", "datafile"):
            continue
        words = value.split()
        if words[:1] == ["LIST"]:
            names = [name.strip() for name in lines[n + 1 :] if name.strip()]
        elif len(words) in (4, 5) and "%" in words[0]:
            names = _numbered(words, path)
        else:
            names = [value.strip()]
        if not names or not all(names) or any("\0" in name for name in names):
            raise DataError("a header must name its data files", found="an empty name", where=str(path))
        return [path.parent / name for name in names]
    return []


def _numbered(words: list[str], path: Path) -> list[str]:
    """`scan%03d.raw 1 20 1` as names."""
    numbers = [int(word) for word in words[1:4] if re.fullmatch(r"-?\d{1,9}", word)]
    if len(numbers) != 3 or numbers[2] == 0 or not _PATTERN.fullmatch(words[0]):
        raise DataError(
            "a pattern of data files is one %d between texts, with first, last and step",
            found=" ".join(words),
            where=str(path),
        )
    first, last, step = numbers
    several = range(first, last + (1 if step > 0 else -1), step)
    if not 0 < len(several) <= MOST_FILES:
        raise DataError(f"a header must name 1 to {MOST_FILES} data files", found=f"{len(several)}", where=str(path))
    return [words[0] % k for k in several]


def outside_files(path: Path, root: Path) -> bool:
    """True if a header names data files that do not lie below `root`."""
    base = os.path.abspath(root)
    inside = (os.path.commonpath([base, os.path.abspath(file)]) == base for file in data_files(path))
    return not all(inside)


def quoted_words(text: object) -> list[str]:
    """`'"mm" "mm" "mm"'`, or the list that pynrrd makes of it, as a list of words."""
    try:
        return [str(word) for word in text] if isinstance(text, list | tuple) else shlex.split(str(text))
    except ValueError:
        return [str(text)]


def _header_lines(path: Path) -> list[str]:
    """Lines of the header, up to the empty line before attached data; nothing of a file that is no NRRD file."""
    return _header(path)[0]


def _header(path: Path) -> tuple[list[str], int]:
    """The lines, and where in the file attached data begin."""
    lines: list[str] = []
    with path.open("rb") as file:
        if file.read(4) != b"NRRD":
            return [], 0
        file.readline(_LONGEST_LINE)
        while raw := file.readline(_LONGEST_LINE):
            line = raw.decode("utf-8", "replace").rstrip()
            if line == "":
                break
            if len(lines) > MOST_FILES:
                raise DataError(f"an NRRD header has at most {MOST_FILES} lines", where=str(path))
            if not line.startswith("#"):
                lines.append(line)
        return lines, file.tell()


def _joined(header: dict[str, Any], path: Path, parts: list[Path]) -> np.ndarray:
    """The data, after the header or in files of their own.

    Several files follow one another along the slowest axis, or along the one that the header states.
    """
    sizes = [int(n) for n in header["sizes"]]
    text = str(header.get("data file", header.get("datafile")))
    stated = re.search(r"(?:LIST|%\S*(?:\s+-?\d+){3})\s+(\d+)\s*$", text)
    each = int(stated.group(1)) if stated and parts else len(sizes) - (len(parts) == sizes[-1] and len(parts) > 1)
    line_skip = int(header.get("line skip", header.get("lineskip", 0)))
    byte_skip = int(header.get("byte skip", header.get("byteskip", 0)))
    encoding = str(header["encoding"]).lower()
    if len(parts) > 1 and (each not in (len(sizes), len(sizes) - 1) or line_skip != 0):
        raise DataError("data files must follow each other along the last axis, without lines to skip", where=str(path))
    if encoding not in PACKED:
        raise DataError(f"NRRD data must be encoded as one of {', '.join(PACKED)}", found=encoding, where=str(path))
    if min(sizes, default=0) < 1 or byte_skip < -1 or not 0 <= line_skip <= MOST_FILES:
        raise DataError(
            f"NRRD sizes are 1 or more, byte skip -1 or more, line skip 0 to {MOST_FILES}",
            found=f"sizes {sizes}, byte skip {byte_skip}, line skip {line_skip}",
            where=str(path),
        )
    dtype = nrrd.reader._determine_datatype(header)
    own = parts or [path]
    count = math.prod(sizes) // len(own)
    bytes_each = count * dtype.itemsize
    if count * len(own) != math.prod(sizes):
        raise DataError("every data file must hold its share of the voxels", found=f"{len(own)} files", where=str(path))
    for part in own:
        least = count if encoding in TEXTS else bytes_each
        check_declared(least + max(byte_skip, 0), part.stat().st_size, PACKED[encoding], str(path))
    if bytes_each * len(own) > LARGEST_BYTES:
        check_declared(bytes_each * len(own), bytes_each * len(own), "raw", str(path))
    pieces = []
    for part in own:
        offset = 0 if parts else _header(path)[1]
        content = _data(part, PACKED[encoding], offset, line_skip, byte_skip, bytes_each)
        if encoding in TEXTS:
            content = _written_out(content, dtype, count)
        if len(content) != bytes_each:
            raise DataError(
                "every data file must hold its share of the voxels",
                found=f"{len(content)} of {bytes_each} bytes",
                where=str(path),
            )
        pieces.append(np.frombuffer(content, dtype))
    return (np.concatenate(pieces) if len(pieces) > 1 else pieces[0]).reshape(sizes, order="F")


def _data(part: Path, packing: Packing, offset: int, line_skip: int, byte_skip: int, wanted: int) -> bytes:
    """The bytes of the voxels of one file: lines are skipped before unpacking, bytes after it."""
    if line_skip:
        with part.open("rb") as file:
            file.seek(offset)
            for _ in range(line_skip):
                if not file.readline().endswith(b"\n"):
                    raise DataError("there must be as many lines to skip as a header says", found=line_skip)
            offset = file.tell()
    content = unpacked(part, packing, wanted + max(byte_skip, 0), offset)
    skipped = max(0, len(content) - wanted) if byte_skip == -1 else byte_skip
    return content[skipped:]


def _written_out(content: bytes, dtype: np.dtype, count: int) -> bytes:
    """Numbers that are written as text, as the bytes that they stand for."""
    values = np.fromstring(content, np.float64, sep=" ")
    if values.size != count or (values.astype(dtype) != values).any():
        raise DataError("a text of NRRD data must hold every voxel", found=f"{values.size} of {count} numbers")
    return values.astype(dtype).tobytes()


def _units_mm(header: dict[str, Any], path: Path) -> list[float]:
    """Millimetres of one unit along each axis of the space; mm where the header states none."""
    words = quoted_words(header.get("space units", ""))
    unknown = [w for w in words if w.strip().lower() not in UNITS_MM]
    if unknown or len(words) not in (0, 3):
        raise DataError("space units must be a length, e.g. mm, for three axes", found=str(words), where=str(path))
    return [UNITS_MM[w.strip().lower()] for w in words] or [1.0] * 3
