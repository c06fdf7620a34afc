"""The targets by name: each writes the rows of data sets in the layout of another tool."""

from __future__ import annotations

from typing import Any

from augengine.export.bids import Bids
from augengine.export.dicom_seg import DicomSeg
from augengine.export.hf import HuggingFace
from augengine.export.monai import Monai
from augengine.export.nnunet import NnUnet
from augengine.export.target import Target
from augengine.export.torchio import TorchIO
from augengine.export.webdataset import WebDataset
from augengine.plugins import Registry, of_class, with_methods
from augengine.yaml_config import Strict


def _target(name: str, cls: Any) -> type[Strict]:
    """A target's class, whose fields are its options, from what an entry point names."""
    found: type[Strict] = with_methods(Target, of_class(Strict)(name, cls))
    return found


TARGETS: Registry[type[Strict]] = Registry(
    "target",
    {target.name: target for target in (NnUnet, Monai, Bids, HuggingFace, WebDataset, TorchIO, DicomSeg)},
    _target,
)

__all__ = ["TARGETS"]
