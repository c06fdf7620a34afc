"""Small samples, shards and checkpoints for tests."""

from __future__ import annotations

import tempfile

import numpy as np
import pyarrow as pa

from augengine.diffusion.checkpoint import Model, load_model, save_generator, untrained
from augengine.diffusion.conditions import Vocabulary
from augengine.diffusion.local_contrast import LocalContrastSpec
from augengine.diffusion.spec import DiffusionSpec, Kind, ModelSpec
from augengine.diffusion.unet import UNetSpec
from augengine.io.dataset import write_dataset
from augengine.io.shards import to_row, to_table
from augengine.io.store import Store
from augengine.metrics.lesion_survey import SurveyLesions
from augengine.metrics.partial import Pair
from augengine.phantom.protocols import duke_protocols
from augengine.records import Acquisition, Sample
from augengine.report.lesions import write_bank

SIEMENS = Acquisition("SIEMENS", "Skyra", 3.0, "PFP\\SFS", 10.0, 2.0, 1.44, 3.77)
GE = Acquisition("GE MEDICAL SYSTEMS", "SIGNA HDx", 1.5, "FAST_GEMS\\FS", 10.0, 2.0, 2.32, 4.94)


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
                        "field_strength_t", "flip_angle_deg", "slice_thickness_mm", "echo_time_ms",
                        "repetition_time_ms", "inversion_time_ms",
                    )
                ]
            ),
        ),
        ("provenance", pa.string()),
    ],
    metadata={"augengine.schema_version": "1"},
)  # fmt: skip


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
    for name, inside in {"white_matter": depth < 50, "csf": depth < 8, "oedema": away < 14, "enhancing": away < 10,
                         "necrosis": away < 5}.items():  # fmt: skip
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


def tiny_spec(kind: Kind, *, channels: tuple[str, ...] = ("t1",), size: int = 32, axes: int = 2) -> ModelSpec:
    """A very small generator that needs no other model; painters are M3 (paper 001)."""
    acquisition, whole = kind == "acquisition", ("necrosis", "enhancing", "oedema")
    return ModelSpec(
        kind=kind,
        network=UNetSpec(
            channels=(8, 16), res_blocks=1, attention_levels=(2,), head_channels=8, norm_groups=8, token_dim=16,
            unshuffle=2, structure=acquisition,
        ),
        diffusion=DiffusionSpec(parametrisation="x0", schedule="cosine"),
        vocabulary=Vocabulary.fit([p.acquisition(0.5) for p in duke_protocols()]) if acquisition else None,
        classes=("healthy", "unhealthy") if kind == "counterfactual" else (),
        channels=channels,
        labels=("fat",) if acquisition else tuple(LESION_CODES),
        lesion=() if acquisition else whole,
        regions={"whole": whole, "core": whole[:2], "enhancing": whole[1:2]} if kind == "label_prior" else {},
        mask="labels_unknown" if kind == "painter" else "none",
        image_size=(size,) * axes,
        spacing_mm=(2.0,) * axes,
    )  # fmt: skip


def tiny_bank(samples: list[Sample], labels: tuple[str, ...] = ("necrosis", "oedema", "enhancing")) -> Model:
    """The lesions of samples as a model of kind lesion_bank."""
    found = SurveyLesions(labels, 8, 24, 0.0)([Pair(sample.replace(split="train")) for sample in samples])
    assert found is not None
    with tempfile.TemporaryDirectory() as folder:
        write_bank(found, labels, labels, 24, Store(folder))
        return load_model(f"{folder}/bank")


def contrast_spec(channels: tuple[str, ...] = ("t1",), size: int = 32) -> ModelSpec:
    """A very small acquisition model that changes the source's own pixels."""
    network = LocalContrastSpec(members=2, width=8)
    return tiny_spec("acquisition", channels=channels, size=size).model_copy(
        update={"network": network, "diffusion": None, "labels": ()}
    )


def write_checkpoint(
    folder: object, *, channels: tuple[str, ...] = ("t1",), seed: int = 0, size: int = 32, kind: Kind = "acquisition"
) -> str:
    """A very small generator with random weights, which says so, in a path, a URI or a `Store`; returns its URI."""
    spec = tiny_spec(kind, channels=channels, size=size).model_copy(update={"untrained_seed": seed})
    place = folder if isinstance(folder, Store) else Store(str(folder))
    save_generator(place, spec, untrained(spec, seed).network.state_dict())
    return str(folder)
