"""A recipe and shards in; size, memory, arithmetic and batches of the training out, before any of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from augengine.diffusion.build import build
from augengine.diffusion.checkpoint import read_spec
from augengine.diffusion.local_contrast import LocalContrast
from augengine.train.config import Recipe
from augengine.train.estimate import describe, estimate
from augengine.train.loop import make_reader
from augengine.train.model import model_spec, resolve_parts, validation_rows
from augengine.train.objectives import objective
from augengine.train.precision import Precision
from augengine.train.rows import dataset_facts


def preview(recipe: Recipe, data: Sequence[str], workers: int, parts: Mapping[str, str]) -> list[tuple[str, str]]:
    """Rows of a table. One micro-batch of real rows passes through the objective on tensors without memory.

    Raises:
        ConfigError, DataError, CheckpointError: as training would.
    """
    rows = recipe.data.rows("train")
    found = dataset_facts(data, rows, recipe.any_shape)
    part_specs = {role: read_spec(uri) for role, uri in resolve_parts(recipe, parts).items()}
    spec = model_spec(recipe, found, part_specs, validation_rows(recipe, data))
    optimiser = recipe.optimiser
    micro = max(1, optimiser.batch_size // workers // optimiser.accumulation)
    network = build(spec).train()
    seen: tuple[nn.Module, tuple[Any, ...]]
    if isinstance(network, LocalContrast):  # its steps take voxels, of scans that are looked at when training begins
        seen = network, (torch.zeros(network.spec.members, micro, len(network.mean)),)
    else:
        seen = (
            objective(recipe, spec, network).train(),
            (make_reader(data, rows, recipe, spec, micro).batch(0), recipe.seed, 0),
        )
    measured = estimate(
        *seen,
        rows=micro,
        precision=Precision(recipe.hardware.precision, torch.device("cpu")),
        world=workers,
        sharded=recipe.hardware.shard,
    )
    unit = "voxels" if isinstance(network, LocalContrast) else "rows"
    epochs = "" if unit == "voxels" else f" ({recipe.steps * optimiser.batch_size / found.rows:.1f} epochs)"
    limit = f", or {recipe.max_minutes:g} min" if recipe.max_minutes is not None else ""
    if recipe.best_checkpoint is not None and (patience := recipe.best_checkpoint.patience):
        limit += f", or {patience} validations ({patience * recipe.validate_every} steps) without a lower loss"
    return [
        ("kind, network", f"{recipe.kind}, {recipe.network.body}"),
        ("rows", f"{found.rows} of {len(found.subjects)} subjects, {len(found.channels)} x {_size(found.image_size)}"),
        ("steps", f"{recipe.steps}{epochs}{limit}"),
        ("batch", f"{optimiser.batch_size} {unit}: {workers} workers x {optimiser.accumulation} x {micro}"),
        *describe(measured),
    ]


def _size(size: tuple[int, ...]) -> str:
    return " x ".join(str(n) for n in size)
