"""Random trees of BIDS-like names: every file is used or named, no image stands in two volumes, no name leaks out."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from augengine.errors import AugengineError
from augengine.io.sources import SourceOptions
from augengine.pipeline.ingest_plan import IngestPlan, plan_ingest

ENTITIES = (
    "acq-a",
    "acq-b",
    "run-1",
    "run-02",
    "ce-gd",
    "echo-1",
    "part-mag",
    "part-phase",
    "inv-2",
    "space-MNI",
    "desc-x",
    "label-l",
    "foo-1",
    "acq-a-b",
    "mod-T1w",
    "bad",
)
SUFFIXES = ("T1w", "FLAIR", "T1map", "mask", "dseg", "probseg", "defacemask", "MTS", "gmseg-manual", "localizer")
PLACES = (
    "sub-1/anat",
    "sub-1/ses-a/anat",
    "sub-1/ses-b/anat",
    "sub-2/anat",
    "sub-2/func",
    "sub-3/anat",
    "derivatives/x/sub-1/anat",
    "derivatives/x/sub-1/ses-a/anat",
    "sub-1",
    "",
    "sourcedata/sub-1/anat",
    "__MACOSX/sub-1/anat",
)
ENDINGS = (".nii.gz", ".nii.gz", ".nii", ".json", ".json", ".tsv", "")
SIDECARS = ('{"EchoTime": 0.003}', '{"EchoTime": 3}', "{", '{"ImageType": ["P"]}')
LABELS = {"lesion": 1}
WISHES: tuple[dict[str, Any], ...] = (
    {"mask": "none"},
    {"labels": LABELS},
    {"labels": LABELS, "mask": "*gmseg*"},
    {"channels": {"t1": "T1w|acq-a_T1w", "flair": "FLAIR"}, "mask": "none"},
)


def plant(root: Path, seed: int) -> None:
    """One labelled subject of two images, and files at random, some of the same subject."""
    rng = random.Random(seed)
    for name in ("T1w", "FLAIR", "dseg", "T1w_gmseg-manual"):
        (root / "sub-3/anat").mkdir(parents=True, exist_ok=True)
        (root / f"sub-3/anat/sub-3_{name}.nii.gz").touch()
    for _ in range(rng.randint(5, 40)):
        folder = rng.choice(PLACES)
        told = [part for part in folder.split("/") if part.startswith("sub-")] or ["sub-1"]
        told += [part for part in folder.split("/") if part.startswith("ses-") and rng.random() < 0.7]
        stem = [*told, *rng.sample(ENTITIES, rng.choice((0, 0, 1, 1, 2))), *(["T1w"] if rng.random() < 0.2 else [])]
        path = root / folder / ("_".join([*stem, rng.choice(SUFFIXES)]) + rng.choice(ENDINGS))
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink() or path.exists():
            continue
        if rng.random() < 0.05:
            path.symlink_to("nowhere")
        else:
            path.write_text(rng.choice(SIDECARS))


def check(plan: IngestPlan) -> None:
    plan.files()  # raises where the sum is not right
    images = [path for source in plan.sources for path in source.spec["channels"].values()]
    assert len(images) == len(set(images))
    texts = [item.reason for item in plan.unused]
    for source in plan.sources:
        texts += [source.error or "", *source.notes]
        for path in [*source.spec["channels"].values(), *filter(None, [source.spec["mask"]])]:
            assert source.subject_id in path.rpartition("/")[2]
        mask, image = source.spec["mask"] or "", next(iter(source.spec["channels"].values()), "")
        assert ("ses-a" in mask) <= ("ses-a" in image)
        assert ("run-1" in mask) <= ("run-1" in image)
    assert not any("sub-1" in text or "sub-2" in text or "sub-3" in text or "Error" in text for text in texts)


def test_random_trees(tmp_path: Path) -> None:
    granted = 0
    for seed in range(40):
        plant(tmp_path / str(seed), seed)
        for wish in WISHES:
            try:
                plan = plan_ingest(tmp_path / str(seed), "bids", SourceOptions(public_ids=True, **wish), inline=True)
            except AugengineError:  # a wish that the tree cannot grant
                continue
            check(plan)
            granted += 1
    assert granted > 120
