"""Small samples, shards and checkpoints for tests."""

from __future__ import annotations

import numpy as np

from augengine.diffusion.checkpoint import save_generator, untrained
from augengine.diffusion.conditions import Vocabulary
from augengine.diffusion.spec import DiffusionSpec, ModelSpec
from augengine.diffusion.unet import UNetSpec
from augengine.io.shards import to_bytes, to_table
from augengine.io.store import Store
from augengine.phantom.protocols import duke_protocols
from augengine.records import Acquisition, Sample

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
        "intensity_range": (30.0, 700.0),
    }
    return Sample(**{**values, **changes})


def write_samples(folder: object, samples: list[Sample], per_file: int = 8) -> str:
    """Samples as plain shards in `folder`; returns its URI."""
    store = Store(str(folder))
    for n, start in enumerate(range(0, len(samples), per_file)):
        store.write(f"part-{n:03d}.parquet", to_bytes(to_table(samples[start : start + per_file])))
    return store.uri


def write_checkpoint(folder: object, *, channels: tuple[str, ...] = ("t1",), seed: int = 0, size: int = 32) -> str:
    """A very small generator with random weights; returns its URI."""
    spec = ModelSpec(
        network=UNetSpec(
            channels=(8, 16), res_blocks=1, attention_levels=(2,), head_channels=8, norm_groups=8, token_dim=16,
            unshuffle=2, structure=True,
        ),
        diffusion=DiffusionSpec(parametrisation="x0", schedule="cosine"),
        vocabulary=Vocabulary.fit([p.acquisition(0.5) for p in duke_protocols()]),
        channels=channels,
        labels=("fat",),
        image_size=(size, size),
        spacing_mm=(2.0, 2.0),
    )  # fmt: skip
    save_generator(Store(str(folder)), spec, untrained(spec, seed).network.state_dict())
    return str(folder)
