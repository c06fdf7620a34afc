"""A trained model and the description of a new training in; what the weights then know, of both, out.

Fine-tuning starts from the weights of another training (phantoms, another site) and goes on with few rows of one's own.
Whose scans the first one saw, the result has seen, too: the guard against leakage counts both.
"""

from __future__ import annotations

from augengine.diffusion.spec import ModelSpec
from augengine.errors import CheckpointError

# What both must have alike, or the weights mean something else.
_ALIKE = (
    "kind",
    "network",
    "diffusion",
    "classes",
    "channels",
    "content",
    "regions",
    "lesion",
    "mask",
    "surroundings",
    "context",
)
_UNITED = ("subject_hashes", "selection_hashes", "donor_hashes", "teachers")


def fine_tuned(spec: ModelSpec, start: ModelSpec, where: str) -> ModelSpec:
    """`spec`, as it is where training starts from the weights of `start`.

    Args:
        spec: of the new training, by its recipe and rows.
        start: what `model.json` says of the weights.
        where: their folder, for errors.

    Returns:
        The same with the labels and the vocabulary of `start`, whose inputs the network knows, and with all that either
        was trained on. `initialised_from` names the weights.

    Raises:
        CheckpointError: another network, other inputs or another intensity rule; labels or acquisitions of the new rows
            that the network has no input for; or weights that nobody trained.
    """
    if start.untrained_seed is not None:
        raise CheckpointError(
            "fine-tuning starts from a trained model", found="random weights", where=where, next_step="leave --init out"
        )
    alike = [*_ALIKE, *(["image_size"] if spec.network.body == "dit" else [])]
    for name in alike:
        if getattr(spec, name) != getattr(start, name):
            raise CheckpointError(
                f"to start from this model, the recipe and its rows must have its {name}: "
                f"{_short(getattr(start, name))}",
                found=_short(getattr(spec, name)),
                where=where,
                next_step="take the recipe that it was trained by, or leave --init out",
            )
    if spec.sees_images and spec.intensity != start.intensity:
        raise CheckpointError(
            f"this model was trained on {start.intensity.rule}",
            found=str(spec.intensity.rule),
            where=where,
            next_step="ingest the rows as its were",
        )
    if unknown := sorted(set(_named(spec)) - set(start.labels)):
        raise CheckpointError(
            "the recipe names labels that this model knows",
            found=", ".join(unknown),
            where=where,
            next_step=f"it knows {', '.join(start.labels) or 'none'}",
        )
    if (strange := _strange(spec, start)) is not None:
        raise CheckpointError(
            "the rows' acquisitions are among those that this model knows",
            found=strange,
            where=where,
            next_step="train anew on the rows of both",
        )
    changes = {name: tuple(sorted({*getattr(spec, name), *getattr(start, name)})) for name in _UNITED}
    known = spec.manufacturers is not None and start.manufacturers is not None
    makers = {*(spec.manufacturers or ()), *(start.manufacturers or ())}
    if not start.subject_hashes:
        raise CheckpointError(
            "the model that training starts from says whose scans it has seen",
            found="nobody's",
            where=where,
            next_step="train it anew",
        )
    return spec.model_copy(
        update=changes
        | {
            "labels": start.labels,
            "vocabulary": start.vocabulary,
            "initialised_from": start.sha256,
            "manufacturers": tuple(sorted(makers)) if known else None,
            "pretrained": start.pretrained,
        }
    )


def _named(spec: ModelSpec) -> list[str]:
    return [*spec.lesion, *(name for labels in spec.regions.values() for name in labels)]


def _strange(spec: ModelSpec, start: ModelSpec) -> str | None:
    """The first value of the new rows' acquisitions that the model has no feature for, or beyond its range."""
    if spec.vocabulary is None or start.vocabulary is None:
        return None
    new, known = spec.vocabulary, start.vocabulary
    for name, values in (*new.categories.items(), ("scan_options", new.options)):
        there = known.options if name == "scan_options" else known.categories[name]
        if unknown := sorted(set(values) - set(there)):
            return f"{name} {unknown[0]}"
    for name, greatest in new.maxima.items():
        least = new.minima.get(name, 0.0)
        if greatest > known.maxima[name] or (least and least < known.minima.get(name, 0.0)):
            low, high = known.minima.get(name, 0.0), known.maxima[name]
            return f"{name} from {least:g} to {greatest:g}, not within {low:g} to {high:g}"
    return None


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 120 else f"{text[:117]}…"
