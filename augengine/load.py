"""A policy file in; the validated policy, its edit, the edit's parameters and the digest out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from augengine.edits import EDITS
from augengine.edits.base import Edit
from augengine.errors import ConfigError
from augengine.gates import MEASURES, complete
from augengine.policy.spec import Policy, policy_digest
from augengine.rng import digest
from augengine.yaml_config import Document, Strict, unknown_name


@dataclass(frozen=True)
class LoadedPolicy:
    """Everything that decides an output row, apart from the model weights."""

    policy: Policy
    params: Strict
    digest: str

    @property
    def edit(self) -> Edit:
        """The edit's implementation."""
        return EDITS[self.policy.edit]

    def run_digest(self, models: dict[str, str]) -> str:
        """Digest of policy and model weights (role → sha256); part of every output id."""
        return digest(self.digest, models)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON; `from_dict` makes it again."""
        return self.policy.model_dump(mode="json")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> LoadedPolicy:
        """A policy that was validated before."""
        policy = Policy.model_validate(values)
        return cls.of(policy, EDITS[policy.edit].Params.model_validate(policy.params))

    @classmethod
    def of(cls, policy: Policy, params: Strict) -> LoadedPolicy:
        """Policy and parameters with defaults filled in, so that equal behaviour is equal text."""
        gates = [complete(gate) for gate in policy.gates]
        filled = policy.model_copy(update={"params": params.model_dump(mode="json", by_alias=True), "gates": gates})
        return cls(filled, params, policy_digest(filled))


def load_policy(path: str | Path) -> LoadedPolicy:
    """Read and validate a policy.

    Raises:
        ConfigError: with `file:line`, the rule, the value found and the nearest valid name.
    """
    document = Document.read(path)
    policy = document.validate(Policy)
    if policy.edit not in EDITS:
        raise unknown_name("edit", policy.edit, list(EDITS), document.where(["edit"]))
    edit = EDITS[policy.edit]
    for i, gate in enumerate(policy.gates):
        if gate.name not in MEASURES:
            raise unknown_name("gate", gate.name, list(MEASURES), document.where(["gates", i, "name"]))
        document.validate(MEASURES[gate.name], gate.options, ("gates", i, "options"))
    for role in policy.models:
        if role not in edit.MODELS:
            raise unknown_name("model role", role, list(edit.MODELS), document.where(["models", role]))
    if "params" not in document.data:
        raise ConfigError("'params' is required", where=document.where([]), next_step="add the key")
    params = document.validate(edit.Params, policy.params, ("params",))
    return LoadedPolicy.of(policy, params)
