"""A row's sample in; the same with the channels and label codes that were asked for, out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from augengine.records import Sample
from augengine.selection.labels import Labels


def conformed(sample: Sample, channels: Sequence[str], labels: Labels, label_names: Sequence[str]) -> Sample:
    """The sample as `Selected` describes all of them.

    Args:
        channels: wanted names in order, each one of the sample's.
        label_names: `Selected.label_names`; code n + 1 is that of the n-th.

    Raises:
        DataError: a code of the label map has no name.
    """
    label = sample.label
    if label is not None:
        label = labels.mapped(label, list(sample.labels), list(sample.labels.values()), sample.sample_id)
    changes = {} if tuple(channels) == sample.channels else _channels(sample, channels)
    return sample.replace(
        label=label, label_confidence=sample.label_confidence,
        labels={name: code for code, name in enumerate(label_names, 1)}, **changes,
    )  # fmt: skip


def _channels(sample: Sample, channels: Sequence[str]) -> dict[str, object]:
    order = [sample.channels.index(name) for name in channels]
    ranges = sample.intensity_range
    return {
        "image": np.ascontiguousarray(sample.image[order]),
        "channels": tuple(channels),
        "intensity_range": None if ranges is None else tuple(ranges[n] for n in order),
    }
