"""An NRRD file goes in; an array, its RAS+ affine in mm and its header come out."""

from __future__ import annotations

import bz2
import gzip
import os
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nrrd
import numpy as np

from augengine.errors import DataError
from augengine.geometry import check_affine, spacing_mm
from augengine.io.units import check_spacing

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
UNITS_MM = {"": 1.0, "mm": 1.0, "millimeter": 1.0, "um": 1e-3, "µm": 1e-3, "micron": 1e-3, "microns": 1e-3, "cm": 10.0,
            "m": 1e3}  # fmt: skip
UNPACK: dict[str, Callable[[bytes], bytes]] = {
    "raw": bytes, "gzip": gzip.decompress, "gz": gzip.decompress, "bzip2": bz2.decompress, "bz2": bz2.decompress,
}  # fmt: skip
NOT_FOUND = "a data file that the header names is missing"


def read_nrrd(path: Path) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """The array (`(I, J, K)`, or `(layers, I, J, K)` wherever the file has its layers), affine and header.

    Raises:
        DataError: an empty, damaged or missing file, an unknown or missing space, missing directions, or a unit of
            length that is none.
    """
    if path.is_file() and path.stat().st_size == 0:
        raise DataError("this file is empty", where=str(path), next_step="fetch it again or leave it out")
    try:
        parts, lines = data_files(path), _header_lines(path)
        listed = next((n for n, line in enumerate(lines) if re.match(r"data ?file:\s*LIST\b", line)), len(lines))
        if len(parts) > 1 or listed < len(lines):
            # pynrrd takes the lines of a list for fields of the header, and knows one data file only.
            header = dict(nrrd.read_header(["NRRD0005", *lines[: listed + 1]]))
            data = _joined(header, path, parts)
        else:
            with path.open("rb") as file:
                header = dict(nrrd.read_header(file))
                data = nrrd.read_data(header, file, str(path))
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
            f"the NRRD space must be one of {', '.join(s for s in SPACES if '-' in s)}", found=space or "none",
            where=str(path), next_step="save the file in a space that names the patient's sides",
        )  # fmt: skip
    if "space directions" not in header or "space origin" not in header:
        raise DataError("an NRRD file must state space directions and origin", where=str(path))
    vectors = np.asarray(header["space directions"], float)
    spatial = [axis for axis, row in enumerate(vectors) if np.isfinite(row).all()]
    if len(spatial) != 3 or vectors.shape[1] != 3 or data.ndim not in (3, 4):
        raise DataError("one file must hold one 3D volume", found=f"shape {data.shape}", where=str(path))
    others = [axis for axis in range(data.ndim) if axis not in spatial]
    data = data.transpose(*others, *spatial)
    affine = np.eye(4)
    affine[:3, :3] = vectors[spatial].T
    affine[:3, 3] = header["space origin"]
    affine[:3] *= np.array(_units_mm(header, path))[:, None]
    affine = check_affine(np.diag([*SPACES[space], 1.0]) @ affine, str(path))
    check_spacing(spacing_mm(affine), str(header.get("space units", "not stated")), "space units", str(path))
    return data[0] if data.ndim == 4 and len(data) == 1 else data, affine, header


def data_files(path: Path) -> list[Path]:
    """Files that a header keeps its data in, in their order; none where the data follow the header.

    The format knows one name, a list of names, and a pattern with first, last and step; all are relative to the
    header's folder.
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
            first, last, step = map(int, words[1:4])
            names = [words[0] % k for k in range(first, last + (1 if step > 0 else -1), step)]
        else:
            names = [value.strip()]
        return [path.parent / name for name in names]
    return []


def outside_files(path: Path, root: Path) -> bool:
    """True if a header names data files that do not lie below `root`."""
    base = os.path.normpath(root)
    inside = (os.path.commonpath([base, os.path.normpath(base / file)]) == base for file in data_files(path))
    return not all(inside)


def quoted_words(text: object) -> list[str]:
    """`'"mm" "mm" "mm"'`, or the list that pynrrd makes of it, as a list of words."""
    return [str(word) for word in text] if isinstance(text, list | tuple) else shlex.split(str(text))


def _header_lines(path: Path) -> list[str]:
    """Lines of the header, up to the empty line before attached data; nothing of a file that is no NRRD file."""
    lines: list[str] = []
    with path.open("rb") as file:
        if file.read(4) != b"NRRD":
            return []
        file.readline()
        for raw in file:
            line = raw[:4096].decode("utf-8", "replace").rstrip()
            if line == "":
                break
            if not line.startswith("#"):
                lines.append(line)
    return lines


def _joined(header: dict[str, Any], path: Path, parts: list[Path]) -> np.ndarray:
    """Data of several files, one after another along the slowest axis, or along the one that the header states."""
    sizes = [int(n) for n in header["sizes"]]
    text = str(header.get("data file", header.get("datafile")))
    stated = re.search(r"(?:LIST|%\S*(?:\s+-?\d+){3})\s+(\d+)\s*$", text)
    each = int(stated.group(1)) if stated else len(sizes) - (len(parts) == sizes[-1])
    if each not in (len(sizes), len(sizes) - 1) or int(header.get("line skip", header.get("lineskip", 0))) != 0:
        raise DataError("data files must follow each other along the last axis, without lines to skip", where=str(path))
    encoding = str(header["encoding"])
    if encoding not in UNPACK:
        raise DataError("several data files must be raw, gzip or bzip2", found=encoding, where=str(path))
    dtype = nrrd.reader._determine_datatype(header)
    skip = int(header.get("byte skip", header.get("byteskip", 0)))
    count = int(np.prod(sizes)) // len(parts)
    pieces = []
    for part in parts:
        content = UNPACK[encoding](part.read_bytes())
        piece = np.frombuffer(content[len(content) - count * dtype.itemsize :] if skip == -1 else content[skip:], dtype)
        if piece.size != count:
            raise DataError("every data file must hold its share of the voxels", found=piece.size, where=str(path))
        pieces.append(piece)
    return np.concatenate(pieces).reshape(sizes, order="F")


def _units_mm(header: dict[str, Any], path: Path) -> list[float]:
    """Millimetres of one unit along each axis of the space; mm where the header states none."""
    words = quoted_words(header.get("space units", ""))
    unknown = [w for w in words if w.strip().lower() not in UNITS_MM]
    if unknown or len(words) not in (0, 3):
        raise DataError("space units must be a length, e.g. mm, for three axes", found=str(words), where=str(path))
    return [UNITS_MM[w.strip().lower()] for w in words] or [1.0] * 3
