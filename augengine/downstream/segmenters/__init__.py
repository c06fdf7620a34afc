"""Segmentation systems behind one interface: `fit` to shards, `predict` on images."""

from typing import Any

from augengine.diffusion.checkpoint import read_spec
from augengine.downstream.segmenters.base import Segmenter, Training, row_seeds
from augengine.downstream.segmenters.dmcie import Dmcie
from augengine.downstream.segmenters.fitting import checkpoint, fitted_by
from augengine.downstream.segmenters.ldm_seg import LdmSeg
from augengine.downstream.segmenters.pcf import Pcf
from augengine.downstream.segmenters.unet import UNet
from augengine.plugins import Registry, of_class

__all__ = [
    "SEGMENTERS",
    "Segmenter",
    "Training",
    "checkpoints_of",
    "load_segmenter",
    "row_seeds",
    "segmenter_identity",
]

SEGMENTERS: Registry[type[Segmenter]] = Registry(
    "segmenter", {cls.name: cls for cls in (UNet, Dmcie, LdmSeg, Pcf)}, of_class(Segmenter)
)


def load_segmenter(folder: str, device: str = "cpu") -> Segmenter:
    """The segmenter that was fitted in `folder`, whichever it is, with its default options."""
    return SEGMENTERS.find(fitted_by(folder), folder).load(folder, device=device)


def checkpoints_of(folder: str) -> dict[str, str]:
    """Role → URI of the checkpoints that a fitted segmenter is loaded from."""
    cls = SEGMENTERS.find(fitted_by(folder), folder)
    return {role: checkpoint(cls, folder, role) for role in cls.loaded}


def segmenter_identity(folder: str) -> dict[str, Any]:
    """What decides the answers of `load_segmenter(folder)`, as plain JSON; no weights are read.

    Returns:
        `segmenter` is its kind, `weights` role → sha256, `settings` how it predicts, and `plugins` the package and
        version that it is plugged in by, if it is.
    """
    name, weights = fitted_by(folder), {role: read_spec(uri).sha256 for role, uri in checkpoints_of(folder).items()}
    found = {"segmenter": name, "weights": weights, "settings": SEGMENTERS[name].settings()}
    return found | ({"plugins": made} if (made := SEGMENTERS.made_by(name)) else {})
