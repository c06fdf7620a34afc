"""The targets by name: each writes the rows of data sets in the layout of another tool."""

from __future__ import annotations

from augengine.export.bids import Bids
from augengine.export.dicom_seg import DicomSeg
from augengine.export.hf import HuggingFace
from augengine.export.monai import Monai
from augengine.export.nnunet import NnUnet
from augengine.export.torchio import TorchIO
from augengine.export.webdataset import WebDataset
from augengine.yaml_config import Strict

TARGETS: dict[str, type[Strict]] = {
    target.name: target for target in (NnUnet, Monai, Bids, HuggingFace, WebDataset, TorchIO, DicomSeg)
}

__all__ = ["TARGETS"]
