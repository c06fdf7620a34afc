"""An item of tensors in; a `torchio.Subject`, and a sampler of patches that takes rows without lesion, out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from augengine.errors import ConfigError


def as_torchio(item: dict[str, Any]) -> Any:
    """A Subject with `image` (a ScalarImage), `label` and `confidence` (LabelMaps, so that no transform of intensities
    touches them), all with the affine to RAS+ mm; a slice is (C, I, J, 1). All else of the item stands beside."""
    tio = _torchio()
    image = item["image"] if item["image"].ndim == 4 else item["image"][..., None]
    affine = item["affine"].numpy()
    planes = {name: tio.LabelMap(tensor=item[name].reshape(1, *image.shape[1:]), affine=affine) for name in _PLANES}
    rest = {name: value for name, value in item.items() if name not in ("image", "affine", *_PLANES)}
    return tio.Subject(image=tio.ScalarImage(tensor=image, affine=affine), **planes, **rest)


_PLANES = ("label", "confidence")


def lesion_sampler(
    patch_size: int | Sequence[int], label_probabilities: Mapping[int, float] | None = None, name: str = "label"
) -> Any:
    """A `torchio.LabelSampler` that takes a patch anywhere where an item shows none of the labels.

    TorchIO's own raises for such an item, and healed rows are such items. One whose labels lie so near the border that
    no patch fits around them counts as one.
    """
    tio = _torchio()

    class LesionSampler(tio.LabelSampler):  # type: ignore[misc, name-defined]
        def process_probability_map(self, probability_map: Any, subject: Any) -> np.ndarray:
            inside = np.array(probability_map[0], np.float64)
            self.clear_probability_borders(inside, self.patch_size)
            if not inside.any():
                probability_map = probability_map.new_ones(probability_map.shape)
            found: np.ndarray = super().process_probability_map(probability_map, subject)
            return found

    given = None if label_probabilities is None else dict(label_probabilities)
    return LesionSampler(patch_size, name, given)


def _torchio() -> Any:
    try:
        import torchio
    except ImportError:
        raise ConfigError(
            "as_='torchio' needs TorchIO", found="not installed", next_step="pip install torchio"
        ) from None
    return torchio
