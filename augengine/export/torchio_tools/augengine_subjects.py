"""The folder that this file stands in, in; TorchIO subjects of a split out.

    from augengine_subjects import subjects
    queue = tio.Queue(tio.SubjectsDataset(subjects("train")), 100, 4, tio.LabelSampler(patch_size, "sampling"))

Subjects have `image` (all channels), `label` where there is one, and `sampling`, which is above 0 where patches are to
be centred.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torchio

FOLDER = Path(__file__).resolve().parent


def subjects(split: str | None = "train", folder: Path = FOLDER) -> list[Any]:
    """Subjects of a split (`train`, `val`, `test`); None of all."""
    about = json.loads((folder / "subjects.json").read_text())
    return [_subject(entry, folder) for entry in about["subjects"] if split in (None, entry["split"])]


def _subject(entry: dict[str, Any], folder: Path) -> Any:
    parts: dict[str, Any] = {
        "image": torchio.ScalarImage([folder / name for name in entry["images"]]),
        "sampling": torchio.LabelMap(folder / entry["sampling"]),
    }
    if entry["label"] is not None:
        parts["label"] = torchio.LabelMap(folder / entry["label"])
    about = {key: entry[key] for key in ("name", "subject", "split", "synthetic")}
    return torchio.Subject(**parts, **about)
