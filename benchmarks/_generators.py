"""The cohorts and models of the generators' tables: made where missing, found where an earlier command left them.

Everything lies below one folder: `brain/` (slices, tissue labels), `held_out/` (other subjects), `volumes/`, and
`models/<name>/checkpoint`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from augengine.diffusion.checkpoint import Model, load_model
from augengine.diffusion.tissue import region_planes, tissue_index
from augengine.intensity import normalise
from augengine.io.dataset import dataset_files
from augengine.io.shards import iter_samples
from augengine.io.store import Store
from augengine.phantom.brain_cohort import BrainCohort
from augengine.pipeline.cluster import connect
from augengine.pipeline.phantom import shard_cohort
from augengine.pipeline.units import INLINE
from augengine.prepare import Preparation, prepare
from augengine.records import Sample
from augengine.report.console import console
from augengine.train.config import read_recipe
from augengine.train.run import train

ROOT = Path(__file__).parents[1]
RECIPES = ROOT / "augengine/recipes"
LESION = ("necrosis", "oedema", "enhancing")
COHORTS = {
    "brain": BrainCohort(subjects=100, seed=11, matrix=64, slices=24, labels="tissue"),
    "brain_lesion": BrainCohort(subjects=100, seed=11, matrix=64, slices=24),
    "held_out": BrainCohort(subjects=100, seed=12, matrix=64, slices=24, labels="tissue"),
    "volumes": BrainCohort(subjects=60, seed=13, matrix=48, slices=32, labels="tissue"),
}


@dataclass(frozen=True)
class Trained:
    """How a model of the tables is trained: recipe, data, the models it is built on, changes to the recipe."""

    recipe: str
    data: str = "brain"
    parts: dict[str, str] = field(default_factory=dict)
    overrides: tuple[str, ...] = ()


MODELS = {
    "referee": Trained("referee_small"),
    "m1": Trained("seg_m1_small"),
    "m2": Trained("seg_m2_small"),
    "m3_paper": Trained("seg_m3_paper_small"),
    "m3": Trained("seg_m3_small"),
    # For scans whose label maps know no tissue.
    "m3_lesion": Trained("seg_m3_small", data="brain_lesion", overrides=("mask.hosts={}",)),
    "m3_context": Trained("seg_m3_small", overrides=("data.context=[-1, 1]",)),
    "pcf_unet": Trained("pcf_unet_small"),
    "pcf_vae": Trained("pcf_vae_small"),
    "pcf_dit": Trained("pcf_dit_small", parts={"autoencoder": "pcf_vae"}),
    "label_autoencoder": Trained("label_autoencoder_small"),
    "label_ldm": Trained("label_ldm_small", parts={"autoencoder": "label_autoencoder"}),
    # A segmenter of slices must be able to find nothing, so its prior has seen slices without a tumour, too.
    "slice_autoencoder": Trained("label_autoencoder_small", overrides=("data.showing=[]",)),
    "slice_prior": Trained(
        "label_ldm_small", parts={"autoencoder": "slice_autoencoder"}, overrides=("data.showing=[]",)
    ),
    "ldm_seg": Trained("ldm_seg_controlnet_small", parts={"prior": "slice_prior"}),
    "fold_0": Trained("unet_small", overrides=("data.fold=[0, 2]",)),
    "fold_1": Trained("unet_small", overrides=("data.fold=[1, 2]",)),
    "dmcie": Trained("dmcie_error_small", parts={"fold_0": "fold_0", "fold_1": "fold_1"}),
    "acquisition": Trained("cddgm_small"),
    "iap_predictor": Trained("iap_predictor_small"),
    "unet3d": Trained("unet3d_small", data="volumes"),
    "label_autoencoder_3d": Trained("label_autoencoder_3d_small", data="volumes"),
    "label_ldm_3d": Trained("label_ldm_3d_small", data="volumes", parts={"autoencoder": "label_autoencoder_3d"}),
    "ldm_seg_3d": Trained("ldm_seg_controlnet_3d_small", data="volumes", parts={"prior": "label_ldm_3d"}),
}


def flags(description: str | None) -> argparse.ArgumentParser:
    """The flags that all tables share."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default="runs/generators", help="cohorts and models; made where missing")
    return parser


def data(root: str, name: str) -> str:
    """URI of a cohort's shards."""
    uri = f"{root}/{name}"
    shard_cohort(COHORTS[name], uri, Preparation(slices=name != "volumes"), actors=INLINE)
    return uri


def checkpoint(root: str, name: str) -> str:
    """Folder of a trained model; trains it, and what it is built on, at first."""
    how = MODELS[name]
    out = Path(root, "models", name)
    if not (out / "checkpoint/model.json").exists():
        parts = {role: checkpoint(root, part) for role, part in how.parts.items()}
        connect()
        recipe = read_recipe(str(RECIPES / f"{how.recipe}.yaml"), how.overrides)
        uri = str(out.resolve())
        train(recipe, data(root, how.data), uri, parts=parts, threads_per_worker=1, progress=console.print)
    return str(out / "checkpoint")


def model(root: str, name: str) -> Model:
    """A trained model, ready."""
    torch.set_num_threads(2)
    return load_model(checkpoint(root, name))


@dataclass(frozen=True)
class Row:
    """One slice as the tables use it.

    Attributes:
        sample: as ingested.
        image: normalised (C, I, J).
        truth: the same slice without the lesion and with the same noise, normalised alike; None if not asked for.
        lesion, brain: bool (I, J).
        tissue: int8 (I, J) over the sorted label names of the cohort, as models see it.
        healthy: the same without the lesion; None if there is no truth.
    """

    sample: Sample
    image: np.ndarray
    truth: np.ndarray | None
    lesion: np.ndarray
    brain: np.ndarray
    tissue: np.ndarray
    healthy: np.ndarray | None


def rows(root: str, name: str, split: str, *, with_truth: bool, per_subject: int, min_lesion: int = 0) -> Iterator[Row]:
    """At most `per_subject` evenly spaced slices per subject of a split, with at least `min_lesion` lesion pixels."""
    cohort, store = COHORTS[name], Store(data(root, name))
    by_subject: dict[str, list[Sample]] = {}
    for sample in iter_samples(store, dataset_files(store)):
        if sample.split == split or split == "all":
            by_subject.setdefault(sample.subject_id, []).append(sample)
    for subject, samples in sorted(by_subject.items()):
        wanted = [s for s in sorted(samples, key=lambda s: s.slice_index or 0) if _lesion(s).sum() >= min_lesion]
        if not wanted:
            continue
        places = np.unique(np.linspace(0, len(wanted) - 1, min(per_subject, len(wanted))).round().astype(int))
        truths = prepare(cohort.truth(subject, lesion=False, shared_noise=True), Preparation()) if with_truth else []
        by_slice = {t.slice_index: t.replace(intensity_range=samples[0].intensity_range) for t in truths}
        for place in places:
            sample = wanted[place]
            truth, names = by_slice.get(sample.slice_index), sorted(sample.labels)
            yield Row(
                sample,
                normalise(sample),
                None if truth is None else normalise(truth),
                _lesion(sample),
                sample.label > 0,
                tissue_index(sample.label, sample.labels, names, sample.image),
                None if truth is None else tissue_index(truth.label, truth.labels, names, truth.image),
            )


def _lesion(sample: Sample) -> np.ndarray:
    return np.isin(sample.label, [sample.labels[name] for name in LESION])


def regions(row: Row, wanted: dict[str, tuple[str, ...]]) -> np.ndarray:
    """Bool planes (R, I, J) of named unions of labels."""
    return region_planes(torch.from_numpy(row.tissue)[None], wanted, sorted(row.sample.labels))[0].numpy()


def batches(items: list, size: int = 16) -> Iterator[list]:
    """Slices of a list."""
    yield from (items[n : n + size] for n in range(0, len(items), size))
