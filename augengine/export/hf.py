"""Cases in; a folder that `datasets.load_dataset` reads in one line with the right splits, and its card, out.

The `numpy` and `torch` formats of Hugging Face cut zero bytes at the end of binary columns, which are an image's
background, and make every number float32. So pixels are lists of numbers with a column for their shape, and the affine
stands once more as text. With `nifti` they are NIfTI files within the table (its `Nifti` feature, whose own writer
would store paths).
"""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from augengine import __version__
from augengine.export.case import Case
from augengine.export.images import safe
from augengine.export.item import Item
from augengine.export.nifti import nifti_bytes
from augengine.export.target import About, File, Unit, in_parts
from augengine.yaml_config import Strict

_SPLITS = {"train": "train", "val": "validation", "test": "test", None: "train"}
_LICENCES = re.compile(r"cc-(by|by-sa|by-nc|by-nc-sa|by-nd|by-nc-nd)-[234]\.[05]|cc0-1\.0|apache-2\.0|mit|odbl|pddl")
_ROWS_PER_GROUP = 16
_TEXT = ("case", "sample_id", "subject_id", "parent", "policy", "policy_digest", "licence", "affine_json")
_NIFTI = pa.struct({"bytes": pa.binary(), "path": pa.string()})


class HuggingFace(Strict):
    """A data set of Hugging Face.

    Attributes:
        nifti: columns of NIfTI files, one per channel and one of the labels, in place of numbers.
    """

    name: ClassVar[str] = "hf"
    nifti: bool = False

    def check(self, cases: Sequence[Case], about: About) -> None:
        """Hugging Face takes all that the shards can hold."""

    def units(self, cases: Sequence[Case], about: About) -> Iterable[Unit]:
        """A Parquet file each."""
        return in_parts(cases, about, 4, 1)

    def files(self, items: Iterator[Item], unit: str, about: About) -> Iterator[File]:
        """One Parquet file."""
        schema, sink, names = self.columns(about), io.BytesIO(), []
        with pq.ParquetWriter(sink, schema, compression="zstd", compression_level=3) as writer:
            for group in _chunks(items, _ROWS_PER_GROUP):
                names += [item.case.name for item in group]
                writer.write_table(pa.Table.from_pylist([self._row(item, about) for item in group], schema=schema))
        split, _, number = unit.partition("-")
        yield File(f"data/{_SPLITS.get(split, 'train')}-{number}.parquet", sink.getvalue(), tuple(names))

    def finish(self, cases: Sequence[Case], about: About, listed: Mapping[str, Sequence[str]]) -> Iterator[File]:
        """The card, whose head says which file belongs to which split."""
        yield File("README.md", card(cases, about).encode())

    def identity(self) -> dict[str, Any]:
        """All options."""
        return self.model_dump(mode="json")

    def columns(self, about: About) -> pa.Schema:
        """Of every file; with what Hugging Face reads of it."""
        fields = [(name, pa.string()) for name in _TEXT]
        fields += [("synthetic", pa.bool_()), ("channels", pa.list_(pa.string())), ("labels", pa.list_(pa.string()))]
        fields += [("affine", pa.list_(pa.float64())), ("spacing_mm", pa.list_(pa.float64()))]
        if self.nifti:
            fields += [(name, _NIFTI) for name in (*self._columns(about), "label")]
        else:
            fields += [("image", pa.list_(pa.float32())), ("label", pa.list_(pa.uint8()))]
            fields += [("shape", pa.list_(pa.int32()))]
        features = {name: _feature(kind) for name, kind in fields}
        return pa.schema(fields, metadata={"huggingface": json.dumps({"info": {"features": features}})})

    def _columns(self, about: About) -> list[str]:
        return [f"image_{n}_{safe(channel)}" for n, channel in enumerate(about.channels)]

    def _row(self, item: Item, about: About) -> dict[str, Any]:
        case, affine = item.case, item.affine.ravel().tolist()
        row: dict[str, Any] = {
            "case": case.name,
            "sample_id": case.sample_id,
            "subject_id": case.subject_id,
            "parent": case.parent,
            "policy": case.policy,
            "policy_digest": case.policy_digest,
            "licence": about.licence,
            "affine_json": json.dumps(affine),
            "synthetic": case.synthetic,
            "channels": list(about.channels),
            "labels": list(about.labels),
            "affine": affine,
            "spacing_mm": list(item.spacing_mm),
        }
        if not self.nifti:
            label = None if item.label is None else item.label.ravel()
            image = item.image.astype(np.float32).ravel()
            return {**row, "image": image, "label": label, "shape": list(item.image.shape)}
        for name, channel in zip(self._columns(about), item.image, strict=True):
            row[name] = _nifti(channel, item, name)
        row["label"] = None if item.label is None else _nifti(item.label, item, "label")
        return row


def _nifti(array: np.ndarray, item: Item, name: str) -> dict[str, Any]:
    content = nifti_bytes(array, item.affine, item.case.synthetic)
    return {"bytes": content, "path": f"{item.case.name}_{name}.nii.gz"}


def _feature(kind: pa.DataType) -> dict[str, Any]:
    """How Hugging Face calls a type."""
    if kind == _NIFTI:
        return {"_type": "Nifti"}
    if pa.types.is_list(kind):
        return {"feature": _feature(kind.value_type), "_type": "List"}
    name = {"double": "float64", "float": "float32"}.get(str(kind), str(kind))
    return {"dtype": name, "_type": "Value"}


def _chunks(items: Iterator[Item], size: int) -> Iterator[list[Item]]:
    group: list[Item] = []
    for item in items:
        group.append(item)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def card(cases: Sequence[Case], about: About) -> str:
    """The data set's card: where the splits are, counts, licence and provenance."""
    splits = list(dict.fromkeys(_SPLITS[case.split] for case in cases))
    licence = (about.licence or "").strip().lower().replace(" ", "-")
    known = bool(_LICENCES.fullmatch(licence))
    named = {"license": licence} if known else {"license": "other", "license_name": licence or "not-stated"}
    made = sum(case.synthetic for case in cases)
    head = {
        **named,
        "task_categories": ["image-segmentation"],
        "tags": ["medical", "mri", *(["synthetic"] if made else [])],
        "configs": [
            {
                "config_name": "default",
                "data_files": [{"split": split, "path": f"data/{split}-*.parquet"} for split in splits],
            }
        ],
    }
    count = Counter((_SPLITS[case.split], case.synthetic) for case in cases)
    lines = [f"| {split} | {count[split, False]} | {count[split, True]} |" for split in splits]
    policies = sorted({(case.policy or "", case.policy_digest or "") for case in cases if case.synthetic})
    text = [
        f"# {about.folder}",
        f"{len(cases) - made} real and {made} synthetic cases. Rows with `synthetic` true were made from the real row "
        "`parent` by the generative policy `policy`; they are in train alone, and nothing of a validation or test "
        "subject had a part in them.",
        "\n".join(["| split | real | synthetic |", "|---|---|---|", *lines]),
        f"Channels: {', '.join(about.channels)}. Labels: "
        + ", ".join(f"{n} {name}" for n, name in enumerate(("background", *about.labels)))
        + ".",
        f"Licence of the source data: {about.licence or 'not stated'}. Synthetic cases are derived from it.",
        "\n".join(
            ["Policies:", "", *(f"- {name}, digest {digest}" for name, digest in policies)]
            if policies
            else ["No policy."]
        ),
        "`numpy.reshape(row['image'], row['shape'])` is (C, I, J, K), `row['label']` has the shape (I, J, K). "
        "The affine (voxel to RAS+ mm, row by row) also stands as text in `affine_json`, since the numpy and torch "
        "formats round numbers to float32.",
        f"Written by augengine {__version__}; `export.json` leads from every case to its row.",
    ]
    return "---\n" + yaml.safe_dump(head, sort_keys=False) + "---\n\n" + "\n\n".join(text) + "\n"
