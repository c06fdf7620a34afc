"""A recipe and what the data hold in; the description of the model to be trained out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from augengine.acquisition_terms import manufacturer
from augengine.diffusion.autoencoder import AutoencoderSpec
from augengine.diffusion.checkpoint import how_to_ingest, subject_hash
from augengine.diffusion.control import ControlSpec
from augengine.diffusion.discriminative import SegmenterSpec
from augengine.diffusion.intensity_spec import IntensityRecipe, IntensitySpec
from augengine.diffusion.spec import Kind, ModelSpec
from augengine.errors import CheckpointError, ConfigError, DataError
from augengine.io.store import Store
from augengine.train.config import Recipe
from augengine.train.rows import DatasetFacts, Uris, dataset_facts
from augengine.yaml_config import unknown_name

# The kind of model that stands in each role; out-of-fold segmenters are named fold_0, fold_1, …
_KINDS: dict[str, Kind] = {"autoencoder": "autoencoder", "prior": "label_prior"}


def resolve_parts(recipe: Recipe, given: Mapping[str, str]) -> dict[str, str]:
    """URI of each part's checkpoint: the one `given`, or the recipe's; absolute, since workers run elsewhere.

    Raises:
        ConfigError: a role that the recipe does not have, or one without a folder.
    """
    for role in given:
        if role not in recipe.parts:
            raise unknown_name("part", role, sorted(recipe.parts), recipe.name)
    found = {role: given.get(role) or uri for role, uri in recipe.parts.items()}
    for role, uri in found.items():
        if uri is None:
            raise ConfigError(
                f"recipe {recipe.name} is built on a trained model in the role '{role}'",
                found="no folder",
                next_step=f"give its checkpoint folder: --part {role}=FOLDER",
            )
    return {role: Store(uri).uri for role, uri in found.items() if uri is not None}


def validation_rows(recipe: Recipe, data: Uris) -> DatasetFacts | None:
    """What the rows say whose validation loss chooses the checkpoint; None where the last weights are taken.

    Raises:
        DataError: there are none.
    """
    return None if recipe.best_checkpoint is None else dataset_facts(data, recipe.data.rows("val"), recipe.any_shape)


def model_spec(
    recipe: Recipe, found: DatasetFacts, parts: Mapping[str, ModelSpec], chosen_by: DatasetFacts | None = None
) -> ModelSpec:
    """What `model.json` will say, before training.

    Args:
        recipe: what is trained.
        found: what the training rows say.
        parts: models that it is built on, by role.
        chosen_by: what the validation rows say that choose the checkpoint (`best_checkpoint`), if any do.

    Raises:
        ConfigError: labels that the data do not hold, or a slice context for volumes.
        DataError: rows on another scale than the recipe asks for.
        CheckpointError: parts that do not fit the recipe or the data.
    """
    data, mask = recipe.data, recipe.mask
    regions = {name: tuple(labels) for name, labels in data.regions.items()}
    hosts = mask.hosts.values() if mask else ()
    for label in (*data.lesion, *data.showing, *(n for names in (*regions.values(), *hosts) for n in names)):
        if label not in found.labels:
            raise unknown_name("label", label, found.labels, recipe.name)
    if data.context and len(found.image_size) == 3:
        raise ConfigError("data.context is for slices, and these rows are volumes", found=list(data.context))
    if getattr(recipe.network, "design", None) == "stable_diffusion" and len(found.image_size) == 3:
        raise ConfigError(
            "network.design stable_diffusion is for slices, and these rows are volumes",
            found=recipe.name,
            next_step="ingest without --volumes",
        )
    uses_labels = regions or data.lesion or mask or recipe.structure
    spec = ModelSpec(
        kind=recipe.kind,
        network=recipe.network,
        diffusion=recipe.diffusion,
        vocabulary=found.vocabulary if _reads_acquisitions(recipe) else None,
        classes=("healthy", "unhealthy") if recipe.kind == "counterfactual" else (),
        channels=found.channels,
        content=data.content,
        labels=found.labels if uses_labels else (),
        regions=regions,
        lesion=data.lesion,
        mask="none" if mask is None else "labels_unknown" if mask.ablation == "unknown" else "labels",
        surroundings=mask is not None and mask.surroundings,
        context=data.context,
        parts=dict(parts),
        image_size=found.image_size,
        intensity=_intensity(recipe, found),
        spacing_mm=found.spacing_mm,
        subject_hashes=_united(map(subject_hash, found.subjects), *(p.subject_hashes for p in parts.values())),
        selection_hashes=_united(
            map(subject_hash, chosen_by.subjects if chosen_by else ()), *(p.selection_hashes for p in parts.values())
        ),
        donor_hashes=_united(map(subject_hash, found.donors), *(p.donor_hashes for p in parts.values())),
        teachers=_united(found.teachers, *(p.teachers for p in parts.values())),
        manufacturers=_manufacturers([found, *([chosen_by] if chosen_by else [])], parts),
        recipe=recipe.name,
    )
    if spec.sees_images and found.intensity != spec.intensity.rule:
        raise DataError(
            f"recipe {recipe.name} takes rows with {spec.intensity.rule}",
            found=str(found.intensity),
            next_step=f"{how_to_ingest(spec.intensity.rule)}, or change the recipe's section intensity",
        )
    for role, part in parts.items():
        _check_part(spec, role, part)
    _check_folds(recipe, spec)
    return spec


def _reads_acquisitions(recipe: Recipe) -> bool:
    """True if the model takes or predicts acquisition parameters."""
    told = isinstance(recipe.network, SegmenterSpec) and recipe.network.acquisition is not None
    return told or recipe.kind in ("acquisition", "acquisition_predictor")


def _intensity(recipe: Recipe, found: DatasetFacts) -> IntensitySpec:
    """What the recipe asks for; that older shards have one range for all channels is no choice of its."""
    asked = recipe.intensity or IntensityRecipe()
    return IntensitySpec(**asked.model_dump(), together=found.intensity.together)


def _manufacturers(facts: Sequence[DatasetFacts], parts: Mapping[str, ModelSpec]) -> tuple[str, ...] | None:
    """Those of the rows and the parts; None, unknown, if any of these does not say."""
    stated = [
        *(found.manufacturers for found in facts),
        *(p.manufacturers for p in parts.values() if p.untrained_seed is None),
    ]
    return _united(*(map(manufacturer, names or ()) for names in stated)) if all(stated) else None


def _united(*parts: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set[str]().union(*parts)))


def _check_part(spec: ModelSpec, role: str, part: ModelSpec) -> None:
    kind = _KINDS.get(role, "segmenter")
    # An autoencoder's content is what the generator makes of it: planes of regions, or image channels.
    content = ("labels" if spec.kind == "label_prior" else "image") if role == "autoencoder" else part.content
    of_labels = role not in ("autoencoder", "features") or content == "labels"
    sees = spec.sees_images and part.sees_images
    rules: list[tuple[str, object, object]] = [
        ("kind", kind, part.kind),
        ("content", content, part.content),
        ("image channels", spec.channels, part.channels),
        ("image size", spec.image_size, part.image_size),
        ("rows with", str(spec.intensity.rule if sees else part.intensity.rule), str(part.intensity.rule)),
        ("regions", list(spec.regions.items() if of_labels else part.regions.items()), list(part.regions.items())),
    ]
    if isinstance(spec.network, ControlSpec):
        autoencoder = part.parts.get("autoencoder")
        network = None if autoencoder is None else autoencoder.network
        factor = network.factor if isinstance(network, AutoencoderSpec) else 1
        rules.append(("downsampling factor", spec.network.factor, factor))
        rules.append(("diffusion", str(spec.diffusion), str(part.diffusion)))
    for name, wanted, there in rules:
        if wanted != there:
            raise CheckpointError(
                f"the part '{role}' of recipe {spec.recipe} must have {name} {wanted}",
                found=there,
                next_step="train that part on the same data, or give another checkpoint",
            )


def _check_folds(recipe: Recipe, spec: ModelSpec) -> None:
    """Every training subject of a corrector needs a segmenter that did not see it."""
    if recipe.kind != "error_corrector":
        return
    for role, part in spec.parts.items():
        if not part.subject_hashes and part.untrained_seed is None:
            raise CheckpointError(
                "the segmenters of a corrector state their training subjects, or nobody knows whom they did not see",
                found=f"none in '{role}'",
                next_step="train it anew",
            )
    everywhere = set.intersection(*(set(part.subject_hashes) for part in spec.parts.values()))
    if everywhere:
        raise CheckpointError(
            "the segmenters of a corrector leave out different subjects, so that each subject has one that "
            "did not see it",
            found=f"{len(everywhere)} subjects seen by all",
            next_step="train one with data.fold [0, 2] and one with [1, 2]",
        )
