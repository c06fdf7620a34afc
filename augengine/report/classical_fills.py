"""Classical baselines for lesions: a scan, its brain and a mask in; the mask filled, or a lesion pasted there, out.

Images are float32 (C, *), masks bool (*); outside the mask every bit of the result is the input's.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import ndimage, sparse
from scipy.sparse.linalg import spsolve
from skimage.restoration import inpaint_biharmonic

Fill = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def mean_fill(image: np.ndarray, brain: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Every channel's mean over the rest of the brain."""
    filled = image.copy()
    filled[:, mask] = image[:, brain & ~mask].mean(axis=1, keepdims=True)
    return filled


def mirror_fill(image: np.ndarray, brain: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The other side of the head, across the middle of the frame's first axis."""
    return np.where(mask, image[:, ::-1], image)


def biharmonic_fill(image: np.ndarray, brain: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The smoothest continuation of what surrounds the mask (Damelin and Hoang 2018), by scikit-image."""
    filled = inpaint_biharmonic(image, mask, channel_axis=0).astype(np.float32)
    return np.where(mask, filled, image)


def marching_fill(image: np.ndarray, brain: np.ndarray, mask: np.ndarray, radius: int = 5) -> np.ndarray:
    """Voxel by voxel from the border inwards, each a weighted mean of the known ones around it (Telea 2004).

    The distance transform gives the order, and the weights are Telea's (direction, distance, level); his gradient
    term is left out, as it overshoots in noise.
    """
    filled, known = image.copy(), brain & ~mask
    depth = ndimage.distance_transform_edt(mask)
    normal = np.stack(np.gradient(depth))
    box = np.stack(np.meshgrid(*[np.arange(-radius, radius + 1)] * mask.ndim, indexing="ij")).reshape(mask.ndim, -1)
    length = np.sqrt((box**2).sum(axis=0))
    box, length = (v[..., (length > 0) & (length <= radius)] for v in (box, length))
    places = np.argwhere(mask)
    for place in places[np.argsort(depth[mask], kind="stable")]:
        at = place[:, None] + box
        inside = np.all((at >= 0) & (at < np.array(mask.shape)[:, None]), axis=0)
        near = inside.copy()
        near[inside] = known[tuple(at[:, inside])]
        known[tuple(place)] = True
        if not near.any():
            continue
        around, away, step = tuple(at[:, near]), length[near], box[:, near]
        direction = np.abs(normal[(slice(None), *place)] @ step) / away
        level = 1 / (1 + np.abs(depth[around] - depth[tuple(place)]))
        weight = np.maximum(direction, 1e-6) / away**2 * level
        filled[(slice(None), *place)] = (filled[(slice(None), *around)] * weight).sum(axis=1) / weight.sum()
    return filled


FILLS: dict[str, Fill] = {
    "mean fill": mean_fill,
    "mirror fill": mirror_fill,
    "biharmonic": biharmonic_fill,
    "marching (Telea)": marching_fill,
}


def paste(image: np.ndarray, mask: np.ndarray, source: np.ndarray) -> np.ndarray:
    """`source` (C, *), the moved lesion, where the mask is; the image elsewhere."""
    return np.where(mask, source, image)


def poisson_paste(image: np.ndarray, mask: np.ndarray, source: np.ndarray) -> np.ndarray:
    """The gradients of `source` inside the mask with the image's values around it (Pérez et al. 2003, eq. 7 and 11).

    A neighbour beyond the frame is left out, as if nothing changed there. Any number of axes.
    """
    number = np.full(mask.shape, -1)
    number[mask] = np.arange(np.count_nonzero(mask))
    places = np.argwhere(mask)
    shape = np.array(mask.shape)
    rows, columns = [], []
    degree = np.zeros(len(places))
    right = np.zeros((len(places), len(image)))
    for axis in range(mask.ndim):
        for step in (-1, 1):
            other = places.copy()
            other[:, axis] += step
            here = np.flatnonzero(((other >= 0) & (other < shape)).all(axis=1))
            mine, next_to = tuple(places[here].T), tuple(other[here].T)
            degree[here] += 1
            right[here] += (source[(slice(None), *mine)] - source[(slice(None), *next_to)]).T
            unknown = mask[next_to]
            rows.append(here[unknown])
            columns.append(number[next_to][unknown])
            right[here[~unknown]] += image[(slice(None), *next_to)].T[~unknown]
    row, column = np.concatenate(rows), np.concatenate(columns)
    matrix = sparse.diags(degree) - sparse.coo_matrix((np.ones(len(row)), (row, column)), shape=[len(places)] * 2)
    blended = image.copy()
    if len(places):
        blended[:, mask] = spsolve(matrix.tocsc(), right).reshape(len(places), -1).T
    return blended
