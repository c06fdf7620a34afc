"""Samples to and from Parquet shards that any Parquet reader opens.

Pixels are raw little-endian, C-order bytes: `np.frombuffer(row.image, row.image_dtype).reshape(row.image_shape)`.
Whole-numbered images are stored as int16 or uint16, others as float32; both come back bit for bit.
Schema version 1 had one intensity range for all channels; `read_group` gives its rows in the present schema. So it does
with files that other tools rewrote, which keep the columns but neither the version nor the types.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from augengine.errors import DataError
from augengine.io.retyped import retyped
from augengine.io.row_problems import check_row
from augengine.io.store import Store
from augengine.records import (
    ACQUISITION_CATEGORICAL,
    ACQUISITION_NUMERIC,
    Acquisition,
    IntensityRule,
    Provenance,
    Sample,
)

SCHEMA_VERSION = "2"
READABLE = ("1", SCHEMA_VERSION)
SPARSE = 61  # one voxel in so many shows at once that most images hold fractions
ROW_GROUP_ROWS = 64

SCHEMA = pa.schema(
    [
        ("sample_id", pa.string()),
        ("subject_id", pa.string()),
        ("volume_id", pa.string()),
        ("slice_index", pa.int32()),
        ("slab_end_mm", pa.float64()),
        ("site", pa.string()),
        ("split", pa.string()),
        ("synthetic", pa.bool_()),
        ("parent_id", pa.string()),
        ("policy", pa.string()),
        ("replicate", pa.int32()),
        ("channels", pa.list_(pa.string())),
        ("image", pa.large_binary()),
        ("image_dtype", pa.string()),
        ("image_shape", pa.list_(pa.int32())),
        ("label", pa.large_binary()),
        ("label_confidence", pa.large_binary()),
        ("label_names", pa.list_(pa.string())),
        ("label_codes", pa.list_(pa.uint8())),
        ("affine", pa.list_(pa.float64(), 16)),
        ("spacing_mm", pa.list_(pa.float64(), 3)),
        ("intensity_low", pa.list_(pa.float64())),
        ("intensity_high", pa.list_(pa.float64())),
        (
            "intensity_rule",
            pa.struct([("percentiles", pa.list_(pa.float64())), ("foreground", pa.string()), ("together", pa.bool_())]),
        ),
        (
            "acquisition",
            pa.struct(
                [(n, pa.string()) for n in ACQUISITION_CATEGORICAL] + [(n, pa.float64()) for n in ACQUISITION_NUMERIC]
            ),
        ),
        ("provenance", pa.string()),
    ],
    metadata={"augengine.schema_version": SCHEMA_VERSION},
)
LINEAGE = ("parent_id", "policy", "replicate")
"""What `provenance` says of a synthetic row, once more as columns, which other tools can filter by."""
_LONG = ("image", "label", "label_confidence")
METADATA_COLUMNS = [name for name in SCHEMA.names if name not in _LONG]


def to_row(sample: Sample) -> dict[str, Any]:
    """One row of `SCHEMA` as Python values."""
    image = _compact(sample.image)
    ranges = sample.intensity_range
    low, high = (None, None) if ranges is None else map(list, zip(*ranges, strict=True))
    return {
        "sample_id": sample.sample_id,
        "subject_id": sample.subject_id,
        "volume_id": sample.volume_id,
        "slice_index": sample.slice_index,
        "slab_end_mm": sample.slab_end_mm,
        "site": sample.site,
        "split": sample.split,
        "synthetic": sample.provenance is not None,
        **_lineage(None if sample.provenance is None else vars(sample.provenance)),
        "channels": list(sample.channels),
        "image": image.tobytes(),
        "image_dtype": image.dtype.str,
        "image_shape": list(image.shape),
        "label": None if sample.label is None else sample.label.tobytes(),
        "label_confidence": None if sample.label_confidence is None else sample.label_confidence.tobytes(),
        "label_names": list(sample.labels),
        "label_codes": list(sample.labels.values()),
        "affine": sample.affine.ravel().tolist(),
        "spacing_mm": list(sample.spacing_mm),
        "intensity_low": low,
        "intensity_high": high,
        "intensity_rule": sample.intensity_rule.to_dict(),
        "acquisition": sample.acquisition.to_dict(),
        "provenance": None if sample.provenance is None else sample.provenance.to_json(),
    }


def _lineage(provenance: Mapping[str, Any] | None) -> dict[str, Any]:
    """Values of the columns `LINEAGE`."""
    if provenance is None:
        return dict.fromkeys(LINEAGE)
    plan = provenance.get("plan", {})
    return {
        "parent_id": provenance.get("parent_id"),
        "policy": provenance.get("policy"),
        "replicate": plan.get("replicate"),
    }


def pixels(row: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    """Image (float32, a copy), label map and its confidence (uint8, read-only views of the row's bytes) of a row.

    Raises:
        DataError: they do not fit the row's own header.
    """
    try:
        shape = tuple(row["image_shape"])
        image = np.frombuffer(row["image"], row["image_dtype"]).reshape(shape).astype(np.float32)
        label = _codes(row["label"], shape[1:])
        return image, label, _codes(row.get("label_confidence"), shape[1:])  # older shards lack the column
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(
            "pixels must fit image_shape and image_dtype", found=str(error), where=str(row.get("sample_id"))
        ) from None


def label_map(row: Mapping[str, Any]) -> np.ndarray | None:
    """Label map of a row (uint8, a read-only view of its bytes); its image is not looked at.

    Raises:
        DataError: it does not fit the row's own header.
    """
    try:
        return _codes(row["label"], tuple(row["image_shape"])[1:])
    except (ValueError, TypeError) as error:
        raise DataError("a label map must fit image_shape", found=str(error), where=str(row.get("sample_id"))) from None


def from_row(row: dict[str, Any]) -> Sample:
    """Inverse of `to_row`; a row that lacks something, or that states what no row can, is a `DataError`."""
    check_row(row)
    image, label, confidence = pixels(row)
    try:
        return _sample(row, image, label, confidence)
    except DataError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            "a row must have the values of all columns",
            found=f"{type(error).__name__}: {error}",
            where=str(row.get("sample_id")),
        ) from None


def _sample(
    row: Mapping[str, Any], image: np.ndarray, label: np.ndarray | None, confidence: np.ndarray | None
) -> Sample:
    return Sample(
        image=image,
        affine=np.array(row["affine"], np.float64).reshape(4, 4),
        channels=tuple(row["channels"]),
        subject_id=row["subject_id"],
        volume_id=row["volume_id"],
        label=None if label is None else label.copy(),
        label_confidence=None if confidence is None else confidence.copy(),
        labels=dict(zip(row["label_names"], row["label_codes"], strict=True)),
        acquisition=Acquisition(**row["acquisition"]),
        slice_index=row["slice_index"],
        slab_end_mm=row.get("slab_end_mm"),
        site=row["site"],
        split=row["split"],
        intensity_range=intensity_range(row),
        intensity_rule=IntensityRule.from_dict(row["intensity_rule"]),
        provenance=None if row["provenance"] is None else Provenance.from_json(row["provenance"]),
    )


def intensity_range(row: Mapping[str, Any]) -> tuple[tuple[float, float], ...] | None:
    """Low and high of every channel's intensity range."""
    low, high = row["intensity_low"], row["intensity_high"]
    return None if low is None else tuple(zip(low, high, strict=True))


def _codes(content: bytes | None, shape: tuple[int, ...]) -> np.ndarray | None:
    return None if content is None else np.frombuffer(content, np.uint8).reshape(shape)


def _compact(image: np.ndarray) -> np.ndarray:
    """The smallest of uint16, int16, float32 that holds every value exactly; negative zero stays float."""
    some = image.reshape(-1)[::SPARSE]
    for kind in ("<u2", "<i2") if (some == np.rint(some)).all() else ():
        info = np.iinfo(kind)
        if image.size and image.min() >= info.min and image.max() <= info.max:
            whole = image.astype(kind)
            if (whole == image).all() and not np.signbit(image[image == 0]).any():
                return np.ascontiguousarray(whole)
    return np.ascontiguousarray(image, "<f4")


def to_table(samples: Iterable[Sample]) -> pa.Table:
    """Samples as one Arrow table of `SCHEMA`."""
    return pa.Table.from_pylist([to_row(s) for s in samples], schema=SCHEMA)


def to_bytes(table: pa.Table) -> bytes:
    """A Parquet file in memory: zstd, dictionaries for short text only, row groups of 64.

    Pages have checksums, which reading verifies, and an index. Statistics stand for what rows are looked up by, and
    for `label`, of which they say how many are null.
    """
    sink = io.BytesIO()
    pq.write_table(
        table,
        sink,
        compression="zstd",
        compression_level=3,
        row_group_size=ROW_GROUP_ROWS,
        use_dictionary=[n for n in _DICTIONARY if n in table.column_names],
        write_statistics=[n for n in _STATISTICS if n in table.column_names],
        write_page_checksum=True,
        write_page_index=True,
    )
    return sink.getvalue()


_DICTIONARY = ("subject_id", "volume_id", "site", "split", "policy", "image_dtype")
_STATISTICS = ("sample_id", "subject_id", "split", "synthetic", *LINEAGE, "label")


def check_schema(file: pq.ParquetFile, where: str) -> None:
    """Refuse a Parquet file that is not a shard of a version that can be read."""
    version = _version(file)
    if version is None:
        missing = [name for name in _NEEDED if name not in file.schema_arrow.names]
        if {"image", "image_shape"}.isdisjoint(missing):
            raise DataError(
                "a shard that another tool rewrote must have kept its columns",
                found=f"no {', '.join(missing)}",
                where=where,
                next_step="write it anew with all columns, or make the data set anew",
            )
        raise DataError("this Parquet file is not an augengine shard", where=where, next_step="ingest the data first")
    if version not in READABLE:
        raise DataError(f"shards of schema version {' or '.join(READABLE)} are needed", found=version, where=where)


_KEY = b"augengine.schema_version"
_LATER = ("label_confidence", "intensity_rule", "slab_end_mm", *LINEAGE)  # columns that older shards lack
_NEEDED = [name for name in SCHEMA.names if name not in _LATER]


def _version(file: pq.ParquetFile) -> str | None:
    """The version that a file states or, where another tool dropped it, that its columns are of."""
    for metadata in (file.schema_arrow.metadata, file.metadata.metadata):  # Polars can keep it in the latter alone
        if metadata and _KEY in metadata:
            return str(metadata[_KEY].decode())
    names = set(file.schema_arrow.names)
    if not names.issuperset(_NEEDED):
        return None
    return SCHEMA_VERSION if "intensity_rule" in names else "1"


def read_group(file: pq.ParquetFile, group: int, columns: Sequence[str] | None = None) -> pa.Table:
    """As `read_groups`, of one row group."""
    return read_groups(file, [group], columns)


def read_groups(file: pq.ParquetFile, groups: Sequence[int], columns: Sequence[str] | None = None) -> pa.Table:
    """Row groups of a shard in the present schema, whichever version or other tool wrote it.

    Args:
        columns: names of the present schema, in the order in which they are wanted; those that an older file lacks
            are null. None takes every column of the file, and what can be told of those of `SCHEMA` that it lacks.

    Returns:
        The rows; of version 1 with the only range for every channel, and a rule that says so. `LINEAGE` is taken from
        `provenance` where a file has no such columns.

    Raises:
        DataError: another tool changed what a column holds.
    """
    stored = [name for name in file.schema_arrow.names if not name.startswith(_PANDAS_INDEX)]
    old = _version(file) == "1"
    untold = [name for name in LINEAGE if name not in stored and "provenance" in stored]  # lost rows have neither
    wanted = list(columns if columns is not None else [*stored, *(["intensity_rule"] if old else []), *untold])
    ranges, lineage = old and not _RANGES.isdisjoint(wanted), not set(untold).isdisjoint(wanted)
    needed = {*wanted, *(_V1 if ranges else ()), *(["provenance"] if lineage else ())}
    read = [name for name in needed if name in stored]
    # Short columns take longer to be handed to threads than to be decoded.
    table = file.read_row_groups(groups, columns=read, use_threads=not set(read).isdisjoint(_LONG))
    if ranges:
        table = _per_channel(table)
    if lineage:
        table = _with_lineage(table, untold)
    table = retyped(table, SCHEMA, getattr(file, "where", ""))
    for name in wanted:
        if name not in table.column_names:
            table = table.append_column(SCHEMA.field(name), pa.nulls(table.num_rows, SCHEMA.field(name).type))
    return table.select(wanted).replace_schema_metadata(SCHEMA.metadata)


_PANDAS_INDEX = "__index_level_"
_V1 = ("channels", "intensity_low", "intensity_high")
_RANGES = {"intensity_low", "intensity_high", "intensity_rule"}


def _per_channel(table: pa.Table) -> pa.Table:
    """Rows of version 1 with the ranges of version 2; one of a single channel was measured as it is today."""
    counts = [len(channels) for channels in table["channels"].to_pylist()]
    for name in ("intensity_low", "intensity_high"):
        values = [None if v is None else [v] * n for v, n in zip(table[name].to_pylist(), counts, strict=True)]
        field = SCHEMA.field(name)
        table = table.set_column(table.column_names.index(name), field, pa.array(values, field.type))
    rules = [IntensityRule(together=n > 1).to_dict() for n in counts]
    field = SCHEMA.field("intensity_rule")
    return table.append_column(field, pa.array(rules, field.type))


def _with_lineage(table: pa.Table, names: Sequence[str]) -> pa.Table:
    """Rows with the columns of `LINEAGE` that their file lacks."""
    texts = table["provenance"].to_pylist()
    rows = [_lineage(None if text is None else json.loads(text)) for text in texts]
    for name in names:
        field = SCHEMA.field(name)
        table = table.append_column(field, pa.array([row[name] for row in rows], field.type))
    return table


def has_labels(file: pq.ParquetFile, group: int) -> list[bool]:
    """Whether each row of a row group has a label map.

    The file's statistics say so where all have one, or none; else the label maps are read.
    """
    about = file.metadata.row_group(group)
    columns = (about.column(n) for n in range(about.num_columns))
    found = next((column for column in columns if column.path_in_schema == "label"), None)
    if found is None:
        raise DataError(
            "a shard that another tool rewrote must have kept its columns",
            found="no label",
            where=getattr(file, "where", None),
            next_step="write it anew with all columns, or make the data set anew",
        )
    statistics = found.statistics
    if statistics is not None and statistics.has_null_count and statistics.null_count in (0, about.num_rows):
        return [statistics.null_count == 0] * about.num_rows
    valid: list[bool] = file.read_row_group(group, columns=["label"])["label"].is_valid().to_pylist()
    return valid


def read_metadata(file: pq.ParquetFile, group: int) -> list[dict[str, Any]]:
    """Rows of a row group without pixels; `labelled` says of each whether it has a label map."""
    rows, labelled = read_group(file, group, METADATA_COLUMNS).to_pylist(), has_labels(file, group)
    return [{**row, "labelled": there} for row, there in zip(rows, labelled, strict=True)]


def iter_metadata(store: Store, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Rows without pixels, one row group at a time; `labelled` says whether a row has a label map."""
    for name in names:
        file = store.parquet(name)
        check_schema(file, store.path(name))
        for group in range(file.num_row_groups):
            yield from read_metadata(file, group)


def iter_samples(store: Store, names: Sequence[str]) -> Iterator[Sample]:
    """Samples with pixels, one row group at a time; memory stays at one row group."""
    for name in names:
        file = store.parquet(name)
        check_schema(file, store.path(name))
        for group in range(file.num_row_groups):
            for row in read_group(file, group).to_pylist():
                yield from_row(row)
