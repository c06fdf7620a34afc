"""Small samples, shards and checkpoints for tests."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from scipy.ndimage import gaussian_filter

from augengine.contracts.models import contrast_spec as contrast_spec
from augengine.contracts.models import tiny_bank as tiny_bank
from augengine.contracts.models import tiny_spec
from augengine.contracts.samples import GE, SIEMENS
from augengine.contracts.samples import LESION_CODES as LESION_CODES
from augengine.contracts.samples import lesion_sample as lesion_sample
from augengine.diffusion.checkpoint import save_model, untrained
from augengine.diffusion.spec import Kind
from augengine.io.dataset import write_dataset
from augengine.io.shards import to_row, to_table
from augengine.io.store import Store
from augengine.records import Sample


def slice_sample(subject: int, index: int = 0, *, size: int = 32, split: str = "train", **changes: object) -> Sample:
    """A disc with an off-centre blob whose place follows from subject and index; whole numbers."""
    rng = np.random.default_rng([subject, index])
    i, j = np.mgrid[:size, :size] / size - 0.5
    x, y = rng.uniform(-0.15, 0.15, 2)
    image = 400.0 * (i**2 + j**2 < 0.16) + 300.0 * ((i - x) ** 2 + (j - y) ** 2 < 0.02) + rng.normal(40, 8, i.shape)
    values: dict = {
        "image": np.round(image.clip(min=0)).astype(np.float32)[None],
        "affine": np.diag([2.0, 2.0, 4.0, 1.0]),
        "channels": ("t1",),
        "subject_id": f"S{subject:03d}",
        "volume_id": f"S{subject:03d}",
        "slice_index": index,
        "label": (i**2 + j**2 < 0.16).astype(np.uint8),
        "labels": {"fat": 1},
        "acquisition": SIEMENS if subject % 2 else GE,
        "split": split,
        "intensity_range": ((30.0, 700.0),) * len(changes.get("channels", ("t1",))),  # type: ignore[arg-type]
    }
    return Sample(**{**values, **changes})


def grained_sample(subject: int, seed: int, *, split: str = "train") -> Sample:
    """Two channels of noise as smooth as tissue, and a bright round lesion in them."""
    rng = np.random.default_rng(seed)
    image = np.stack([gaussian_filter(rng.normal(0, 1, (48, 48)), 1.5) * 900 + 400 for _ in range(2)])
    grid, centre = np.indices((48, 48)), rng.integers(14, 34, 2)
    label = (np.hypot(grid[0] - centre[0], grid[1] - centre[1]) <= 6).astype(np.uint8)
    image[:, label > 0] *= 1.5
    channels, labels = ("t1", "t2"), {"lesion": 1}
    ranges = ((0.0, 900.0),) * 2
    changes = {"channels": channels, "labels": labels, "intensity_range": ranges, "split": split}
    return slice_sample(subject, image=image.astype(np.float32), label=label, **changes)  # type: ignore[arg-type]


def write_samples(folder: object, samples: list[Sample], per_file: int = 8) -> str:
    """Samples as the data set `folder` (a path, a URI or a `Store`); returns its URI."""
    place = folder if isinstance(folder, Store) else str(folder)
    tables = (to_table(samples[start : start + per_file]) for start in range(0, len(samples), per_file))
    return write_dataset(place, tables).uri


# Schema version 1, as it was written: one intensity range for all channels, and no rule.
SCHEMA_1 = pa.schema(
    [
        ("sample_id", pa.string()),
        ("subject_id", pa.string()),
        ("volume_id", pa.string()),
        ("slice_index", pa.int32()),
        ("site", pa.string()),
        ("split", pa.string()),
        ("synthetic", pa.bool_()),
        ("channels", pa.list_(pa.string())),
        ("image", pa.large_binary()),
        ("image_dtype", pa.string()),
        ("image_shape", pa.list_(pa.int32())),
        ("label", pa.large_binary()),
        ("label_confidence", pa.large_binary()),
        ("label_names", pa.list_(pa.string())),
        ("label_codes", pa.list_(pa.uint8())),
        ("affine", pa.list_(pa.float64(), 16)),
        ("spacing_mm", pa.list_(pa.float64(), 3)),
        ("intensity_low", pa.float64()),
        ("intensity_high", pa.float64()),
        (
            "acquisition",
            pa.struct(
                [(n, pa.string()) for n in ("manufacturer", "model", "scan_options")]
                + [
                    (n, pa.float64())
                    for n in (
                        "field_strength_t",
                        "flip_angle_deg",
                        "slice_thickness_mm",
                        "echo_time_ms",
                        "repetition_time_ms",
                        "inversion_time_ms",
                    )
                ]
            ),
        ),
        ("provenance", pa.string()),
    ],
    metadata={"augengine.schema_version": "1"},
)


def write_schema_1(folder: object, samples: list[Sample], per_file: int = 8) -> str:
    """As `write_samples`, in schema version 1: every channel of a sample must have the same range."""
    return write_dataset(str(folder), schema_1_tables(samples, per_file)).uri


def schema_1_tables(samples: list[Sample], per_file: int = 8) -> list[pa.Table]:
    """Samples in schema version 1."""
    tables = []
    for start in range(0, len(samples), per_file):
        rows = [to_row(s) for s in samples[start : start + per_file]]
        for row in rows:
            for name in ("intensity_low", "intensity_high"):
                (row[name],) = set(row[name] or [None])
        tables.append(pa.Table.from_pylist([{k: row[k] for k in SCHEMA_1.names} for row in rows], schema=SCHEMA_1))
    return tables


def write_checkpoint(
    folder: object, *, channels: tuple[str, ...] = ("t1",), seed: int = 0, size: int = 32, kind: Kind = "acquisition"
) -> str:
    """A very small generator with random weights, which says so, in a path, a URI or a `Store`; returns its URI."""
    spec = tiny_spec(kind, channels=channels, size=size).model_copy(update={"untrained_seed": seed})
    place = folder if isinstance(folder, Store) else Store(str(folder))
    save_model(place, spec, untrained(spec, seed).network.state_dict())
    return str(folder)
