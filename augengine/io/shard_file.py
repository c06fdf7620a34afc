"""One Parquet file in, its row groups out; whatever is wrong with it is an error that names the file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from augengine.errors import AugengineError, DataError, RunError


class ShardFile(pq.ParquetFile):  # type: ignore[misc]
    """A `ParquetFile` whose damage shows as a `DataError`, on opening as on reading.

    Raises:
        DataError: there is no such file, or it is damaged.
        RunError: it may not be read.
    """

    def __init__(self, path: str, filesystem: pafs.FileSystem) -> None:
        self.where = path
        with _named(path):
            super().__init__(path, filesystem=filesystem, page_checksum_verification=True)

    def read_row_group(self, i: int, *args: Any, **options: Any) -> pa.Table:
        """As pyarrow's."""
        with _named(self.where):
            return super().read_row_group(i, *args, **options)

    def read(self, *args: Any, **options: Any) -> pa.Table:
        """As pyarrow's."""
        with _named(self.where):
            return super().read(*args, **options)


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
