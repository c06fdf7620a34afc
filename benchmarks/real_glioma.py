"""Tumour removal and relocation on a real glioma (A1, four modalities) with models trained on brain phantoms.

    python benchmarks/real_glioma.py --data ../shared/data

One of the models also saw the glioma's own slices in training, about a third of its batches, with the lesion hidden
and out of the loss. What the gates said, and how far the painted region stands off from its mirror image before and
after, per modality and in units of the brain's SD: the only measure at hand where no truth exists. Pictures stay in
`runs/real_glioma/`, since they show the patient's scan. Trains what is missing.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
from _generators import LESION, MODELS, RECIPES, checkpoint, flags
from _generators import data as cohort
from _glioma import OPTIONS, ingest_glioma
from _record import record

from augengine import masks
from augengine.edits.lesions import named
from augengine.intensity import normalise
from augengine.io.dataset import dataset_files, run_files
from augengine.io.shards import iter_samples
from augengine.io.store import Store
from augengine.load import load_policy
from augengine.pipeline.augment import OUTCOMES, augment
from augengine.pipeline.cluster import connect
from augengine.pipeline.units import INLINE
from augengine.records import Sample
from augengine.report.console import console, stage, table
from augengine.report.image_grid import image_grid
from augengine.train.config import read_recipe
from augengine.train.run import train

POLICIES = {
    "removal": "brats_tumor_removal",
    "relocation": "brats_tumor_relocation",
}
TRAINED = {"PCF-UNet": "pcf_unet", "M3": "m3_lesion", "M3 with the glioma": "m3_glioma"}
# How often the glioma's rows stand beside those of the phantom (2,400).
OWN_ROWS, LEAST_VOXELS = 8, 10


def main() -> None:
    """Ingest, edit, measure, draw and record."""
    parser = flags(__doc__)
    parser.add_argument("--data", default="../shared/data", help="holds A1")
    parser.add_argument("--models", nargs="+", choices=TRAINED, default=TRAINED)
    given = parser.parse_args()
    out = Path("runs/real_glioma")
    for edit in POLICIES:
        for name in TRAINED.values():
            shutil.rmtree(out / f"{edit}-{name}", ignore_errors=True)
    data = str((out / "data").resolve())
    ingest_glioma(given.data, data)
    sources = {s.sample_id: s for s in iter_samples(Store(data), dataset_files(Store(data)))}
    figures: dict[str, object] = {
        "slices": len(sources),
        "with_lesion": sum(bool(_lesion(s).any()) for s in sources.values()),
    }
    lines = []
    for model in given.models:
        name = TRAINED[model]
        uri = _with_glioma(given.root, data, out) if name == "m3_glioma" else checkpoint(given.root, name)
        for edit, policy in POLICIES.items():
            folder = str(out / f"{edit}-{name}")
            with stage(f"{edit}, {model}") as progress:
                summary = augment(
                    load_policy(policy), data, folder, {"generator": uri}, actors=INLINE, progress=progress
                )
            made = {kind: _rows(folder, kind) for kind in ("accepted", "rejected")}
            pairs = [(sources[after.provenance.parent_id], after) for rows in made.values() for after in rows]
            found = {
                "rows": dict(summary.counts),
                "reasons": _reasons(folder),
                "off_mirror_before": _off_mirror([before for before, _ in pairs], [before for before, _ in pairs]),
                "off_mirror_after": _off_mirror([before for before, _ in pairs], [after for _, after in pairs]),
            }
            figures[f"{edit}, {model}"] = found
            _draw(pairs, out / f"{edit}-{name}.png")
            for channel in OPTIONS.channels:
                lines.append(
                    [edit, model, channel, found["off_mirror_before"][channel], found["off_mirror_after"][channel]]
                )
            console.print(f"{edit}, {model}: {json.dumps({k: found[k] for k in ('rows', 'reasons')})}")
    columns = ["edit", "model", "channel", "before", "after"]
    table("Old lesion against its mirror image, |difference of means| in SD of the brain", columns, lines)
    console.print(record("real_glioma", figures))


def _with_glioma(root: str, data: str, out: Path) -> str:
    """A model of the phantom's and the glioma's own slices; it stays beside the pictures, as it knows the patient."""
    how, folder = MODELS["m3_lesion"], str((out / "m3_glioma").resolve())
    if not (Path(folder) / "checkpoint/model.json").exists():
        connect()
        recipe = read_recipe(str(RECIPES / f"{how.recipe}.yaml"), how.overrides)
        rows = [cohort(root, how.data), *[data] * OWN_ROWS]
        train(recipe, rows, folder, threads_per_worker=1, progress=console.print)
    return f"{folder}/checkpoint"


def _lesion(sample: Sample) -> np.ndarray:
    return named(sample, LESION)


def _rows(folder: str, kind: str) -> list[Sample]:
    store = Store(folder)
    return list(iter_samples(store, run_files(store, kind)))


def _reasons(folder: str) -> dict[str, int]:
    """Gates and skips, with how many rows each stopped."""
    store, found = Store(folder), Counter[str]()
    for kind in OUTCOMES[1:]:
        for name in run_files(store, kind):
            for reason in store.parquet(name).read(columns=["reason"])["reason"].to_pylist():
                found.update([f"{kind}: {part.split(' = ')[0]}" for part in reason.split("; ")])
    return dict(found.most_common())


def _off_mirror(sources: list[Sample], shown: list[Sample]) -> dict[str, float]:
    """Mean over rows of |mean of the old lesion's place − mean of its mirror image|, in SD of the brain, by channel."""
    found = []
    for source, sample in zip(sources, shown, strict=True):
        lesion, brain = _lesion(source), masks.foreground(source.image)
        axis = masks.left_right_axis(source.affine, 2)
        assert axis is not None  # axial slices
        other = masks.mirror_image(lesion, source.image, axis) & brain & ~lesion
        if other.sum() >= LEAST_VOXELS:
            image, own = normalise(sample), normalise(source)
            off = np.abs(image[:, lesion].mean(1) - own[:, other].mean(1)) / own[:, brain & ~lesion].std(1)
            found.append(off)
    mean = np.mean(found, axis=0) if found else np.full(len(OPTIONS.channels), np.nan)
    return dict(zip(OPTIONS.channels, mean.round(3).tolist(), strict=True))


def _draw(pairs: list[tuple[Sample, Sample]], path: Path) -> None:
    """Six slices with the largest lesions, every modality before and after, and the label maps."""
    if not pairs:
        return
    chosen = sorted(pairs, key=lambda pair: -_lesion(pair[0]).sum())[:12:2]
    lines = []
    for n, channel in enumerate(chosen[0][0].channels):
        lines += [(channel, [normalise(b)[n] for b, _ in chosen]), ("edited", [normalise(a)[n] for _, a in chosen])]
    lines += [("label", [b.label for b, _ in chosen]), ("edited", [a.label for _, a in chosen])]
    path.write_bytes(image_grid(lines))


if __name__ == "__main__":
    main()
