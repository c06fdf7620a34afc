"""Do edited slices still match along z, and what does a box around the prompt save? Tumour removal, slice by slice.

    python benchmarks/slice_consistency.py

Every slice with a lesion is healed by M3 with noise of its own, with noise from one field per volume, and with the
neighbouring slices shown (2.5D). The mean difference between neighbouring slices inside the healed region is given
relative to that of the subject rendered without its lesion: 1 is as smooth along z as the truth. The same slices are
healed in a box around the prompt, for its time and error. Trains what is missing.
"""

from __future__ import annotations

import dataclasses
import time
import zlib

import numpy as np
import torch
from _generators import Row, flags, model, rows
from _record import record
from scipy import ndimage

from augengine import rng
from augengine.diffusion.checkpoint import Generator
from augengine.diffusion.painting import Sampling, Seeds, healthy, paint
from augengine.diffusion.volume_context import neighbour_index
from augengine.diffusion.volume_noise import VolumeNoise
from augengine.metrics.consistency import relative_z_difference
from augengine.metrics.intervals import bootstrap_interval
from augengine.metrics.removal import rmse
from augengine.report.console import console, stage, table

SAMPLING = Sampling(solver="ddpm", steps=25)
CORRELATION_MM = 12.0
MARGINS = (4, 8, 16)


def main() -> None:
    """Heal, measure, print and record."""
    parser = flags(__doc__)
    parser.add_argument("--subjects", type=int, default=8)
    given = parser.parse_args()
    plain, context = model(given.root, "m3"), model(given.root, "m3_context")
    volumes: dict[str, list[Row]] = {}
    for row in rows(given.root, "brain", "test", with_truth=True, per_subject=100, min_lesion=1):
        volumes.setdefault(row.sample.subject_id, []).append(row)
    volumes = {s: v for s, v in list(volumes.items())[: given.subjects] if len(v) > 1}
    found: dict[str, dict[str, list[float]]] = {}
    with stage("slices") as report:
        for n, (subject, slices) in enumerate(volumes.items()):
            report(n, len(volumes), {"subject": subject})
            own = [zlib.crc32(r.sample.sample_id.encode()) for r in slices]
            field = VolumeNoise(
                [zlib.crc32(subject.encode())] * len(slices),
                [r.sample.spacing_mm[2] * (r.sample.slice_index or 0) for r in slices],
                CORRELATION_MM,
            )
            ways: dict[str, tuple[Generator, Seeds, int | None]] = {
                "own noise": (plain, own, None),
                "one field": (plain, field, None),
                "2.5D": (context, own, None),
                "2.5D, one field": (context, dataclasses.replace(field, drawn=0), None),
                **{f"box, margin {m}": (plain, own, m) for m in MARGINS},
            }
            for name, (generator, seeds, margin) in ways.items():
                started = time.monotonic()
                healed = _healed(generator, slices, seeds, dataclasses.replace(SAMPLING, roi_margin=margin))
                seconds = (time.monotonic() - started) / len(slices)
                for measure, value in {**_measured(slices, healed), "seconds_per_slice": seconds}.items():
                    found.setdefault(name, {}).setdefault(measure, []).append(value)
    figures = {
        name: {
            m: dataclasses.asdict(bootstrap_interval(values, rng=rng.generator("slices", name, m)))
            for m, values in measures.items()
        }
        for name, measures in found.items()
    }
    lines = [
        [name, *(f"{v['estimate']:.3f} [{v['low']:.3f}, {v['high']:.3f}]" for v in measures.values())]
        for name, measures in figures.items()
    ]
    columns = ["way", "difference along z / truth's", "RMSE in the lesion", "seconds per slice"]
    table(f"Removal slice by slice, {len(volumes)} test subjects", columns, lines)
    console.print(record("slice_consistency", {"correlation_mm": CORRELATION_MM, "ways": figures}))


def _healed(generator: Generator, slices: list[Row], seeds: Seeds, sampling: Sampling) -> np.ndarray:
    x = torch.from_numpy(np.stack([r.image for r in slices]))
    edit = torch.from_numpy(np.stack([ndimage.binary_dilation(r.lesion) for r in slices]))[:, None]
    tissue = torch.from_numpy(np.stack([r.tissue for r in slices]))
    shown = None
    if generator.spec.context:
        order = neighbour_index(
            ["v"] * len(slices), [r.sample.slice_index or 0 for r in slices], generator.spec.context
        )
        # What is being healed in a neighbour tells nothing of healthy tissue: its own mean fill stands there.
        filled = torch.where(edit, (x * ~edit).sum((2, 3), keepdim=True) / (~edit).sum((2, 3), keepdim=True), x)
        shown = filled[torch.from_numpy(order)].flatten(1, 2)
    return paint(generator, x, edit, healthy(generator, tissue, edit, shown), seeds, sampling).numpy()


def _measured(slices: list[Row], healed: np.ndarray) -> dict[str, float]:
    truth, lesion = np.stack([r.truth for r in slices]), np.stack([r.lesion for r in slices])
    errors = [rmse(h, t, m) for h, t, m in zip(healed, truth, lesion, strict=True)]
    return {"z_difference": relative_z_difference(healed, truth, lesion), "rmse": float(np.nanmean(errors))}


if __name__ == "__main__":
    main()
