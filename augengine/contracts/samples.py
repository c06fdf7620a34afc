"""The rows that all that is plugged in is checked on: made from numbers alone, or the first ones of a data set."""

from __future__ import annotations

import numpy as np

from augengine.errors import ConfigError
from augengine.io.dataset import dataset_files
from augengine.io.shards import iter_samples
from augengine.io.store import Store
from augengine.records import Acquisition, Sample

SIEMENS = Acquisition("SIEMENS", "Skyra", 3.0, "PFP\\SFS", 10.0, 2.0, 1.44, 3.77)
GE = Acquisition("GE MEDICAL SYSTEMS", "SIGNA HDx", 1.5, "FAST_GEMS\\FS", 10.0, 2.0, 2.32, 4.94)

LESION_CODES = {"necrosis": 1, "oedema": 2, "enhancing": 4, "csf": 5, "white_matter": 6}


def lesion_sample(
    subject: int, *, at_mm: tuple[float, ...] = (-20.0, 0.0), size: int = 32, voxel_mm: float = 4.0, **changes: object
) -> Sample:
    """A skull-stripped head 100 mm wide, of tissue with a central ventricle, and a nested lesion 28 mm wide.

    `at_mm` is the lesion's centre from that of the head, along each axis of a slice or a volume. Channels t1 and flair.
    """
    axes, rng = len(at_mm), np.random.default_rng([7, subject])
    grid_mm = voxel_mm * (np.stack(np.meshgrid(*[np.arange(size)] * axes, indexing="ij")) - size // 2)
    column = (-1, *[1] * axes)
    depth = np.linalg.norm(grid_mm, axis=0)
    away = np.linalg.norm(grid_mm - np.reshape(at_mm, column), axis=0)
    label = np.zeros(depth.shape, np.uint8)
    for name, inside in {
        "white_matter": depth < 50,
        "csf": depth < 8,
        "oedema": away < 14,
        "enhancing": away < 10,
        "necrosis": away < 5,
    }.items():
        label[inside] = LESION_CODES[name]
    bright = np.array([[0, 300, 250, 0, 600, 100, 400], [0, 450, 700, 0, 500, 80, 350]], np.float32)[:, label]
    image = np.round((bright + rng.normal(0, 10, bright.shape)).clip(min=1)) * (label > 0)
    values: dict = {
        "image": image.astype(np.float32),
        "affine": np.diag([voxel_mm, voxel_mm, voxel_mm, 1.0]),
        "channels": ("t1", "flair"),
        "subject_id": f"L{subject:03d}",
        "volume_id": f"L{subject:03d}",
        "slice_index": 0 if axes == 2 else None,
        "label": label,
        "labels": LESION_CODES,
        "acquisition": SIEMENS if subject % 2 else GE,
        "split": "train",
        "intensity_range": ((0.0, 620.0),) * len(changes.get("channels", ("t1", "flair"))),  # type: ignore[arg-type]
    }
    return Sample(**{**values, **changes})


# All of one vendor, as policies select them.
SAMPLES = tuple(lesion_sample(n, at_mm=(-20.0, 4.0 * n), acquisition=GE) for n in range(3))


def own_rows(data: str) -> list[Sample]:
    """The first three rows of one shape of a data set, to check on.

    Raises:
        ConfigError: it has fewer than two.
    """
    store, by_shape = Store(data), dict[tuple[int, ...], list[Sample]]()
    for sample in iter_samples(store, dataset_files(store)):
        rows = by_shape.setdefault(sample.image.shape, [])
        rows.append(sample)
        if len(rows) == 3:
            return rows
    rows = max(by_shape.values(), key=len, default=[])
    if len(rows) < 2:
        raise ConfigError("a plug-in is checked on two or more rows of one shape", found=len(rows), where=data)
    return rows
