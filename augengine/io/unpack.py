"""A file and the bytes that its header declares in; the bytes out, with no more memory than they take.

A header of a few hundred bytes can declare a volume of many GiB, and a packed file can unpack to a thousand times its
size. So what is declared is compared with what the file can hold before any memory is taken for it.
"""

from __future__ import annotations

import bz2
import gzip
from pathlib import Path
from typing import Literal

from augengine.errors import DataError

Packing = Literal["raw", "gzip", "bzip2"]
LARGEST_BYTES = 2**33
"""Of one file's voxels, unpacked."""
_MOST = {"raw": 1, "gzip": 1032, "bzip2": 2**20}  # bytes from one packed byte, at most; bzip2 packs zeros nearly so
_REST_BYTES = 2**24  # what may follow the voxels: extensions, padding
_PIECE = 2**20


def check_declared(declared: int, held: int, packing: Packing, where: str) -> None:
    """Refuse voxels that a file of `held` bytes cannot hold, or that are too many for one volume.

    Raises:
        DataError: with both sizes.
    """
    if not 0 < declared <= held * _MOST[packing] + 1024 * (packing != "raw"):
        raise DataError(
            "a file must hold the voxels that its header declares",
            found=f"{declared} bytes declared, {held} in the file",
            where=where,
            next_step="fetch it again or leave it out",
        )
    if declared > LARGEST_BYTES:
        raise DataError(
            f"a volume has at most {LARGEST_BYTES >> 30} GiB of voxels",
            found=f"{declared / 2**30:.1f} GiB",
            where=where,
            next_step="resample or crop it",
        )


def unpacked(path: Path, packing: Packing, declared: int, offset: int = 0) -> bytes:
    """The bytes of a file from `offset` on, unpacked and read to the end, where the checksum stands.

    Raises:
        DataError: it unpacks to much more than is declared.
        OSError, EOFError, zlib.error: it is damaged.
    """
    with path.open("rb") as file:
        file.seek(offset)
        if packing == "raw":
            return file.read()
        with gzip.GzipFile(fileobj=file) if packing == "gzip" else bz2.BZ2File(file) as content:
            return _whole(content, declared, path)


def _whole(content: gzip.GzipFile | bz2.BZ2File, declared: int, path: Path) -> bytes:
    pieces, size = [], 0
    while piece := content.read(_PIECE):
        size += len(piece)
        if size > declared + _REST_BYTES:
            raise DataError(
                "a packed file must hold what its header declares", found=f"more than {declared} bytes", where=str(path)
            )
        pieces.append(piece)
    return b"".join(pieces)
