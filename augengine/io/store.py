"""Folders on local disks and object stores behind one small interface with atomic writes and fresh listings."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import PurePosixPath
from typing import Any, BinaryIO, TypeAlias, Union, cast
from urllib.parse import unquote

import fsspec
import pyarrow.fs as pafs
from fsspec.dircache import DirCache
from fsspec.implementations.local import LocalFileSystem

from augengine.errors import AugengineError, DataError, RunError
from augengine.io.shard_file import ShardFile

Place: TypeAlias = Union["Store", str, "os.PathLike[str]"]
"""A folder: a `Store`, which knows its storage options, or a path or URI, which takes fsspec's own configuration."""

# What a disk says that knows no hard links: FAT and exFAT, some network shares.
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
_READERS = 16
_WAITS_S = (0.1, 0.5, 2.0)
_SECRET_PARAMETER = re.compile(
    r"[?&;#]([\w-]*(?:signature|token|secret|passw(?:or)?d|credentials?|access[_-]?key(?:[_-]?id)?)|sig|key)=",
    re.IGNORECASE,
)
_NEXT_STEP = {
    "write": "make room or make it writable and run the same command again; what is committed is kept",
    "read": "check the path, the access and the connection, and run the same command again",
}


class Store:
    """A root folder, given as a local path or any fsspec URI (`s3://bucket/run`, `gs://…`, `file:///…`).

    Local writes go to a hidden temporary file in the same folder and are renamed; object stores receive a
    single PUT. A reader therefore never sees half a file. Listings are never cached: what another process wrote is
    seen. Whatever a disk or an object store refuses is a `RunError` of one line.

    A store pickles as its URI and options. Options may hold secrets: no output, fingerprint, message or log has them.

    Args:
        uri: the folder.
        storage_options: of the fsspec file system (`key`, `secret`, `endpoint_url`, …), over fsspec's own
            configuration (`FSSPEC_*` and its files), which travels with the store, too.

    Raises:
        RunError: a scheme without its package, unknown options, a password in the URI, or a chain of URIs.
    """

    def __init__(self, uri: str | os.PathLike[str], storage_options: Mapping[str, Any] | None = None) -> None:
        self.uri = os.fspath(uri).rstrip("/") or "/"
        check_uri(self.uri)
        try:
            kind = fsspec.get_filesystem_class(fsspec.utils.get_protocol(self.uri))
            self._options = fsspec.config.apply_config(kind, dict(storage_options or {}))
            self.fs, self.root = fsspec.core.url_to_fs(self.uri, **{**self._options, "use_listings_cache": False})
        except (ImportError, ValueError) as error:
            raise RunError(
                "the storage scheme is not available",
                found=self._shown(error),
                where=self.uri,
                next_step="install its fsspec package",
            ) from None
        except Exception as error:  # each file system has classes of its own for options that it does not take
            raise RunError(
                "the storage cannot be opened",
                found=self._shown(error),
                where=self.uri,
                next_step="check the storage options and the FSSPEC_* variables",
            ) from None
        if isinstance(cache := getattr(self.fs, "dircache", None), DirCache):  # some do not hand the option on
            cache.use_listings_cache = False
            cache.clear()
        self.local = isinstance(self.fs, LocalFileSystem)
        if self.local:
            self.uri = self.root = os.path.abspath(self.root)

    @classmethod
    def at(cls, place: Place) -> Store:
        """The store of a place; a store is itself."""
        return place if isinstance(place, Store) else cls(place)

    def folder(self, name: str) -> Store:
        """A folder below this one, with the same options."""
        return Store(f"{self.uri.rstrip('/')}/{name}", self._options)

    def parent(self) -> Store | None:
        """The folder above, with the same options; None if this is the top."""
        above, slash, name = self.uri.rpartition("/")
        return Store(above, self._options) if slash and name and above and not above.endswith("/") else None

    def like(self, uri: str) -> Store:
        """Another folder; with the same options, if it stands on the same kind of storage."""
        same = fsspec.utils.get_protocol(uri) == fsspec.utils.get_protocol(self.uri)
        return Store(uri, self._options if same else None)

    def __repr__(self) -> str:
        return f"Store({self.uri!r})"

    def __str__(self) -> str:
        return self.uri

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Store) and (self.uri, self._options) == (other.uri, other._options)

    def __hash__(self) -> int:
        return hash(self.uri)

    def __reduce__(self) -> tuple[object, ...]:
        return Store, (self.uri, self._options)

    def path(self, name: str) -> str:
        """The path of `name` in the file system's own terms."""
        return str(PurePosixPath(self.root) / name)

    def uri_of(self, name: str) -> str:
        """The absolute path or URI of `name`, for other tools."""
        return self.path(name) if self.local else f"{self.uri}/{name}"

    def write(self, name: str, content: bytes) -> None:
        """Write one file atomically, replacing any former one."""
        with self._doing("write", name):
            if self.local:
                self._put(name, content, os.replace)
            else:
                self.fs.pipe_file(self.path(name), content)

    def write_json(self, name: str, value: Any) -> None:
        """Write JSON, indented and with sorted keys, atomically."""
        self.write(name, (json.dumps(value, indent=1, sort_keys=True) + "\n").encode())

    def create(self, name: str, content: bytes = b"") -> bool:
        """Write a file that is not there yet, atomically; False where it is. Of several callers one gets True.

        A hard link on local disks, a conditional PUT on object stores. Where the answer to a PUT is lost, the content
        tells whose it is: callers that must not be taken for each other write different contents.
        """
        with self._doing("write", name):
            return self._create_local(name, content) if self.local else self._create_object(name, content)

    def read(self, name: str) -> bytes:
        """The bytes of one file; FileNotFoundError where there is none."""
        with self._doing("read", name):
            try:
                return cast(bytes, self.fs.cat_file(self.path(name)))
            except NotADirectoryError as error:
                raise FileNotFoundError(error.errno, error.strerror, self.path(name)) from None

    def read_text(self, name: str) -> str:
        """The text of one file; one that is not UTF-8 is a `DataError`."""
        try:
            return self.read(name).decode()
        except UnicodeDecodeError:
            raise DataError("this file must be UTF-8", where=self.path(name)) from None

    def read_many(self, names: Iterable[str]) -> dict[str, bytes]:
        """Small files by name, many at a time; those that are not there are left out."""

        def read(name: str) -> tuple[str, bytes | None]:
            try:
                return name, self.read(name)
            except FileNotFoundError:
                return name, None

        with ThreadPoolExecutor(_READERS) as pool:
            return {name: content for name, content in pool.map(read, names) if content is not None}

    def read_json(self, name: str) -> Any:
        """Parsed JSON; a broken file is a `DataError`."""
        return self.parsed(name, self.read(name))

    def read_mapping(self, name: str, **needed: type | tuple[type, ...]) -> dict[str, Any]:
        """Parsed JSON that is a mapping and holds what is `needed`, of these types; anything else is a `DataError`."""
        values = self.read_json(name)
        if not isinstance(values, dict):
            raise DataError("this file holds a mapping", found=type(values).__name__, where=self.path(name))
        for key, kind in needed.items():
            value = values.get(key)
            if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
                raise DataError(
                    f"this file says '{key}'",
                    found=repr(value)[:80],
                    where=self.path(name),
                    next_step="restore it, or run the command that wrote it again",
                )
        return values

    def parsed(self, name: str, content: bytes) -> Any:
        """JSON that `name` holds; broken one is a `DataError`."""
        try:
            return json.loads(content)
        except (ValueError, RecursionError):
            raise DataError("this file is not valid JSON", where=self.path(name)) from None

    def exists(self, name: str = "") -> bool:
        """True if the file or folder is there; not to be allowed to know is an error."""
        return self.size(name) is not None

    def size(self, name: str) -> int | None:
        """Bytes of a file; None if it is not there."""
        with self._doing("read", name):
            try:
                path = self.path(name)
                return os.stat(path).st_size if self.local else int(self.fs.info(path)["size"] or 0)
            except (FileNotFoundError, NotADirectoryError):
                return None

    def names(self, folder: str, suffix: str = "") -> list[str]:
        """Names (relative to the root, sorted) of visible files in one folder; none where there is no such folder."""
        found = (PurePosixPath(name).name for name in self.sizes(folder))
        return sorted(f"{folder}/{n}".lstrip("/") for n in found if n.endswith(suffix) and not n.startswith((".", "_")))

    def sizes(self, folder: str) -> dict[str, int]:
        """Bytes of every file in one folder, hidden ones included, by name relative to the root."""
        return {f"{folder}/{base}".lstrip("/"): size for base, size in self._entries(folder) if size is not None}

    def folders(self, folder: str = "") -> list[str]:
        """Names (relative to the root, sorted) of the folders in one folder."""
        return sorted(f"{folder}/{base}".lstrip("/") for base, size in self._entries(folder) if size is None)

    def remove(self, name: str) -> None:
        """Delete one file if it is there."""
        with self._doing("write", name), suppress(FileNotFoundError):
            os.unlink(self.path(name)) if self.local else self.fs.rm_file(self.path(name))

    def remove_all(self) -> None:
        """Delete the whole folder if it is there."""
        with self._doing("write", ""), suppress(FileNotFoundError):
            shutil.rmtree(self.root) if self.local else self.fs.rm(self.root, recursive=True)

    def parquet(self, name: str) -> ShardFile:
        """Open a Parquet file for reading row group by row group."""
        filesystem = pafs.LocalFileSystem() if self.local else pafs.PyFileSystem(pafs.FSSpecHandler(self.fs))
        return ShardFile(self.path(name), filesystem)

    def _entries(self, folder: str) -> list[tuple[str, int | None]]:
        """Base name and size of what stands in one folder; of folders, None."""
        path = self.path(folder)
        with self._doing("read", folder):
            try:
                if self.local:
                    return list(_scanned(path))
                found = self.fs.ls(path, detail=True)
            except (FileNotFoundError, NotADirectoryError):
                return []
        # Stores list a file under its own name, and a folder's marker as a nameless file within it.
        inside = (e for e in found if not e["name"].endswith("/") and os.path.dirname(e["name"]) == path)
        return [(os.path.basename(e["name"]), None if e["type"] == "directory" else int(e["size"])) for e in inside]

    def _put(self, name: str, content: bytes, place: Callable[[str, str], object]) -> None:
        """Write a hidden file beside `name` and `place` it there."""
        folder, base = os.path.split(self.path(name))
        for last in (False, False, True):
            os.makedirs(folder, exist_ok=True)
            temporary = os.path.join(folder, f".tmp-{base}-{os.getpid()}-{uuid.uuid4().hex[:8]}")
            try:
                with open(temporary, "xb") as file:
                    _durably(file, content)
                place(temporary, self.path(name))
                return
            except FileNotFoundError:  # swept away before it was placed: nothing is lost by writing it again
                if last:
                    raise
            finally:
                with suppress(OSError):
                    os.unlink(temporary)

    def _create_local(self, name: str, content: bytes) -> bool:
        if os.path.lexists(self.path(name)):
            return False
        try:
            self._put(name, content, _link)
        except FileExistsError:
            if not os.path.lexists(self.path(name)):  # it is the folder that cannot be made
                raise
            return False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            try:
                with open(self.path(name), "xb") as file:
                    _durably(file, content)
            except FileExistsError:
                return False
        return True

    def _create_object(self, name: str, content: bytes) -> bool:
        for wait in (*_WAITS_S, None):
            try:
                self.fs.pipe_file(self.path(name), content, mode="create")
                return True
            except Exception as error:  # each store has its own class for "it is there", or for a lost answer
                with suppress(FileNotFoundError):
                    return self.read(name) == content
                # Two at the same moment may both be told to try again.
                if wait is None or "conflict" not in str(error).lower():
                    raise
                time.sleep(wait)
        raise AssertionError("the last turn returns or raises")

    @contextmanager
    def _doing(self, what: str, name: str) -> Iterator[None]:
        """Turn what a disk or an object store says into a `RunError`; that a file to be read is missing stays."""
        try:
            yield
        except AugengineError:
            raise
        except Exception as error:  # object stores raise classes of their own libraries
            if self.local and not isinstance(error, OSError):
                raise
            if what == "read" and isinstance(error, FileNotFoundError):
                raise
            rule = "cannot write the output" if what == "write" else "cannot read"
            raise RunError(rule, found=self._shown(error), where=self.path(name), next_step=_NEXT_STEP[what]) from None

    def _shown(self, error: Exception) -> str:
        """One line of an error, without anything that the options hold."""
        kind = type(error).__name__
        said = str(getattr(error, "strerror", None) or error).strip().splitlines()
        line = (said[0] if isinstance(error, OSError) else f"{kind}: {said[0]}") if said else kind
        for secret in _texts(getattr(self, "_options", {})):
            line = line.replace(secret, "…")
        return line


def check_uri(uri: str) -> None:
    """Raises RunError for a URI with a password or a signature, with a single slash, or of a chain.

    What may be secret is looked for first: the other refusals print the URI.
    """
    for link in uri.split("::"):
        _check_secrets(link.strip())
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/(?!/)", uri):  # a drive has one letter
        scheme, _, rest = uri.partition(":/")
        raise RunError(
            "a URI has two slashes behind its scheme, else it would be a local folder",
            found=uri,
            next_step=f"write {scheme}://{rest}",
        )
    if "::" in uri:
        raise RunError(
            "a chain of URIs may read through a cache that does not see what others write",
            found=uri,
            next_step="give the URI of the storage itself",
        )


def _check_secrets(uri: str) -> None:
    """Raises RunError for user information with a password, or for parameters of access; paths have neither.

    Secrets of S3 hold slashes and signs that a parser of URIs ends the address at, so the text itself is read.
    """
    found = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):/+(.*)", uri, re.DOTALL)
    if found is None:
        return
    scheme, rest = found[1].lower(), found[2]
    if scheme in ("file", "local"):
        return
    readable = unquote(rest)
    user, at, host = readable.rpartition("@")
    _, colon, behind = re.split(r"[/?#]", user, maxsplit=1)[0].partition(":")
    told = None
    if at and colon and not _is_port(scheme, behind, user):
        told = f"{scheme}://…@{re.split(r'[/?#]', host, maxsplit=1)[0]}"
    elif name := _SECRET_PARAMETER.search(readable):
        told = f"{scheme}://…{name[1]}=…"
    if told is not None:
        raise RunError(
            "a URI stands in outputs and logs and so holds no password",
            found=told,
            next_step="give it by storage options or an FSSPEC_* variable",
        )


def _is_port(scheme: str, behind: str, user: str) -> bool:
    """Whether digits behind the colon are a port: a path follows them, and the sign is part of it. S3 has no ports."""
    return scheme not in ("s3", "s3a") and behind.isdigit() and f":{behind}/" in user


def _texts(value: Any) -> Iterator[str]:
    """Every text of options that is long enough to be a secret, however deep; addresses are none."""
    if isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, str) and len(value) > 3 and "://" not in value:
        yield value


def _durably(file: BinaryIO, content: bytes) -> None:
    file.write(content)
    file.flush()
    os.fsync(file.fileno())


def _link(temporary: str, target: str) -> None:
    try:
        os.link(temporary, target)
    except FileExistsError:
        if os.stat(temporary).st_nlink < 2:  # NFS may say so of the link that it has just made
            raise


def _scanned(path: str) -> Iterator[tuple[str, int | None]]:
    with os.scandir(path) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):  # gone since, or a link to nothing
                yield entry.name, None if entry.is_dir() else entry.stat().st_size
