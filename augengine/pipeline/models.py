"""Policies and the checkpoints that flags name in; for every model role a folder and its sha256, checked, out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from augengine.diffusion.checkpoint import check_rule, read_spec
from augengine.diffusion.spec import ModelSpec
from augengine.errors import CheckpointError, ConfigError
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
        scales: policy name → channels and intensity rules of the rows that it takes.

    Raises:
        ConfigError: a role without a checkpoint, or a checkpoint for a role that there is not.
        CheckpointError: a model of another kind, for other channels or intensity ranges, or with weights other than the
            policy's sha256.
    """
    given = folders(mixture, checkpoints)
    uris: dict[str, dict[str, Place]] = {}
    hashes: dict[str, dict[str, str]] = {}
    for member in mixture.members:
        specs: dict[str, ModelSpec] = {}
        uris[member.name], hashes[member.name] = {}, {}
        for role in member.roles:
            uri = given[mixture.named(member, role)]
            if uri is None:
                raise ConfigError(
                    f"policy '{member.name}' needs a checkpoint for the role '{role}'",
                    next_step="pass --checkpoint, or set its ref under models",
                )
            specs[role] = _checked_spec(member, role, uri, scales[member.name])
            uris[member.name][role], hashes[member.name][role] = uri, specs[role].sha256
        for step in member.steps:
            step.check(specs)
    return uris, hashes


def _checked_spec(member: LoadedPolicy, role: str, place: Place, scales: Sequence[Scale]) -> ModelSpec:
    """What `model.json` says of a role's model, if that may serve."""
    uri, spec, kinds = Store.at(place).uri, read_spec(place), member.roles[role]
    if spec.kind not in kinds:
        wanted = "' or '".join(kinds)
        raise CheckpointError(f"the role '{role}' needs a model of kind '{wanted}'", found=spec.kind, where=uri)
    for found, rule in scales:
        if found != spec.channels:
            raise CheckpointError(
                f"this generator was trained on channels {', '.join(spec.channels)}",
                found=", ".join(found), where=uri, next_step="ingest these channels, or train another generator",
            )  # fmt: skip
        check_rule(spec, rule, uri)
    asked = member.models[role].sha256 if role in member.models else None
    if asked and asked != spec.sha256:
        raise CheckpointError(f"the policy asks for weights {asked}", found=spec.sha256, where=uri)
    return spec
