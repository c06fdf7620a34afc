"""A label map and the weights of a resampling go in; the map on the new grid, every code's volume kept, comes out.

The largest share alone shrinks small and thin regions, by a fifth of a multiple-sclerosis load at 3 mm: voxels at the
edge hold less than half of them. So a code gets as many voxels as its volume fills, those of its largest shares.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import sparse

ROUNDING = 1e-4


def regrid_label(label: np.ndarray, weights: Sequence[sparse.csr_array], fills: Sequence[np.ndarray]) -> np.ndarray:
    """Resample uint8 `(I, J, K)`.

    Where the last axis stays as it is, slices keep their volumes one by one: what rounding to whole voxels leaves over
    passes on to the next slice, and no slice loses a code that it had. Else the volume as a whole keeps them.

    Args:
        weights: one matrix `(n_out, n_in)` per axis.
        fills: per axis `(n_in,)`, how many new voxels an old one fills, as far as it lies in the new field of view.
    """
    shape = tuple(w.shape[0] for w in weights)
    result = np.zeros(shape, np.uint8)
    carry = np.zeros(256)
    if _is_identity(weights[2]):
        for k in np.flatnonzero(label.any(axis=(0, 1))).tolist():
            result[..., k] = _slice(label[..., k], weights[:2], fills[:2], carry)
    else:
        used = [np.asarray(label.any(axis=tuple(a for a in range(3) if a != n))) for n in range(3)]
        rows = [_rows(w, u) for w, u in zip(weights, used, strict=True)]
        box = tuple(slice(r.start, r.stop) for r in rows)
        codes = _codes(label)
        shares = np.empty((len(codes), *result[box].shape), np.float32)
        for n, code in enumerate(codes.tolist()):
            part = (label == code).astype(np.float32)
            for axis, (w, r) in enumerate(zip(weights, rows, strict=True)):
                moved = np.moveaxis(part, axis, 0)
                out = w[r.start : r.stop] @ moved.reshape(moved.shape[0], -1)
                part = np.moveaxis(out.reshape(-1, *moved.shape[1:]), 0, axis)
            shares[n] = part
        if len(codes):
            owed = [np.einsum("ijk,i,j,k->", label == code, *fills, optimize=True) for code in codes.tolist()]
            result[box] = _assign(shares, codes, np.array(owed), carry)
    return result


def _slice(
    label: np.ndarray, weights: Sequence[sparse.csr_array], fills: Sequence[np.ndarray], carry: np.ndarray
) -> np.ndarray:
    codes = _codes(label)
    owed = np.array([fills[0] @ (label == code) @ fills[1] for code in codes.tolist()])
    shares = [weights[1] @ (weights[0] @ (label == code).astype(np.float32)).T for code in codes.tolist()]
    return _assign(np.stack([np.asarray(share).T for share in shares]), codes, owed, carry)


def _assign(shares: np.ndarray, codes: np.ndarray, owed: np.ndarray, carry: np.ndarray) -> np.ndarray:
    """The code of every voxel.

    Args:
        shares: float32 `(codes, *)`; what is missing to 1 is background.
        codes: uint8, not 0.
        owed: float64 `(codes,)`, voxels that the volume of each code fills.
        carry: float64 `(256,)`, voxels that earlier slices owe each code; updated.
    """
    rest = 1 - shares.sum(0, keepdims=True)
    everything = np.concatenate([np.where(rest > ROUNDING, rest, 0), np.where(shares > ROUNDING, shares, 0)])
    winner = everything.argmax(0)
    owed = owed + carry[codes]
    present = (shares > ROUNDING).reshape(len(codes), -1).any(1)
    quota = np.array([winner.size, *np.maximum(np.rint(owed), present)], int)
    count = np.bincount(winner.ravel(), minlength=len(quota))
    done: set[int] = set()
    for n in (1 + np.argsort(quota[1:], kind="stable")).tolist():  # the smallest first: it has the fewest places
        done.add(n)
        if count[n] < quota[n]:
            _gain(everything, winner, count, quota, n, done)
    for n in range(1, len(quota)):
        if count[n] > quota[n]:
            _yield(everything, winner, count, n, int(count[n] - quota[n]))
    carry[codes] = owed - count[1:]
    return np.asarray(np.array([0, *codes.tolist()], np.uint8)[winner])


def _gain(
    everything: np.ndarray, winner: np.ndarray, count: np.ndarray, quota: np.ndarray, n: int, done: set[int]
) -> None:
    """Give voxels to code number n, nearest wins first; codes that are done give only what they have too many of."""
    flat, own = winner.reshape(-1), everything.reshape(len(everything), -1)
    places = np.flatnonzero((own[n] > 0) & (flat != n))
    for place in places[_nearest(own[n, places] - own[flat[places], places], places, winner.shape)].tolist():
        loser = int(flat[place])
        if count[n] >= quota[n]:
            break
        if loser not in done or count[loser] > quota[loser]:
            flat[place] = n
            count[n], count[loser] = count[n] + 1, count[loser] - 1


def _yield(everything: np.ndarray, winner: np.ndarray, count: np.ndarray, n: int, many: int) -> None:
    """Give voxels of code number n to the background, where it is nearest to winning."""
    places = np.flatnonzero((winner == n) & (everything[0] > 0))
    flat, own = winner.reshape(-1), everything.reshape(len(everything), -1)
    given = places[_nearest(own[0, places] - own[n, places], places, winner.shape)][:many]
    flat[given] = 0
    count[n], count[0] = count[n] - len(given), count[0] + len(given)


def _nearest(margin: np.ndarray, places: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Order by falling margin; of equal ones, those at the low end of all axes first, so that shapes stay whole."""
    return np.lexsort((np.sum(np.unravel_index(places, shape), axis=0), -np.round(margin, 4)))


def _codes(label: np.ndarray) -> np.ndarray:
    found = np.unique(label)
    return np.asarray(found[found > 0])


def _is_identity(matrix: sparse.csr_array) -> bool:
    return matrix.shape[0] == matrix.shape[1] and bool((matrix - sparse.eye_array(matrix.shape[0])).nnz == 0)


def _rows(matrix: sparse.csr_array, used: np.ndarray) -> range:
    """Output voxels along an axis that take anything of the used input voxels."""
    found = np.flatnonzero(matrix @ used.astype(np.float32) > 0)
    return range(int(found[0]), int(found[-1]) + 1) if len(found) else range(0)
