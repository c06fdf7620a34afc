"""A segmenter's regions and a protocol's classes in; which region is which class, and class maps, out.

Both are named unions of labels. Neither the order nor the number of regions says anything about classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from augengine.errors import ConfigError

Unions = Mapping[str, Sequence[str]]
"""Names, each with the labels whose union it is."""


def exclude_each_other(unions: Unions) -> bool:
    """True if no label lies in two of them, so that the background is one more."""
    labels = [label for of_one in unions.values() for label in of_one]
    return len(labels) == len(set(labels))


def outermost_first(unions: Unions) -> dict[str, tuple[str, ...]]:
    """Nested unions in the order in which segmenters cut inner ones to outer ones; others as they stand.

    >>> list(outermost_first({"core": ["a"], "whole": ["a", "b"]}))
    ['whole', 'core']
    """
    names = list(unions) if exclude_each_other(unions) else sorted(unions, key=lambda name: -len(set(unions[name])))
    return {name: tuple(unions[name]) for name in names}


def regions_of_classes(regions: Unions, classes: Unions) -> dict[str, int]:
    """The place in `regions` of every class that they hold; a class without a region is left out.

    A region is a class of the same name, or else one of the same labels under another name.

    Raises:
        ConfigError: a region and a class of one name that are unions of different labels, or no class has a region.

    >>> regions_of_classes({"lesion": ["core", "oedema"]}, {"TC": ["core"], "WT": ["oedema", "core"]})
    {'WT': 0}
    """
    places = {name: n for n, name in enumerate(regions)}
    meanings = {frozenset(labels): n for n, labels in reversed(list(enumerate(regions.values())))}
    found = {}
    for name, labels in classes.items():
        if name in places and set(regions[name]) != set(labels):
            raise ConfigError(
                f"a region and a class of one name, here {name}, are of the same labels",
                found=f"{', '.join(regions[name])} and {', '.join(labels)}",
                next_step="change the regions of the recipe or the classes of the protocol",
            )
        place = places.get(name, meanings.get(frozenset(labels)))
        if place is not None:
            found[name] = place
    if not found:
        raise ConfigError(
            "a segmenter predicts at least one class of the protocol",
            found=_told(regions),
            next_step=f"choose another segmenter or protocol; classes: {_told(classes)}",
        )
    return found


def class_maps(probabilities: np.ndarray, regions: Unions, classes: Unions) -> np.ndarray:
    """Class maps (B, *) uint8, bit n for class n, of a segmenter's probabilities (B, R, *) float.

    Bits of classes that no region is stay unset. Raises as `regions_of_classes` does.
    """
    places = regions_of_classes(regions, classes)
    planes = predicted_regions(probabilities, exclusive=exclude_each_other(regions))
    found = np.zeros((len(planes), *planes.shape[2:]), np.uint8)
    for n, name in enumerate(classes):
        if name in places:
            found |= planes[:, places[name]].astype(np.uint8) << n
    return found


def predicted_regions(probabilities: np.ndarray, *, exclusive: bool) -> np.ndarray:
    """Bool (B, R, *) of probabilities: the likeliest region, background included, or all above 0.5."""
    if not exclusive:
        return np.asarray(probabilities > 0.5)
    with_background = np.concatenate([1 - probabilities.sum(1, keepdims=True), probabilities], axis=1)
    numbers = np.arange(1, with_background.shape[1]).reshape(1, -1, *[1] * (probabilities.ndim - 2))
    return np.asarray(with_background.argmax(1)[:, None] == numbers)


def _told(unions: Unions) -> str:
    return "; ".join(f"{name} of {', '.join(labels)}" for name, labels in unions.items())
