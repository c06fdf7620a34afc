"""Shards of rows without labels and a trained segmenter in; the same rows with what it says of them, out.

A segmenter that was trained on another scanner finds the organ better than the tissues in it, whereas a scan's own
intensities part the tissues well and do not know their names. So its probabilities are the prior of a mixture model of
the row's intensities (Van Leemput et al. 1999; Ashburner and Friston 2005, "Unified segmentation").
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from scipy.ndimage import gaussian_filter

from augengine.diffusion.checkpoint import check_scale, read_spec
from augengine.diffusion.spec import ModelSpec
from augengine.errors import CheckpointError, ConfigError
from augengine.intensity import normalise
from augengine.io.content import content_digest
from augengine.io.dataset import dataset_files, finish
from augengine.io.labellers import LABELLERS
from augengine.io.shards import SCHEMA, from_row, iter_metadata, read_group, to_row
from augengine.io.store import Store
from augengine.metrics.referee import Referee
from augengine.pipeline.units import Actors, Progress, run_units
from augengine.pipeline.workers import Unit
from augengine.records import IntensityRule
from augengine.rng import canonical_json, digest

FOLDER = "samples"
BATCH = 16
# Of the mixture: how often it is fitted, how far the prior is trusted, how smooth a tissue's mean may vary, and below
# which share of neighbours it is the tissue's mean in the whole row.
ITERATIONS, TRUST, SMOOTH_PX, FEW = 15, 0.5, 8.0, 0.02
LEAST_VARIANCE, LEAST_VOXELS = 1e-4, 20


def pseudo_label(data: str, segmenter: str, out: str, *, actors: Actors, progress: Progress | None = None) -> str:
    """Label every row anew, with the segmenter's confidence beside it; rows' own labels are not read.

    Args:
        data: URI of plain shards.
        segmenter: checkpoint of kind `segmenter`, of regions that are one label each.
        out: absolute path or URI; the same call again makes what is missing.

    Returns:
        URI of the data set.

    Raises:
        ConfigError: a region of several labels, which does not say which of them a voxel has.
        CheckpointError: another kind of model, or one of other channels or intensity ranges than the rows have.
        RunError: the folder holds the labels of another segmenter, or of other rows.
    """
    store, source = Store(out), Store(data)
    names, spec = dataset_files(source), read_spec(segmenter)
    check_labeller(spec, segmenter)
    check_rows(source, names, spec)
    weights = {"segmenter": spec.sha256}
    units = [
        Unit(digest(name, group, length=16), {"name": name, "group": group})
        for name in names
        for group in range(source.parquet(name).num_row_groups)
    ]
    args = {"data": source.uri, "segmenter": segmenter, "device": "cuda" if actors.num_gpus else "cpu"}
    mixture = {
        "iterations": ITERATIONS,
        "trust": TRUST,
        "smooth_px": SMOOTH_PX,
        "few": FEW,
        "least_variance": LEAST_VARIANCE,
        "least_voxels": LEAST_VOXELS,
    }
    fingerprint = {
        "stage": "pseudo_labels",
        "source": content_digest(source, names),
        "weights": weights,
        "mixture": mixture,
    }
    # Whoever is trained on these rows learns from the subjects that trained the segmenter, too.
    files = {LABELLERS: canonical_json(weights) + "\n"}
    run = run_units(units, LabelWorker, args, store, fingerprint, files=files, actors=actors, progress=progress)
    finish(store, {"stage": "pseudo_labels", "counts": run.counts}, run.files)
    return store.uri


def check_labeller(spec: ModelSpec, where: str) -> None:
    """Refuse a model that cannot say which label a voxel has."""
    if spec.kind != "segmenter" or spec.context:
        raise CheckpointError("pseudo-labels come from a segmenter of single rows", found=spec.kind, where=where)
    for region, labels in spec.regions.items():
        if len(labels) != 1:
            raise ConfigError(
                "a pseudo-label is a region of one label", found=f"{region}: {', '.join(labels)}", where=where
            )


def check_rows(source: Store, names: Sequence[str], spec: ModelSpec) -> None:
    """Refuse rows of other channels or intensity ranges than the model's; reads metadata alone."""
    rows = iter_metadata(source, names)
    found = {(tuple(row["channels"]), IntensityRule.from_dict(row["intensity_rule"])) for row in rows}
    for channels, rule in sorted(found, key=str):
        check_scale(spec, channels, rule)


class LabelWorker:
    """Segments the rows of one row group."""

    def __init__(self, data: str, segmenter: str, device: str) -> None:
        torch.set_num_threads(1)
        self.data, self.segmenter = Store(data), Referee(segmenter, device)

    def __call__(self, spec: dict[str, Any]) -> dict[str, pa.Table]:
        """The rows, labelled."""
        table = read_group(self.data.parquet(spec["name"]), spec["group"], SCHEMA.names)
        rows = [row for n in range(0, table.num_rows, BATCH) for row in self._labelled(table.slice(n, BATCH))]
        return {FOLDER: pa.Table.from_pylist(rows, schema=SCHEMA)}

    def _labelled(self, table: pa.Table) -> Iterator[dict[str, Any]]:
        samples = [from_row({**row, "label": None, "label_confidence": None}) for row in table.to_pylist()]
        names = [labels[0] for labels in self.segmenter.model.spec.regions.values()]
        images = [normalise(sample) for sample in samples]
        for sample, image, found in zip(samples, images, self.segmenter.likely(samples), strict=True):
            label, confidence, codes = likeliest(refined(image, found), names, sample.labels)
            yield to_row(sample.replace(label=label, label_confidence=confidence, labels=codes))


def refined(image: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Probabilities (R, *) that follow the image's intensities where some region is likelier than none.

    Each region is a Gaussian about a mean that varies slowly over the image, for the coil's shading. The probability of
    any region at all, and everything outside, stays as it was.

    Args:
        image: (C, *), normalised.
        probabilities: (R, *) of regions that exclude each other.
    """
    organ = probabilities.sum(0)
    inside = organ > 0.5
    if len(probabilities) < 2 or np.count_nonzero(inside) < LEAST_VOXELS:
        return probabilities
    prior = probabilities.clip(1e-3, 1) ** TRUST
    share = prior = prior / prior.sum(0)
    for _ in range(ITERATIONS):
        fit = np.log(prior)
        for k, weight in enumerate(share * inside):
            near = gaussian_filter(weight, SMOOTH_PX)
            for channel in image:
                overall = (weight * channel).sum() / max(weight.sum(), 1e-9)
                mean = (gaussian_filter(weight * channel, SMOOTH_PX) + FEW * overall) / (near + FEW)
                square = (channel - mean) ** 2
                variance = (weight * square).sum() / max(weight.sum(), 1e-9) + LEAST_VARIANCE
                fit[k] -= 0.5 * (square / variance + np.log(variance))
        share = np.exp(fit - fit.max(0))
        share /= share.sum(0)
    return np.where(inside, organ * share, probabilities)


def likeliest(
    probabilities: np.ndarray, names: list[str], codes: Mapping[str, int]
) -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
    """Label map and confidence (both uint8, 0 to 255) of probabilities (R, *), and codes that know all `names`.

    >>> likeliest(np.array([[0.2, 0.9], [0.1, 0.1]]), ["fat", "gland"], {"gland": 1})
    (array([0, 2], dtype=uint8), array([178, 230], dtype=uint8), {'gland': 1, 'fat': 2})
    """
    known = dict(codes)
    of_region = [0, *(known.setdefault(name, max(known.values(), default=0) + 1) for name in names)]
    with_rest = np.concatenate([1 - probabilities.sum(0, keepdims=True), probabilities])
    label = np.array(of_region, np.uint8)[with_rest.argmax(0)]
    return label, np.rint(255 * with_rest.max(0).clip(0, 1)).astype(np.uint8), known
