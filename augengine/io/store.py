"""Folders on local disks and object stores behind one small interface with atomic writes."""

from __future__ import annotations

import json
import os
import uuid
from pathlib import PurePosixPath
from typing import Any, cast

import fsspec
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from augengine.errors import DataError, RunError


class Store:
    """A root folder, given as a local path or any fsspec URI (`s3://bucket/run`, `gs://…`, `file:///…`).

    Local writes go to a hidden temporary file in the same folder and are renamed; object stores receive a
    single PUT. A reader therefore never sees half a file.
    """

    def __init__(self, uri: str | os.PathLike[str]) -> None:
        self.uri = os.fspath(uri).rstrip("/") or "/"
        try:
            self.fs, self.root = fsspec.core.url_to_fs(self.uri)
        except (ImportError, ValueError) as error:
            raise RunError(
                "the storage scheme is not available",
                found=str(error),
                where=self.uri,
                next_step="install its fsspec package",
            ) from None
        self.local = isinstance(self.fs, LocalFileSystem)
        if self.local:
            self.uri = self.root = os.path.abspath(self.root)

    def path(self, name: str) -> str:
        """The path of `name` in the file system's own terms."""
        return str(PurePosixPath(self.root) / name)

    def write(self, name: str, content: bytes) -> None:
        """Write one file atomically, replacing any former one."""
        target = self.path(name)
        if not self.local:
            self.fs.pipe_file(target, content)
            return
        folder, base = os.path.split(target)
        temporary = os.path.join(folder, f".tmp-{base}-{os.getpid()}-{uuid.uuid4().hex[:8]}")
        try:
            os.makedirs(folder, exist_ok=True)
            with open(temporary, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        except OSError as error:
            if os.path.exists(temporary):
                os.unlink(temporary)
            raise RunError("cannot write the output", found=error.strerror or str(error), where=target) from None

    def write_json(self, name: str, value: Any) -> None:
        """Write JSON, indented and with sorted keys, atomically."""
        self.write(name, (json.dumps(value, indent=1, sort_keys=True) + "\n").encode())

    def read(self, name: str) -> bytes:
        """The bytes of one file; FileNotFoundError where there is none."""
        return cast(bytes, self.fs.cat_file(self.path(name)))

    def read_json(self, name: str) -> Any:
        """Parsed JSON; a broken file is a `DataError`."""
        try:
            return json.loads(self.read(name))
        except ValueError:
            raise DataError("this file is not valid JSON", where=self.path(name)) from None

    def exists(self, name: str = "") -> bool:
        """True if the file or folder is there."""
        return bool(self.fs.exists(self.path(name)))

    def names(self, folder: str, suffix: str = "") -> list[str]:
        """Names (relative to the root, sorted) of visible files in one folder."""
        if not self.fs.exists(self.path(folder)):
            return []
        self.fs.invalidate_cache()
        found = (PurePosixPath(p).name for p in self.fs.ls(self.path(folder), detail=False))
        return sorted(f"{folder}/{n}".lstrip("/") for n in found if n.endswith(suffix) and not n.startswith((".", "_")))

    def remove(self, name: str) -> None:
        """Delete one file if it is there."""
        if self.exists(name):
            self.fs.rm_file(self.path(name))

    def parquet(self, name: str) -> pq.ParquetFile:
        """Open a Parquet file for reading row group by row group."""
        filesystem = pafs.LocalFileSystem() if self.local else pafs.PyFileSystem(pafs.FSSpecHandler(self.fs))
        try:
            return pq.ParquetFile(self.path(name), filesystem=filesystem)
        except FileNotFoundError:
            raise DataError("no such shard", where=self.path(name)) from None
        except Exception as error:  # pyarrow raises several unrelated classes for damaged files
            raise DataError(
                "this is not a readable Parquet file", found=str(error).splitlines()[0], where=self.path(name)
            ) from None
