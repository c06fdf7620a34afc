"""Label schemes and masks: a mask as a file holds it goes in, a checked uint8 label on the image's grid comes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from augengine.errors import ConfigError, DataError
from augengine.geometry import resample_labels, same_grid
from augengine.yaml_config import unknown_name

# Code 4 is enhancing tumour until 2021 and the resection cavity in 2024: the scheme is always stated.
SCHEMES: Mapping[str, Mapping[str, int]] = {
    "brats2020": {"necrosis": 1, "oedema": 2, "enhancing": 4},
    "brats2021": {"necrosis": 1, "oedema": 2, "enhancing": 4},
    "brats2023": {"necrosis": 1, "oedema": 2, "enhancing": 3},
    "brats2024-gli": {"necrosis": 1, "oedema": 2, "enhancing": 3, "cavity": 4},
    "duke": {"fat": 1, "fibroglandular": 2},
}


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
                "labels are given as name=code,..., with codes of 1 to 255", found=part, where="--labels",
                next_step=f"for example lesion=1; or name a scheme: {', '.join(SCHEMES)}",
            )  # fmt: skip
        labels[name.strip()] = int(code)
    return labels, None


def mask_to_label(
    mask: np.ndarray,
    mask_affine: np.ndarray,
    shape: Sequence[int],
    affine: np.ndarray,
    labels: Mapping[str, int],
) -> tuple[np.ndarray, list[str]]:
    """A mask `(I, J, K)` of any number type as uint8 on the image's grid, its codes checked.

    A mask on another grid is resampled by nearest neighbour, by geometry. Returns label and notes.

    Raises:
        DataError: fractional values, codes that the labels do not name, another shape under the same
            geometry (one of both headers is wrong), or no overlap with the image.
    """
    label = check_codes(mask, labels)
    if same_grid(mask.shape, mask_affine, shape, affine):
        return label, []
    if mask.shape != tuple(shape) and np.allclose(mask_affine, affine, atol=1e-4):
        raise DataError(
            "image and mask must have one shape if their headers state the same geometry",
            found=f"image {tuple(shape)}, mask {mask.shape}", next_step="correct the mask's header or leave it out",
        )  # fmt: skip
    out = resample_labels(label, mask_affine, shape, affine)
    if label.any() and not out.any():
        raise DataError("the mask must overlap the image in world coordinates", found="no labelled voxel inside")
    return out, [f"mask {mask.shape} resampled into the image grid {tuple(shape)} by nearest neighbour"]


def check_codes(mask: np.ndarray, labels: Mapping[str, int]) -> np.ndarray:
    """The mask as uint8; values that are not whole or not named by `labels` are a `DataError`."""
    codes = np.unique(mask)
    allowed = {0, *labels.values()}
    unknown = [c for c in codes.tolist() if c not in allowed]
    if unknown:
        names = ", ".join(f"{n}={c}" for n, c in labels.items())
        raise DataError(
            f"mask codes must be those of the stated labels ({names})", found=f"code(s) {unknown[:8]}",
            next_step="state the right scheme with --labels",
        )  # fmt: skip
    return mask.astype(np.uint8)
