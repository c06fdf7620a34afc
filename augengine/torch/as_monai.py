"""An item of tensors in; the same with MetaTensors as MONAI's dictionary transforms take them, out."""

from __future__ import annotations

from typing import Any

import torch

from augengine.errors import ConfigError

_PLANES = ("label", "confidence")


def as_monai(item: dict[str, Any]) -> dict[str, Any]:
    """`image`, `label` and `confidence` as MetaTensors, the latter two with a channel of their own in front.

    Volumes, and slices as (C, I, J, 1), have the affine to RAS+ mm. A slice (C, I, J) has a 3 x 3 affine in its own
    plane: of a 4 x 4 one MONAI takes the first two rows, so that the voxels of an oblique slice would have a wrong
    size. `affine` of the item is the one to RAS+ mm all the same.
    """
    try:
        from monai.data import MetaTensor
    except ImportError:
        raise ConfigError("as_='monai' needs MONAI", found="not installed", next_step="pip install monai") from None
    affine = item["affine"]
    if item["image"].ndim == 3:
        affine = torch.diag(torch.cat([affine[:3, :2].norm(dim=0), affine.new_ones(1)]))
    meta = {"filename_or_obj": item["sample_id"]}
    made = {name: item[name][None] for name in _PLANES} | {"image": item["image"]}
    return {**item, **{name: MetaTensor(tensor, affine=affine, meta=dict(meta)) for name, tensor in made.items()}}
