"""Label schemes and masks: a mask as a file holds it goes in, a checked uint8 label on the image's grid comes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from augengine.errors import ConfigError, DataError
from augengine.geometry import grid_shift, inside, resample_labels, same_grid
from augengine.io.codes import check_codes
from augengine.label_loss import NOTED_SHARE, LabelWatch
from augengine.yaml_config import unknown_name

# Code 4 is enhancing tumour until 2021, the resection cavity in 2024, and oedema in children of 2024: the scheme is
# always stated. Codes of 2024 are those of the challenge's own evaluation (rachitsaluja/BraTS-2024-Metrics, f1131e3).
SCHEMES: Mapping[str, Mapping[str, int]] = {
    "brats2020": {"necrosis": 1, "oedema": 2, "enhancing": 4},
    "brats2021": {"necrosis": 1, "oedema": 2, "enhancing": 4},
    "brats2023": {"necrosis": 1, "oedema": 2, "enhancing": 3},
    "brats2023-ped": {"non_enhancing": 1, "oedema": 2, "enhancing": 3},
    "brats2024-gli": {"necrosis": 1, "oedema": 2, "enhancing": 3, "cavity": 4},
    "brats2024-met": {"necrosis": 1, "oedema": 2, "enhancing": 3, "cavity": 4},
    "brats2024-ssa": {"necrosis": 1, "oedema": 2, "enhancing": 3},
    "brats2024-ped": {"enhancing": 1, "non_enhancing": 2, "cyst": 3, "oedema": 4},
    "brats2024-men-rt": {"gtv": 1},
    "duke": {"fat": 1, "fibroglandular": 2},
}
MaskGrid = Literal["auto", "header", "image"]
NOTED_SHIFT_VOXELS = 0.01
_TRUST_VOXELS = "mend the header, or state --mask-grid image if their voxels belong together"


def parse_labels(text: str) -> tuple[dict[str, int], str | None]:
    """Label codes by name from a scheme's name or from `name=code,...`, and the scheme's name if it was one.

    >>> parse_labels("lesion=1,cyst=3")
    ({'lesion': 1, 'cyst': 3}, None)
    """
    if "=" not in text:
        if text not in SCHEMES:
            raise unknown_name("label scheme", text, list(SCHEMES), "--labels")
        return dict(SCHEMES[text]), text
    labels: dict[str, int] = {}
    for part in text.split(","):
        name, _, code = part.partition("=")
        if not name.strip() or not code.strip().isdecimal() or not 1 <= int(code) <= 255 or name.strip() in labels:
            raise ConfigError(
                "labels are given as name=code,..., with codes of 1 to 255",
                found=part,
                where="--labels",
                next_step=f"for example lesion=1; or name a scheme: {', '.join(SCHEMES)}",
            )
        labels[name.strip()] = int(code)
    return labels, None


@dataclass(frozen=True, eq=False)
class Mask:
    """A mask as its file holds it, its codes checked.

    Attributes:
        label: uint8 `(I, J, K)`.
        affine: voxel index to RAS+ mm; None where the header states none.
        whole: what lies beyond the array is background by the file's format, not unknown.
        notes: decisions, free of names.
    """

    label: np.ndarray
    affine: np.ndarray | None
    whole: bool = False
    notes: Sequence[str] = ()


def mask_to_label(
    mask: np.ndarray,
    mask_affine: np.ndarray,
    shape: Sequence[int],
    affine: np.ndarray,
    labels: Mapping[str, int],
) -> tuple[np.ndarray, list[str]]:
    """A mask `(I, J, K)` of any number type as uint8 on the image's grid, and notes; see `check_codes`, `place_mask`.

    Raises:
        DataError: as these two do.
    """
    label, notes = check_codes(mask, labels)
    placed, watch = place_mask(Mask(label, mask_affine, notes=notes), shape, affine, labels)
    return placed, watch.notes


def place_mask(
    mask: Mask,
    shape: Sequence[int],
    affine: np.ndarray,
    labels: Mapping[str, int],
    max_loss: float = 0.1,
    grid: MaskGrid = "auto",
) -> tuple[np.ndarray, LabelWatch]:
    """A mask as uint8 on the image's grid, and a watch over what it lost on the way.

    Grids that agree within a tenth of a voxel are one. A mask on another grid is resampled by nearest neighbour, by
    geometry; a code that a plane would lose is given back.

    Args:
        shape, affine: of the image.
        max_loss: share of a label's volume that may be lost.
        grid: `image` puts a mask of the image's shape on the image's voxels, whatever its header says; `header`
            believes both headers; `auto` does so, too, unless one of them looks lost.

    Raises:
        DataError: a mask whose header states no place, or lost it; another shape under the same geometry (one of
            both headers is wrong); no overlap with the image; or more loss than allowed.
    """
    label = mask.label
    if grid == "image" and label.shape != tuple(shape):
        raise DataError(
            "--mask-grid image needs masks of the image's shape", found=f"image {tuple(shape)}, mask {label.shape}"
        )
    if grid == "image":
        watch = _watch(mask, affine, labels, max_loss)
        if mask.affine is None or not same_grid(label.shape, mask.affine, shape, affine):
            watch.notes.append("mask placed voxel by voxel on the image, as stated; its header says another place")
        return label, watch
    if mask.affine is None:
        raise DataError(
            "the mask's header must state where its voxels lie", found="no usable affine", next_step=_TRUST_VOXELS
        )
    watch = _watch(mask, mask.affine, labels, max_loss)
    if same_grid(label.shape, mask.affine, shape, affine):
        shift = grid_shift(shape, affine, mask.affine)
        if shift > NOTED_SHIFT_VOXELS:
            watch.notes.append(f"mask grid taken as the image's: they differ by {shift:.2f} voxels at most")
        return label, watch
    _refuse_other_headers(mask, shape, affine, grid)
    if label.any() and not inside(label.shape, mask.affine, shape, affine)[label > 0].any():
        raise DataError("the mask must overlap the image in world coordinates", found="no labelled voxel inside")
    watch.notes.append(f"mask {label.shape} resampled into the image grid {tuple(shape)} by nearest neighbour")
    out = resample_labels(label, mask.affine, shape, affine)
    out = watch.resampled(label, mask.affine, out, affine, "resampling onto the image's grid", (0, 1, 2))
    uncovered = None if mask.whole else ~inside(shape, affine, label.shape, mask.affine)
    if uncovered is not None and (uncovered.mean() > NOTED_SHARE or _any_plane(uncovered)):
        watch.uncovered = uncovered
    return out, watch


def _watch(mask: Mask, affine: np.ndarray, labels: Mapping[str, int], max_loss: float) -> LabelWatch:
    watch = LabelWatch.of(mask.label, affine, labels, max_loss)
    watch.notes += mask.notes
    return watch


def _refuse_other_headers(mask: Mask, shape: Sequence[int], affine: np.ndarray, grid: MaskGrid) -> None:
    assert mask.affine is not None  # the caller has looked
    one_shape = mask.label.shape == tuple(shape)
    identities = [name for name, a in (("mask", mask.affine), ("image", affine)) if np.allclose(np.abs(a), np.eye(4))]
    if one_shape and identities and grid == "auto":
        raise DataError(
            "image and mask of one shape must state one geometry",
            found=f"the header of the {identities[0]} states none but the identity: it was likely lost",
            next_step=f"{_TRUST_VOXELS}, or --mask-grid header if both are right",
        )
    if not one_shape and not mask.whole and np.allclose(mask.affine, affine, atol=1e-4):
        raise DataError(
            "image and mask must have one shape if their headers state the same geometry",
            found=f"image {tuple(shape)}, mask {mask.label.shape}",
            next_step="correct the mask's header or leave it out",
        )


def _any_plane(uncovered: np.ndarray) -> bool:
    return any(uncovered.all(axis=tuple(a for a in range(3) if a != axis)).any() for axis in range(3))
