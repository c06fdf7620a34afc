"""Segmentation systems behind one interface: `fit` to shards, `predict` on images."""

from downstream.segmenters.base import Segmenter, Training, row_seeds
from downstream.segmenters.dmcie import Dmcie
from downstream.segmenters.fitting import fitted_by
from downstream.segmenters.ldm_seg import LdmSeg
from downstream.segmenters.pcf import Pcf
from downstream.segmenters.unet import UNet

__all__ = ["SEGMENTERS", "Segmenter", "Training", "load_segmenter", "row_seeds"]

SEGMENTERS: dict[str, type[Segmenter]] = {cls.name: cls for cls in (UNet, Dmcie, LdmSeg, Pcf)}


def load_segmenter(folder: str, device: str = "cpu") -> Segmenter:
    """The segmenter that was fitted in `folder`, whichever it is, with its default options."""
    return SEGMENTERS[fitted_by(folder)].load(folder, device=device)
