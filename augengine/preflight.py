"""A job's files, the data's headers and one volume in; every refusal that they allow out, before anything is computed.

Three looks, each of which takes seconds: at the files that the user wrote and names (`check_files`), at the headers and
one volume of a folder of images (`check_folder`), or at the metadata of shards (`check_shards`). The stages check again
what they are given.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from augengine.diffusion.checkpoint import read_spec
from augengine.diffusion.conditions import Vocabulary
from augengine.diffusion.intensity_spec import IntensityRecipe, IntensitySpec
from augengine.diffusion.spec import ModelSpec
from augengine.edits.base import Donor
from augengine.errors import DataError
from augengine.io.sources import Source
from augengine.io.store import Place, Store
from augengine.load import LoadedPolicy, Mixture
from augengine.pipeline.choices import check_taken, check_targets, count_acquisitions
from augengine.pipeline.ingest_plan import IngestPlan
from augengine.pipeline.models import check_kind, check_models, check_references, check_scales, gate_files
from augengine.pipeline.survey import Group, Scale, Survey, survey
from augengine.prepare import Preparation, prepare
from augengine.records import Acquisition, Sample
from augengine.train.config import Recipe
from augengine.train.model import model_spec, resolve_parts, validation_rows
from augengine.train.rows import DatasetFacts, dataset_facts

PROBES = 3
"""Volumes that are tried until one can be read; ingest quarantines the others with their reasons."""


@dataclass(frozen=True)
class Ready:
    """What a job needs, read: `checkpoints` has every role, None where `recipe` is to be trained for it."""

    mixture: Mixture
    checkpoints: Mapping[str, Place | None]
    recipe: Recipe | None

    @property
    def specs(self) -> list[ModelSpec]:
        """Of the checkpoints that there are."""
        return [read_spec(place) for place in self.checkpoints.values() if place]

    @property
    def size(self) -> int | None:
        """The matrix that the models were trained on; None if there is none yet."""
        return next((spec.image_size[0] for spec in self.specs), None)

    @property
    def ranges(self) -> dict[str, Any]:
        """How the models, or the recipe, want intensity ranges measured."""
        asked = [spec.intensity for spec in self.specs if spec.sees_images]
        found = asked[0] if asked else self.recipe.intensity if self.recipe else None
        return {} if found is None else found.model_dump(include={"percentiles", "foreground"})


def check_files(ready: Ready) -> None:
    """Refuse models, or a recipe in their place, that a policy cannot work with whatever the data are.

    Raises:
        ConfigError, CheckpointError: with the role, or the gate's file.
    """
    for member in ready.mixture.members:
        gate_files(member)
        missing = [role for role in member.roles if _given(ready, member, role) is None]
        recipe = ready.recipe
        for role in missing:
            assert recipe is not None  # it stands for what is missing
            name = ready.mixture.named(member, role)
            check_kind(
                name,
                member.roles[role],
                recipe.kind,
                f"recipe {recipe.name}",
                f"give --checkpoint {name}=FOLDER, or a --recipe of that kind",
            )
        if missing and recipe is not None and recipe.parts:
            resolve_parts(recipe, {})  # what these are decides what the model will be
            continue
        draft = _draft(recipe) if missing and recipe is not None else None
        check_models(member, *_models(ready, member, draft))


def check_named(mixture: Mixture) -> None:
    """Refuse what a policy file names and cannot have: files of gates, and models in its own `ref`s.

    Raises:
        AugengineError: with the gate's or the role's file.
    """
    for member in mixture.members:
        gate_files(member)
        refs = {role: ref for role in member.roles if (ref := member.ref(role)) is not None}
        specs = {role: read_spec(ref) for role, ref in refs.items()}
        for role, spec in specs.items():
            check_kind(role, member.roles[role], spec.kind, refs[role])
        if len(specs) == len(member.roles):
            check_models(member, specs, refs)


def check_shards(ready: Ready, data: Place) -> Survey:
    """As the stages would refuse a job on shards that were ingested before; reads metadata alone, and returns them."""
    store = Store.at(data)
    surveyed = survey(store, ready.mixture)
    check_taken(store.uri, ready.mixture, surveyed, lambda: count_acquisitions(store))
    planned = None
    if ready.recipe is not None:
        chosen_by = validation_rows(ready.recipe, [store])
        planned = _planned(
            ready.recipe, dataset_facts([store], ready.recipe.data.rows("train"), ready.recipe.any_shape), chosen_by
        )
    _check(ready, store.uri, surveyed, planned)
    for member in ready.mixture.members:
        check_references(member, surveyed.scales.get(member.name, ()))
    return surveyed


def check_folder(ready: Ready, plan: IngestPlan, preparation: Preparation) -> None:
    """As the stages would refuse a job on images that are yet to be ingested; reads one volume's pixels.

    What only the pixels of all volumes tell, such as who has a lesion, is left to the stages.
    """
    usable = [volume for volume in plan.sources if volume.error is None]
    where, row = str(plan.reader.root), next(_probe(plan, usable, preparation), None)
    if not usable or row is None:
        return  # ingest says of each volume why it cannot be used
    probed, sample = row
    if _stated(plan, probed) != sample.acquisition:
        return  # this layout's headers do not tell how a volume was scanned
    surveyed = _expected(plan, usable, sample, ready.mixture)
    scanned = Counter((plan.splits.get(v.subject_id), _stated(plan, v), v.labelled) for v in usable)
    check_taken(where, ready.mixture, surveyed, lambda: scanned)
    planned = None
    if ready.recipe is not None:
        train = [v for v in usable if plan.splits.get(v.subject_id) == "train"]
        if not train:
            raise DataError(
                "no rows of split 'train' here",
                where=where,
                found=f"{len(usable)} volumes",
                next_step="give more subjects",
            )
        if ready.recipe.best_checkpoint and "val" not in {plan.splits.get(v.subject_id) for v in usable}:
            raise DataError(
                "no rows of split 'val' here, whose loss is to choose the checkpoint",
                where=where,
                found=f"{len(usable)} volumes",
                next_step="give more subjects",
            )
        planned = _planned(ready.recipe, _foreseen(plan, train, sample))
    _check(ready, where, surveyed, planned)
    if preparation.size is not None and preparation.slices:  # else each volume's own matrix decides
        for member in ready.mixture.members:
            check_references(member, surveyed.scales.get(member.name, ()))


def _check(ready: Ready, where: str, surveyed: Survey, planned: ModelSpec | None) -> None:
    for member in ready.mixture.members:
        specs, places = _models(ready, member, planned)
        check_models(member, specs, places)
        check_scales(member, specs, places, surveyed.scales.get(member.name, ()))
        check_targets(where, member, surveyed, specs)


def _given(ready: Ready, member: LoadedPolicy, role: str) -> Place | None:
    return ready.checkpoints[ready.mixture.named(member, role)]


def _models(
    ready: Ready, member: LoadedPolicy, planned: ModelSpec | None
) -> tuple[dict[str, ModelSpec], dict[str, str]]:
    """Role to description, of the recipe's model where there is no checkpoint, and to what names it to the user."""
    specs: dict[str, ModelSpec] = {}
    places: dict[str, str] = {}
    for role in member.roles:
        place = _given(ready, member, role)
        if place is not None:
            specs[role], places[role] = read_spec(place), Store.at(place).uri
        else:
            assert planned is not None
            assert ready.recipe is not None
            specs[role], places[role] = planned, f"recipe {ready.recipe.name}"
    return specs, places


def _planned(recipe: Recipe, found: DatasetFacts, chosen_by: DatasetFacts | None = None) -> ModelSpec:
    parts = {role: read_spec(uri) for role, uri in resolve_parts(recipe, {}).items()}
    return model_spec(recipe, found, parts, chosen_by)


def _draft(recipe: Recipe) -> ModelSpec:
    """What a recipe's model will be, apart from all that the data decide."""
    data, mask = recipe.data, recipe.mask
    hosts = mask.hosts.values() if mask else ()
    names = {*data.lesion, *data.showing, *(n for group in (*data.regions.values(), *hosts) for n in group)}
    rule = IntensitySpec(**(recipe.intensity or IntensityRecipe()).model_dump()).rule
    nothing = DatasetFacts(0, ("",), tuple(sorted(names)), (1, 1), (1.0, 1.0, 1.0), Vocabulary.fit(()), (), rule)
    return model_spec(recipe, nothing, {}).model_copy(update={"vocabulary": None})


def _probe(plan: IngestPlan, usable: list[Source], preparation: Preparation) -> Iterator[tuple[Source, Sample]]:
    """A row of the first volume that can be read, of those with a mask if any has one."""
    first = sorted(usable, key=lambda v: not (v.spec.get("mask") or v.spec.get("masks")))
    for volume in first[:PROBES]:
        try:
            read = plan.reader.read(volume)
            acquisition = read.sample.acquisition.replace(**plan.reader.options.acquisition)
            rows = prepare(
                read.sample.replace(acquisition=acquisition),
                preparation,
                outside=read.outside,
                acquired_axis=read.acquired_axis,
                slice_by_slice=volume.slice_by_slice,
            )
        except Exception:  # ingest quarantines it with the reason
            continue
        yield volume, rows[len(rows) // 2]
        return


def _stated(plan: IngestPlan, volume: Source) -> Acquisition:
    return volume.acquisition.replace(**plan.reader.options.acquisition)


def _expected(plan: IngestPlan, usable: list[Source], sample: Sample, mixture: Mixture) -> Survey:
    """The survey of what ingest would make, with one row for each volume."""
    groups, donors, left_out = [], [], Counter[str]()
    taken: dict[str, set[Donor]] = {m.name: set() for m in mixture.members}
    for volume in usable:
        split, acquisition = plan.splits.get(volume.subject_id), _stated(plan, volume)
        row = {
            "sample_id": volume.volume_id,
            "split": split,
            "acquisition": acquisition.to_dict(),
            "labelled": volume.labelled,
        }
        requested: Counter[tuple[str, int]] = Counter()
        for replicate in range(mixture.per_input):
            if (member := mixture.drawn(row, replicate)) is not None:
                requested[member.name, replicate] += 1
                taken[member.name].add(Donor(volume.subject_id, acquisition))
        if not requested:
            left_out["select"] += 1
        groups.append(Group(volume.volume_id, 0, int(bool(requested)), dict(requested)))
        if split == "train":
            donors.append(Donor(volume.subject_id, acquisition, volume.labelled))
    scale = Scale(sample.channels, sample.intensity_rule, sample.image.shape[1:])
    return Survey(
        tuple(groups),
        tuple(donors),
        {m.name: (scale,) for m in mixture.members},
        "",
        len(usable),
        left_out,
        {member: frozenset(found) for member, found in taken.items()},
    )


def _foreseen(plan: IngestPlan, train: list[Source], sample: Sample) -> DatasetFacts:
    """What training will find in the rows."""
    return DatasetFacts(
        rows=len(train),
        channels=sample.channels,
        labels=tuple(sorted(sample.labels)),
        image_size=tuple(sample.image.shape[1:]),
        spacing_mm=sample.spacing_mm,
        vocabulary=Vocabulary.fit({_stated(plan, volume) for volume in train}),
        subjects=tuple(sorted({volume.subject_id for volume in train})),
        intensity=sample.intensity_rule,
    )
