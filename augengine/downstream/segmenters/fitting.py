"""A segmenter's recipes and folders of shards in, its trained networks below one folder out, and back to be loaded.

Layout: `<folder>/<role>/checkpoint` for every network, and `segmenter.json`, written last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from augengine.downstream.segmenters.base import Segmenter, Training
from augengine.errors import CheckpointError, ConfigError
from augengine.io.store import Store
from augengine.train.config import Recipe
from augengine.train.run import train

MARK = "segmenter.json"


def adapted(recipe: Recipe, steps: int, seed: int, training: Training, **data: Any) -> Recipe:
    """The recipe with these steps (no time limit), seed and mixture; `data` replaces keys of its section data."""
    values = recipe.model_dump(mode="json") | {"steps": steps, "seed": seed, "max_minutes": None}
    values["data"] |= data
    if training.augmented_per_real is not None:
        values["data"]["augmented_per_real"] = training.augmented_per_real
    if training.classical:
        values.setdefault("classical", {})
    if training.random_contrast:
        values.setdefault("random_contrast", {})
    if training.batchgeneratorsv2:
        values.setdefault("batchgeneratorsv2", {})
    return Recipe.model_validate(values)


def fit_network(
    role: str,
    recipe: Recipe,
    shards: Sequence[str],
    out: str,
    training: Training,
    parts: Mapping[str, str] | None = None,
) -> str:
    """Train the network of one role, or go on with it; its checkpoint."""
    return train(
        recipe,
        list(shards),
        f"{out}/{role}",
        parts=parts,
        num_workers=training.num_workers,
        use_gpu=training.use_gpu,
        threads_per_worker=training.threads_per_worker,
        progress=training.progress,
    )


def need_roles(cls: type[Segmenter], recipes: Mapping[str, Recipe]) -> None:
    """Refuse recipes that are not exactly those that a segmenter takes, or that lack models they are built on.

    Raises:
        ConfigError: with the kinds, or the parts that neither `fit` trains nor a recipe names.
    """
    found = {role: recipe.kind for role, recipe in recipes.items()}
    if found != cls.roles:
        wanted, given = (", ".join(f"{role} ({kind})" for role, kind in of.items()) for of in (cls.roles, found))
        raise ConfigError(
            f"the segmenter {cls.name} takes recipes for {wanted}",
            found=given or "none",
            where="--recipe",
            next_step="give --recipe ROLE=FILE for each",
        )
    for recipe in recipes.values():
        left = [part for part, uri in recipe.parts.items() if uri is None and not part.startswith(cls.made_parts)]
        if left:
            raise ConfigError(
                f"recipe {recipe.name} is built on {', '.join(left)}, which the segmenter {cls.name} does not train",
                found="no checkpoint",
                where="--recipe",
                next_step=f"write its folder into a copy of the recipe: parts: {{{left[0]}: FOLDER}}",
            )


def mark(cls: type[Segmenter], out: str) -> str:
    """Say whose fitted folder this is; returns it."""
    Store(out).write_json(MARK, {"segmenter": cls.name})
    return out


def fitted_by(folder: str) -> str:
    """The name of the segmenter that `fit` finished in a folder."""
    store = Store(folder)
    if not store.exists(MARK):
        raise CheckpointError(
            f"a fitted segmenter's folder holds {MARK}",
            found="none",
            where=store.uri,
            next_step="run fit, which goes on where it stopped",
        )
    return str(store.read_mapping(MARK, segmenter=str)["segmenter"])


def checkpoint(cls: type[Segmenter], folder: str, role: str) -> str:
    """The checkpoint of one role in a folder that `cls` fitted."""
    if (found := fitted_by(folder)) != cls.name:
        raise CheckpointError(f"this folder is to hold a segmenter {cls.name}", found=found, where=folder)
    return f"{Store(folder).uri}/{role}/checkpoint"
