"""The `dataset.json` of a Medical Segmentation Decathlon or nnU-Net data set goes in; names and lists come out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from augengine.errors import ConfigError

NAME = "dataset.json"


@dataclass(frozen=True)
class DatasetJson:
    """What the file states; empty where it states nothing, or is absent.

    Attributes:
        channels: name to number.
        labels: name to code, background left out; None where the file states none.
        regions: labels are sets of codes, which overlap.
        ending: of all images and labels, in lower case; None where it is not stated.
        training, test: cases that it lists; None where it has no such list.
        own: cases with files of their own: image files in the order of channels, and the label file.
    """

    channels: Mapping[str, int] = field(default_factory=dict)
    labels: Mapping[str, int] | None = None
    regions: bool = False
    ending: str | None = None
    training: Sequence[str] | None = None
    test: Sequence[str] | None = None
    own: Mapping[str, tuple[Sequence[str], str | None]] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> DatasetJson:
        """The file of a folder. Raises ConfigError where it is there and cannot be understood."""
        path = folder / NAME
        if not path.is_file():
            return cls()
        try:
            values = json.loads(path.read_text(encoding="utf-8-sig"))
            labels, regions = _labels(values.get("labels"))
            names = values.get("channel_names") or values.get("modality") or {}
            channels = {str(name): int(number) for number, name in names.items()}
            if len(channels) != len(names):
                raise ConfigError(
                    "channels must have different names",
                    found=", ".join(map(str, names.values())),
                    where=str(path),
                    next_step="correct the file",
                )
            own = {
                str(case): ([str(f) for f in files["images"]], files.get("label"))
                for case, files in (values.get("dataset") or {}).items()
            }
            ending = values.get("file_ending")
            return cls(
                channels,
                labels,
                regions,
                None if ending is None else str(ending).lower(),
                _cases(values.get("training")),
                _cases(values.get("test")),
                own,
            )
        except ConfigError:
            raise
        except (ValueError, TypeError, AttributeError, KeyError, OSError) as error:
            raise ConfigError(
                "dataset.json must state its channels and labels as nnU-Net or the Decathlon do",
                found=type(error).__name__,
                where=str(path),
                next_step="correct the file, or state --layout nifti",
            ) from None


def _labels(stated: Mapping[str, Any] | None) -> tuple[dict[str, int] | None, bool]:
    """Labels by name, from `{"1": "tumour"}` (Decathlon, nnU-Net 1) or `{"tumour": 1}` (nnU-Net 2); and regions."""
    if stated is None:
        return None, False
    found: dict[str, int] = {}
    for key, value in stated.items():
        if isinstance(value, list) and len(value) != 1:
            return None, True
        name, code = (value, key) if isinstance(value, str) and str(key).isdecimal() else (key, value)
        code = int(code[0] if isinstance(code, list) else code)
        if code != 0:
            found[str(name)] = code
    return found, False


def _cases(listed: Sequence[Any] | None) -> list[str] | None:
    """Paths of the listed images."""
    if not listed:
        return None
    paths = [item["image"] if isinstance(item, Mapping) else item for item in listed]
    return [str(path[0] if isinstance(path, list) else path) for path in paths]
