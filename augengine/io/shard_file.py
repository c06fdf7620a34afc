"""One Parquet file in, its row groups out; whatever is wrong with it is an error that names the file.

Pages carry checksums, and the footer's stands in the file's name. It is compared before the footer is parsed: a flipped
bit in a footer can end the process, or give other rows.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from augengine.errors import AugengineError, DataError, RunError

_NAMED = re.compile(r"-[0-9a-f]{12}(?P<footer>[0-9a-f]{12})\.parquet$")
_MAGIC = b"PAR1"
_END = len(_MAGIC) + 4  # the footer's length and the magic number
_TAIL_BYTES = 2**16


class ShardFile(pq.ParquetFile):  # type: ignore[misc]
    """A `ParquetFile` whose damage shows as a `DataError`, on opening as on reading.

    Raises:
        DataError: there is no such file, or it is damaged.
        RunError: it may not be read.
    """

    def __init__(self, path: str, filesystem: pafs.FileSystem) -> None:
        self.where = path
        with _named(path):
            metadata = None
            if (named := _NAMED.search(path)) is not None:
                footer = _footer(path, filesystem)
                if hashlib.sha256(footer).hexdigest()[:12] != named["footer"]:
                    raise DataError(
                        "the footer of a shard must be the one that its name tells",
                        found="another one",
                        where=path,
                        next_step="restore the file, or write changed rows with augengine.io.dataset.write_dataset",
                    )
                metadata = pq.read_metadata(pa.BufferReader(_MAGIC + footer))
            super().__init__(path, filesystem=filesystem, metadata=metadata, page_checksum_verification=True)

    def read_row_group(self, i: int, *args: Any, **options: Any) -> pa.Table:
        """As pyarrow's."""
        with _named(self.where):
            return super().read_row_group(i, *args, **options)

    def read_row_groups(self, row_groups: Sequence[int], *args: Any, **options: Any) -> pa.Table:
        """As pyarrow's."""
        with _named(self.where):
            return super().read_row_groups(row_groups, *args, **options)

    def read(self, *args: Any, **options: Any) -> pa.Table:
        """As pyarrow's."""
        with _named(self.where):
            return super().read(*args, **options)


def footer_sha256(content: bytes) -> str:
    """sha256 of the footer of a Parquet file, with its length and the magic number behind it."""
    return hashlib.sha256(content[-_footer_bytes(content[-_END:]) :]).hexdigest()


def _footer(path: str, filesystem: pafs.FileSystem) -> bytes:
    with filesystem.open_input_file(path) as file:
        size = file.size()
        tail = file.read_at(min(size, _TAIL_BYTES), max(0, size - _TAIL_BYTES))
        length = _footer_bytes(tail[-_END:])
        if length > size:
            raise ValueError("the file is cut off")
        return bytes(tail[-length:] if length <= len(tail) else file.read_at(length, size - length))


def _footer_bytes(end: bytes) -> int:
    if len(end) != _END or end[4:] != _MAGIC:
        raise ValueError("the file is cut off")
    return int(struct.unpack("<I", end[:4])[0]) + _END


@contextmanager
def _named(where: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise DataError("no such shard", where=where, next_step="restore it, or make the data set anew") from None
    except PermissionError as error:
        raise RunError("cannot read", found=error.strerror or str(error), where=where) from None
    except (AugengineError, MemoryError):
        raise
    except Exception as error:  # pyarrow raises several unrelated classes for damaged files
        text = str(error).splitlines() or [type(error).__name__]
        raise DataError("this is not a readable Parquet file", found=text[0], where=where) from None
