"""A phantom protocol in; a cohort of two vendors, generators that saw what they may, and augmented rows out."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, replace

from augengine.diffusion.checkpoint import SPEC, read_spec, save_model, untrained
from augengine.downstream.arms import Extra
from augengine.downstream.inventory import Inventory, take_inventory
from augengine.downstream.protocols import Protocol, other_domain
from augengine.downstream.run import Stage
from augengine.downstream.segmenters import Training, checkpoints_of
from augengine.downstream.segmenters.unet import UNet
from augengine.downstream.views import View, view_of, write_views
from augengine.io.store import Store
from augengine.load import LoadedPolicy, load_policy
from augengine.phantom.brain_cohort import BrainCohort
from augengine.phantom.cohort import Cohort
from augengine.pipeline.augment import augment
from augengine.pipeline.phantom import shard_cohort
from augengine.pipeline.pseudo_labels import pseudo_label
from augengine.pipeline.units import Actors
from augengine.policy.spec import GateSpec
from augengine.prepare import Preparation
from augengine.rng import derive
from augengine.splits import DEFAULT_FRACTIONS
from augengine.train.config import Recipe, read_recipe
from augengine.train.run import Progress, train
from augengine.workflow import check_acceptable

SPLITS = {split: split for split in ("train", "val", "test")}
UNTRAINED_SEED = 1
LABELLER_WARP = {"rotation_deg": 15, "scale": 0.15, "shift": 0.08, "flip": True}


@dataclass(frozen=True)
class Study:
    """What is built before an experiment on phantoms.

    Attributes:
        cohort, preparation: who is scanned, and how slices are cut.
        fractions: of the subjects, for training, validation and test. Phantoms cost little to test on, and intervals
            over patients are as narrow as patients are many.
        recipe: file: how the generator of each direction is trained.
        policy: file: what it makes.
        generator_steps: optimiser steps of each generator.
        labeller, labeller_steps: file and training of the segmenter that labels what generators see without labels.
        ratio: augmented rows per real row that the experiment takes at the most.
    """

    cohort: Cohort | BrainCohort
    preparation: Preparation
    fractions: tuple[float, float, float] = DEFAULT_FRACTIONS
    recipe: str = "cddgm_small"
    policy: str = "duke_acquisition"
    generator_steps: int = 1000
    labeller: str = "unet_duke_small"
    labeller_steps: int = 4000
    ratio: float = 1.0


@dataclass(frozen=True)
class Built:
    """What an experiment takes: real shards, augmented rows by kind, one folder per direction, and the models that
    labelled what their generators were trained on.
    """

    data: str
    rows: dict[Extra, tuple[str, ...]]
    labellers: tuple[str, ...] = ()


def build(
    study: Study,
    protocol: Protocol,
    out: str,
    extras: Collection[Extra],
    stage: Stage,
    say: Progress,
    *,
    actors: Actors,
) -> Built:
    """Make what is missing; Ray must be initialised.

    Args:
        extras: kinds of added rows that the arms ask for.
        stage, say: where progress goes, of units and of trainings.

    Raises:
        ConfigError: augmented rows of a protocol without a second domain.
        RunError: a generator of whose rows the gates reject more than the policy allows.
    """
    light, made = replace(actors, num_gpus=0), {kind for kind in extras if kind in ("augmented", "untrained")}
    directions = [name for name in protocol.train_domains if name not in protocol.reference] if made else []
    targets = {name: other_domain(protocol, name) for name in directions}
    with stage("phantom cohort") as report:
        shard_cohort(
            study.cohort, f"{out}/cohort", study.preparation, fractions=study.fractions, actors=light, progress=report
        )
    data = take_inventory(f"{out}/cohort", protocol)
    if protocol.generator_sees == "unlabelled":
        data = take_inventory(_write([_some_unlabelled(data)], out, protocol, stage, light)[0], protocol)
    sources = [_source_view(data, protocol, *pair) for pair in targets.items()]
    shown = [_generator_view(data, protocol, *pair) for pair in targets.items()]
    uris = _write([*sources, *shown], out, protocol, stage, light) if directions else []
    rows: dict[Extra, list[str]] = {kind: [] for kind in made}
    labellers: list[str] = []
    for n, source in enumerate(directions):
        values = protocol.values(source), protocol.values(targets[source])
        seen, name = uris[len(directions) + n], shown[n].folder
        if protocol.generator_sees != "train_domain":
            name = f"{source}-{name}"
            fitted = _labeller(study, protocol, uris[n], f"{out}/labellers/{name}", stage, say)
            labeller = checkpoints_of(fitted)["unet"]
            with stage(f"labels for the generator, {source} → {targets[source]}") as report:
                seen = pseudo_label(seen, labeller, f"{out}/pseudo_labels/{name}", actors=actors, progress=report)
            labellers.append(labeller)
        trained = _generator(study, seen, f"{out}/generators/{name}", stage, say)
        for kind in sorted(made):
            checkpoint = (
                trained if kind == "augmented" else _without_training(trained, f"{out}/untrained_generators/{source}")
            )
            policy = direction(study, values[0][0], values[1][0], judged=kind == "augmented", known=_known(protocol))
            with stage(f"{kind} rows, {source} → {targets[source]}") as report:
                folder, given = f"{out}/{kind}/{source}", {"generator": checkpoint}
                made_rows = augment(policy, uris[n], folder, given, actors=actors, progress=report)
            check_acceptable(made_rows)
            rows[kind].append(folder)
    return Built(data.uri, {kind: tuple(found) for kind, found in rows.items()}, tuple(labellers))


def direction(study: Study, source: str, target: str, *, judged: bool = True, known: bool = False) -> LoadedPolicy:
    """The study's policy for scans of one manufacturer, with acquisitions of another as targets.

    `known` draws these from the other's training scans in the data at hand, whose subjects are recorded as donors;
    otherwise from the published protocols, of which the generator may not have seen the scanner: what it cannot paint
    is left out of the rows, too.
    `judged` False drops the gates but one that nothing breaks: the control is to deliver rows, however bad they are.
    Where rows are judged, more are made than are taken, since some are rejected; and never fewer than for a ratio of 1,
    so that ratios can be compared later without making all rows anew.
    """
    values = load_policy(study.policy).to_dict()
    values["name"] += f"-{'to'.join(name.split()[0].lower() for name in (source, target))}"
    values["select"] = {"split": "train", "where": {"manufacturer": source}}
    values["params"]["target"] = {
        "empirical": {"from": "samples" if known else "duke_protocols", "where": {"manufacturer": target}},
        **({} if known else {"unseen": "absent"}),
    }
    values["output"]["per_input"] = math.floor(max(1.0, study.ratio)) + 1 if judged else math.ceil(study.ratio)
    if not judged:
        values["gates"] = [GateSpec(name="changed", min=0.0).model_dump(mode="json")]
    return LoadedPolicy.from_dict(values)


def _known(protocol: Protocol) -> bool:
    """Where the generator has seen the other vendor's training scans, their header values are known as well."""
    return protocol.generator_sees == "target_images"


def _source_view(data: Inventory, protocol: Protocol, source: str, target: str) -> View:
    """What a direction's policy edits: the labelled training rows; and whose acquisitions it may draw from."""
    own, other = (data.scanned(protocol.values(name), protocol.splits.train) for name in (source, target))
    return view_of(f"{source}-source", data, own & data.labelled, other if _known(protocol) else ())


def _generator_view(data: Inventory, protocol: Protocol, source: str, target: str) -> View:
    """What may train the generator of a direction; validation subjects that are not tested on included.

    Where it sees the other domain it sees no true labels at all: if masks came with one domain alone, "has a mask"
    would say whose contrast to paint, and a labelled source would keep its own.
    """
    splits = {"train": "train"} if protocol.validates_on_test else {"train": "train", "val": "val"}
    own, other = (data.scanned(protocol.values(name), splits) for name in (source, target))
    if protocol.generator_sees == "unlabelled":
        return view_of("generator", data, (), (own | other) - data.labelled, splits=splits)
    if _known(protocol):
        return view_of(f"{source}-generator", data, (), (own & data.labelled) | other, splits=splits)
    return view_of(f"{source}-generator", data, own & data.labelled, splits=splits)


def _some_unlabelled(data: Inventory) -> View:
    """Every other training subject without labels: as in Duke, most of whose patients have no masks."""
    hidden = {key for key, split in data.split.items() if split == "train" and derive("unlabelled", key[0]) % 2}
    return view_of("data", data, data.split.keys() - hidden, hidden, splits=SPLITS)


def _write(views: list[View], out: str, protocol: Protocol, stage: Stage, actors: Actors) -> list[str]:
    with stage("rows that generators may see") as report:
        uris = write_views(views, f"{out}/shown", protocol, actors=actors, progress=report)
    return [uris[view.name] for view in views]


def _labeller(study: Study, protocol: Protocol, data: str, out: str, stage: Stage, say: Progress) -> str:
    """A segmenter of the source's labelled rows that has learnt not to trust contrast, so that it works on both."""
    recipes, training = {"unet": labeller_recipe(study, protocol)}, Training(random_contrast=True, progress=say)
    with stage("train labeller"):
        return UNet.fit([data], study.labeller_steps, 0, out, recipes=recipes, training=training)


def labeller_recipe(study: Study, protocol: Protocol) -> Recipe:
    """The study's recipe with the protocol's classes, on rows that are moved at random: it sees few of them often."""
    values = read_recipe(study.labeller).model_dump(mode="json") | {"warp": LABELLER_WARP}
    values["data"]["regions"] = {name: list(labels) for name, labels in protocol.classes.items()}
    return Recipe.model_validate(values)


def _generator(study: Study, data: str, out: str, stage: Stage, say: Progress) -> str:
    recipe = read_recipe(study.recipe, [f"steps={study.generator_steps}"])
    with stage("train generator"):
        return train(recipe, data, out, progress=say)


def _without_training(checkpoint: str, out: str) -> str:
    """The same architecture with random weights, as a checkpoint of its own; made anew for another architecture."""
    store, model = Store(out), untrained(read_spec(checkpoint), UNTRAINED_SEED)
    made_alike = {"sha256": "", "engine_version": ""}  # of the weights' bytes, and of who wrote them
    if not store.exists(SPEC) or read_spec(out).model_copy(update=made_alike) != model.spec.model_copy(
        update=made_alike
    ):
        save_model(store, model.spec, dict(model.network.state_dict()))
    return store.uri
