"""A map of brain tissues beside a case in; its tissues joined to the label map of the tumour out.

Paper 001 shows its networks tissue and tumour together. BraTS has masks of the tumour alone; the tissues come from a
tool that the user has run, SynthSeg or FSL's FAST, whose codes are known by the tool's name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

from augengine.errors import ConfigError, DataError
from augengine.io.labels import Mask, MaskGrid, place_mask
from augengine.io.nifti import open_nifti, squeeze
from augengine.io.sources import Volume
from augengine.yaml_config import unknown_name

TISSUES = ("csf", "grey_matter", "white_matter")
# SynthSeg (Billot et al. 2023) has FreeSurfer's codes: left, then right, then what lies in the middle; with --parc the
# cortex has 1001–1035 and 2001–2035. Brain stem and ventral diencephalon are mostly white matter.
_SYNTHSEG = {
    "csf": (4, 5, 43, 44, 14, 15, 24),
    "grey_matter": (
        3,
        8,
        10,
        11,
        12,
        13,
        17,
        18,
        26,
        42,
        47,
        49,
        50,
        51,
        52,
        53,
        54,
        58,
        *range(1001, 1036),
        *range(2001, 2036),
    ),
    "white_matter": (2, 7, 28, 41, 46, 60, 16),
}
# FAST (Zhang et al. 2001) numbers the classes of a T1-weighted scan by their brightness.
_FAST = {"csf": (1,), "grey_matter": (2,), "white_matter": (3,)}
SCHEMES: Mapping[str, Mapping[str, tuple[int, ...]]] = {"synthseg": _SYNTHSEG, "fast": _FAST}


@dataclass(frozen=True)
class TissueMap:
    """Which tool made the maps, and the pattern of their files' names."""

    scheme: str
    pattern: str

    @classmethod
    def parse(cls, text: str) -> TissueMap:
        """`SCHEME=PATTERN`; anything else is a `ConfigError`.

        >>> TissueMap.parse("synthseg=*_synthseg.nii.gz")
        TissueMap(scheme='synthseg', pattern='*_synthseg.nii.gz')
        """
        scheme, equals, pattern = (part.strip() for part in text.partition("="))
        if not equals or not pattern or "/" in pattern:
            raise ConfigError(
                "give SCHEME=PATTERN, the pattern of a file in the case's own folder",
                found=text,
                where="--tissue",
                next_step="for example synthseg=*_synthseg.nii.gz",
            )
        if scheme not in SCHEMES:
            raise unknown_name("tissue scheme", scheme, list(SCHEMES), "--tissue")
        return cls(scheme, pattern)

    def matches(self, name: str) -> bool:
        """True for the name of such a file; upper and lower case count as one."""
        return fnmatchcase(name.lower(), self.pattern.lower())

    def read(self, path: Path) -> Mask:
        """The map as codes of `TISSUES`, from 1.

        Raises:
            DataError: a damaged or missing file, fractions, or codes that are not the tool's.
        """
        file = open_nifti(path)
        values = np.asarray(squeeze(file.values(), path))
        codes, places = np.unique(values, return_inverse=True)
        if (codes != np.rint(codes)).any():
            raise DataError(
                "a tissue map must hold whole codes",
                found=f"{float(codes[codes != np.rint(codes)][0]):g}",
                where=path.name,
                next_step="give the tool's segmentation, not a map of probabilities",
            )
        known = {code: n for n, name in enumerate(TISSUES, 1) for code in SCHEMES[self.scheme][name]}
        strange = sorted({int(code) for code in codes} - {0, *known})
        if strange:
            raise DataError(
                f"a tissue map must hold the codes of {self.scheme}",
                found=f"code(s) {strange[:8]}",
                where=path.name,
                next_step=f"state another scheme with --tissue ({', '.join(SCHEMES)})",
            )
        table = np.array([known.get(int(code), 0) for code in codes], np.uint8)
        return Mask(table[places.reshape(values.shape)], file.affine, notes=file.notes)


def with_tissue(volume: Volume, tissue: Mask, grid: MaskGrid = "auto") -> Volume:
    """The volume whose label map also names the tissues, wherever no other label stands.

    Tissues get the codes after the highest of the label scheme; a volume without a mask has tissues alone.

    Raises:
        DataError: a map that does not lie on the image, as for masks.
    """
    sample = volume.sample
    shape = sample.image.shape[1:]
    placed, watch = place_mask(tissue, shape, sample.affine, {name: n for n, name in enumerate(TISSUES, 1)}, 1.0, grid)
    own = np.zeros(shape, np.uint8) if sample.label is None else sample.label
    first = max(sample.labels.values(), default=0)
    label = np.where((own == 0) & (placed > 0), placed + np.uint8(first), own).astype(np.uint8)
    labels = {**sample.labels, **{name: first + n for n, name in enumerate(TISSUES, 1)}}
    notes = [*volume.notes, *(f"tissue: {note}" for note in watch.notes)]
    return Volume(sample.replace(label=label, labels=labels), notes, volume.outside, volume.acquired_axis, volume.watch)
