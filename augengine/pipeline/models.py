"""Policies and the checkpoints that flags name in; for every model role a folder and its sha256, checked, out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from augengine.diffusion.checkpoint import check_rule, read_spec
from augengine.diffusion.spec import ModelSpec
from augengine.errors import CheckpointError, ConfigError
from augengine.gates import MEASURES, gate_hashes
from augengine.gates.base import Gate, ModelGate
from augengine.gates.reference import RowKind
from augengine.io.store import Place, Store
from augengine.load import LoadedPolicy, Mixture
from augengine.pipeline.survey import Scale
from augengine.yaml_config import unknown_name


def checkpoint_of(checkpoints: Mapping[str, Place], role: str) -> Place | None:
    """The folder that is given for a role, by its whole name or the end of it; "" stands for every other role.

    >>> given = {"acquisition.generator": "A", "generator": "B"}
    >>> checkpoint_of(given, "acquisition.generator"), checkpoint_of(given, "tumor_removal.generator")
    ('A', 'B')
    """
    parts = role.split(".")
    names = [".".join(parts[n:]) for n in range(len(parts) + 1)]
    return next((checkpoints[name] for name in names if name in checkpoints), None)


def folders(mixture: Mixture, checkpoints: Mapping[str, Place]) -> dict[str, Place | None]:
    """Every role of a run with the checkpoint that flags or policies name for it; None if neither does.

    Raises:
        ConfigError: a flag names a role that there is not.
    """
    found = {
        mixture.named(member, role): checkpoint_of(checkpoints, mixture.named(member, role)) or member.ref(role)
        for member in mixture.members
        for role in member.roles
    }
    for name in checkpoints:
        if name and not any(f".{role}".endswith(f".{name}") for role in found):
            raise unknown_name("model role", name, list(found), "--checkpoint")
    return found


def resolve_models(
    mixture: Mixture, checkpoints: Mapping[str, Place], scales: Mapping[str, Sequence[Scale]]
) -> tuple[dict[str, dict[str, Place]], dict[str, dict[str, str]]]:
    """Policy name → role → folder, and the same to sha256; from flags first and the policy's `ref` second.

    Args:
        scales: policy name → what models must fit of the rows that it takes.

    Raises:
        ConfigError: a role without a checkpoint, or a checkpoint for a role that there is not.
        CheckpointError: a model of another kind, for other channels, axes or intensity ranges, or with weights other
            than the policy's sha256; also of a gate.
    """
    given = folders(mixture, checkpoints)
    uris: dict[str, dict[str, Place]] = {}
    hashes: dict[str, dict[str, str]] = {}
    for member in mixture.members:
        uris[member.name] = {}
        for role in member.roles:
            uri = given[mixture.named(member, role)]
            if uri is None:
                raise ConfigError(
                    f"policy '{member.name}' needs a checkpoint for the role '{role}'",
                    next_step="pass --checkpoint, or set its ref under models",
                )
            uris[member.name][role] = uri
        specs = {role: read_spec(uri) for role, uri in uris[member.name].items()}
        places = {role: Store.at(uri).uri for role, uri in uris[member.name].items()}
        check_models(member, specs, places)
        check_scales(member, specs, places, scales[member.name])
        check_references(member, scales[member.name])
        hashes[member.name] = {role: spec.sha256 for role, spec in specs.items()}
    return uris, hashes


def check_models(member: LoadedPolicy, specs: Mapping[str, ModelSpec], places: Mapping[str, str]) -> None:
    """Refuse models that cannot serve a policy, whatever the data.

    Args:
        specs: of every role.
        places: role → folder, or whatever tells the user which model is meant.

    Raises:
        CheckpointError, ConfigError: a model of another kind, with other weights than the policy's, or that the edit's
            parameters or sampler cannot work with.
    """
    for role, spec in specs.items():
        check_kind(role, member.roles[role], spec.kind, places[role])
        asked = member.models[role].sha256 if role in member.models else None
        if asked and spec.sha256 and asked != spec.sha256:
            raise CheckpointError(f"the policy asks for weights {asked}", found=spec.sha256, where=places[role])
    for step in member.steps:
        step.check(specs)


def check_kind(role: str, kinds: Sequence[str], found: str, where: str, next_step: str | None = None) -> None:
    """Refuse a model of a kind that does not serve in a role: `CheckpointError`."""
    if found not in kinds:
        wanted = "' or '".join(kinds)
        raise CheckpointError(
            f"the role '{role}' needs a model of kind '{wanted}'", found=found, where=where, next_step=next_step
        )


def check_scales(
    member: LoadedPolicy, specs: Mapping[str, ModelSpec], places: Mapping[str, str], scales: Sequence[Scale]
) -> None:
    """Refuse models, those of gates too, that were trained on other channels, axes or intensity ranges than the rows'.

    Raises:
        CheckpointError: naming the model, what it was trained on, and what the rows have.
    """
    judges = {ref: read_spec(ref) for ref in gate_models(member)}
    models = [(specs[role], places[role]) for role in specs] + [(spec, ref) for ref, spec in judges.items()]
    for spec, where in models:
        for scale in scales:
            if spec.spatial_dims != scale.axes:
                raise CheckpointError(
                    f"this model was trained on {_ROWS[spec.spatial_dims]}",
                    found=f"rows that are {_ROWS[scale.axes]}",
                    where=where,
                    next_step="ingest with --slices or --volumes as it was, or train another model",
                )
            if scale.channels != spec.channels:
                raise CheckpointError(
                    f"this model was trained on channels {', '.join(spec.channels)}",
                    found=", ".join(scale.channels),
                    where=where,
                    next_step="ingest these channels, or train another model",
                )
            check_rule(spec, scale.rule, where)


_ROWS = {2: "slices", 3: "volumes"}


def check_references(member: LoadedPolicy, scales: Sequence[Scale]) -> None:
    """Refuse rows that a gate's reference could not be compared with: `DataError`; reads metadata alone."""
    kinds = sorted({RowKind(scale.channels, scale.shape) for scale in scales})
    for _, _, gate in _gates(member):
        gate.check_rows(kinds)


def gate_models(member: LoadedPolicy) -> list[str]:
    """Folders of the models that a policy's gates ask."""
    found = [gate.model.ref for _, _, gate in _gates(member) if isinstance(gate, ModelGate)]
    return [ref for ref in found if ref is not None]


def gate_refs(member: LoadedPolicy) -> dict[str, str]:
    """Folders that a policy's gates name, under the names of `gate_files`."""
    return {
        f"{label}.{name}.{option}" if label else f"{name}.{option}": ref.ref
        for label, name, gate in _gates(member)
        for option, ref in gate.refs().items()
        if ref.ref is not None
    }


def _gates(member: LoadedPolicy) -> Iterator[tuple[str, str, Gate]]:
    """Label of the step, name and options of every gate."""
    for label, gates in member.gates.items():
        for spec in gates:
            yield label, spec.name, MEASURES.find(spec.name).model_validate(spec.options)


def gate_files(member: LoadedPolicy) -> dict[str, str]:
    """sha256 of every file that decides a verdict, by gate and option; those of a step's gates under its label.

    Raises:
        AugengineError: a file that is missing or unfit.
    """
    found = {label: gate_hashes(gates) for label, gates in member.gates.items()}
    return {f"{label}.{k}" if label else k: v for label, hashes in found.items() for k, v in hashes.items()}
