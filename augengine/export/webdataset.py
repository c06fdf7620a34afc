"""Cases in; tar files that WebDataset streams, `{split}-%06d.tar`, out.

A key ends at its first dot, so names have none. The tars are written here, since WebDataset's own writer gzips what
ends in `.gz` once more. Every worker of every rank needs a tar of its own, so there are as many at least.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from augengine.errors import ConfigError
from augengine.export.case import Case
from augengine.export.images import safe
from augengine.export.item import Item
from augengine.export.nifti import nifti_bytes
from augengine.export.target import About, File, Unit, in_parts
from augengine.yaml_config import Strict


class WebDataset(Strict):
    """Shards of WebDataset.

    Attributes:
        readers: workers × ranks that will read at once.
        arrays: image and label as `.npy`, which WebDataset decodes by itself, in place of NIfTI.
    """

    name: ClassVar[str] = "webdataset"
    readers: int = Field(default=8, ge=1)
    arrays: bool = False

    def check(self, cases: Sequence[Case], about: About) -> None:
        """Refuse fewer training cases than readers: some would have nothing to read."""
        training = sum(case.trains for case in cases)
        if training < self.readers:
            raise ConfigError(
                "every reader needs a tar, and every tar a case",
                found=f"{training} training cases for {self.readers} readers",
                where="--readers",
                next_step=f"use --readers {max(training, 1)} or fewer",
            )

    def units(self, cases: Sequence[Case], about: About) -> Iterable[Unit]:
        """A tar each."""
        return in_parts(cases, about, 4 if self.arrays else 2, self.readers)

    def files(self, items: Iterator[Item], unit: str, about: About) -> Iterator[File]:
        """One tar."""
        sink, names = io.BytesIO(), []
        with tarfile.open(fileobj=sink, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for item in items:
                names.append(item.case.name)
                for ending, content in self._members(item, about):
                    member = tarfile.TarInfo(f"{item.case.name}.{ending}")
                    member.size, member.mode = len(content), 0o644
                    tar.addfile(member, io.BytesIO(content))
        yield File(f"{unit}.tar", sink.getvalue(), tuple(names))

    def finish(self, cases: Sequence[Case], about: About, listed: Mapping[str, Sequence[str]]) -> Iterator[File]:
        """Nothing: `export.json` lists the tars."""
        return iter(())

    def identity(self) -> dict[str, Any]:
        """All options."""
        return self.model_dump(mode="json")

    def _members(self, item: Item, about: About) -> Iterator[tuple[str, bytes]]:
        if self.arrays:
            yield "image.npy", _npy(item.image)
            if item.label is not None:
                yield "label.npy", _npy(item.label)
        else:
            for channel, name in zip(item.image, about.channels, strict=True):
                yield f"{safe(name)}.nii.gz", nifti_bytes(channel, item.affine, item.case.synthetic)
            if item.label is not None:
                yield "label.nii.gz", nifti_bytes(item.label, item.affine, item.case.synthetic)
        case = item.case
        yield (
            "json",
            json.dumps(
                {
                    "sample_id": case.sample_id,
                    "subject_id": case.subject_id,
                    "split": case.split,
                    "synthetic": case.synthetic,
                    "parent": case.parent,
                    "policy": case.policy,
                    "policy_digest": case.policy_digest,
                    "channels": list(about.channels),
                    "labels": {name: n for n, name in enumerate(about.labels, 1)},
                    "affine": item.affine.tolist(),
                    "spacing_mm": list(item.spacing_mm),
                    "licence": about.licence,
                }
            ).encode(),
        )


def _npy(array: np.ndarray) -> bytes:
    sink = io.BytesIO()
    np.save(sink, np.ascontiguousarray(array), allow_pickle=False)
    return sink.getvalue()
