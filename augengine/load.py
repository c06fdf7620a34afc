"""A policy file in; the validated policy, or mix of policies, with its edits, their parameters and the digest out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from augengine import bundled
from augengine.bundled import known, policy_file
from augengine.edits import EDITS
from augengine.edits.chain import Step
from augengine.errors import ConfigError
from augengine.gates import MEASURES, complete
from augengine.policy.refs import resolve_refs
from augengine.policy.spec import Chain, EditSpec, GateSpec, Mix, ModelRef, Policy, StepSpec, policy_digest
from augengine.records import Acquisition
from augengine.rng import derive, digest
from augengine.yaml_config import Document, Path_, Strict, unknown_name

STEP_KEYS = ("edit", "params", "models", "sampler")


@dataclass(frozen=True)
class LoadedPolicy:
    """Everything that decides an output row, apart from the model weights."""

    policy: Policy | Chain
    steps: tuple[Step, ...]
    digest: str

    @property
    def name(self) -> str:
        """Written to every row."""
        return self.policy.name

    @property
    def edit_name(self) -> str:
        """The edits' names, in order."""
        return "+".join(step.edit.name for step in self.steps)

    @property
    def roles(self) -> dict[str, tuple[str, ...]]:
        """Role to the kinds of model that serve; in a chain the step's label stands before the edit's role."""
        return {step.named(role): kinds for step in self.steps for role, kinds in step.edit.MODELS.items()}

    @property
    def models(self) -> dict[str, ModelRef]:
        """What the policy itself says of the models, by role."""
        specs = zip(self.steps, _specs(self.policy), strict=True)
        return {step.named(role): model for step, spec in specs for role, model in spec.models.items()}

    def ref(self, role: str) -> str | None:
        """The checkpoint that the policy itself names for a role."""
        return self.models[role].ref if role in self.models else None

    @property
    def gates(self) -> dict[str, Sequence[GateSpec]]:
        """All gates, by the label of the step that they judge; those of the whole row under ""."""
        return {"": self.policy.gates} | {step.label: step.gates for step in self.steps if step.gates}

    def takes(self, row: Mapping[str, Any]) -> bool:
        """True if the policy's `select` takes a row of a shard: its metadata (`read_metadata`), or the whole row."""
        select = self.policy.select
        asked = select.labelled is not None  # or the row need not say it
        labelled = asked and (row["labelled"] if "labelled" in row else row["label"] is not None)
        return select.takes(row["split"], Acquisition(**row["acquisition"]), labelled)

    @property
    def plugins(self) -> dict[str, str]:
        """Package → version of all that installed packages add to what decides a row: edits and gates."""
        found: dict[str, str] = {}
        for step in self.steps:
            found |= EDITS.made_by(step.edit.name)
        for gate in (gate for gates in self.gates.values() for gate in gates):
            found |= MEASURES.made_by(gate.name)
        return dict(sorted(found.items()))

    def run_digest(self, models: Mapping[str, str]) -> str:
        """Digest of policy, model weights (role → sha256) and versions of plug-ins; part of every output id.

        A plug-in counts here, as weights do, and not in the policy's own digest: that one says what the file asks
        for, and seeds follow from it, so that two versions of a plug-in make different rows of the same draws.
        """
        return digest(self.digest, dict(models), *([self.plugins] if self.plugins else []))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON; `from_dict` makes it again."""
        return self.policy.model_dump(mode="json")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> LoadedPolicy:
        """A policy that was validated before."""
        policy = (Chain if "edits" in values else Policy).model_validate(values)
        return cls.of(policy, [EDITS.find(spec.edit).Params.model_validate(spec.params) for spec in _specs(policy)])

    @classmethod
    def of(cls, policy: Policy | Chain, params: Sequence[Strict]) -> LoadedPolicy:
        """Policy and parameters (of each step) with defaults filled in, so that equal behaviour is equal text."""
        texts = [p.model_dump(mode="json", by_alias=True) for p in params]
        gates = [complete(gate) for gate in policy.gates]
        if isinstance(policy, Policy):
            filled: Policy | Chain = policy.model_copy(update={"params": texts[0], "gates": gates})
        else:
            edits = [
                step.model_copy(update={"params": text, "gates": [complete(gate) for gate in step.gates]})
                for step, text in zip(policy.edits, texts, strict=True)
            ]
            filled = policy.model_copy(update={"edits": edits, "gates": gates})
        return cls(filled, _steps(filled, params), policy_digest(filled))


@dataclass(frozen=True)
class Mixture:
    """What a run does: one policy (`mix` is None), or several that share the rows (written out in `mix`).

    Whatever is said per model (`by_member`) is nested by the members' names; `plain` drops that level where there is
    no mix.
    """

    members: tuple[LoadedPolicy, ...]
    mix: Mix | None = None

    @property
    def name(self) -> str:
        """Of the mix, or of its only policy."""
        return self.members[0].name if self.mix is None else self.mix.name

    @property
    def per_input(self) -> int:
        """Rows per selected input."""
        return (self.members[0].policy if self.mix is None else self.mix).output.per_input

    @property
    def digest(self) -> str:
        """Of everything that decides the rows: the members' digests, their shares and how they are drawn."""
        if self.mix is None:
            return self.members[0].digest
        shares = [[m.digest, spec.share] for m, spec in zip(self.members, self.mix.mix, strict=True)]
        return digest(self.mix.model_dump(mode="json", exclude={"mix"}), shares)

    @property
    def plugins(self) -> dict[str, str]:
        """Package → version of the members' plug-ins."""
        return dict(sorted(item for member in self.members for item in member.plugins.items()))

    def run_digest(self, by_member: Mapping[str, Mapping[str, str]]) -> str:
        """Digest of policies, model weights and versions of plug-ins."""
        return digest(self.digest, self.plain(by_member), *([self.plugins] if self.plugins else []))

    def plain(self, by_member: Mapping[str, Any]) -> Any:
        """What is known by member, as one value if there is but one policy."""
        return by_member[self.name] if self.mix is None else dict(by_member)

    def by_member(self, plain: Any) -> dict[str, Any]:
        """Inverse of `plain`."""
        return {self.name: plain} if self.mix is None else plain

    def named(self, member: LoadedPolicy, text: str, joint: str = ".") -> str:
        """A role of a member, or what is said of it, as the whole run calls it."""
        return text if self.mix is None else f"{member.name}{joint}{text}"

    def member(self, name: str) -> LoadedPolicy:
        """A policy by its name."""
        return next(m for m in self.members if m.name == name)

    def takes(self, row: Mapping[str, Any]) -> bool:
        """True if any member's `select` takes a row with these metadata."""
        return any(m.takes(row) for m in self.members)

    def drawn(self, row: Mapping[str, Any], replicate: int) -> LoadedPolicy | None:
        """The policy that makes this replicate of a row: one of those that select it, with chances as their shares."""
        takers = [n for n, member in enumerate(self.members) if member.takes(row)]
        if self.mix is None or len(takers) < 2:
            return self.members[takers[0]] if takers else None
        shares = [self.mix.mix[n].share for n in takers]
        place = derive(self.mix.seed, row["sample_id"], replicate) / 2**63 * sum(shares)
        for n, share in zip(takers, shares, strict=True):
            place -= share
            if place < 0:
                return self.members[n]
        return self.members[takers[-1]]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON that holds the members, too; `from_dict` makes it again."""
        return self.members[0].to_dict() if self.mix is None else self.mix.model_dump(mode="json")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Mixture:
        """A policy or mix that was validated before."""
        if "mix" not in values:
            return cls((LoadedPolicy.from_dict(values),))
        mix = Mix.model_validate(values)
        return cls(tuple(LoadedPolicy.from_dict(member["policy"]) for member in values["mix"]), mix)


def load_policy(path: str | Path) -> LoadedPolicy:
    """Read and validate a policy of one edit or a chain: a file, or a name that ships with augengine.

    Raises:
        ConfigError: with `file:line`, the rule, the value found and the nearest valid name.
    """
    document = Document.read(policy_file(path))
    if "mix" in document.data:
        raise ConfigError("this is a mix of policies, not one policy", where=document.where(["mix"]))
    return _policy(document, document.data, ())


def load_mixture(path: str | Path, overrides: Sequence[str] = ()) -> Mixture:
    """As `load_policy`, of a policy or a mix of policies, after `overrides` (`key.of.it=YAML`).

    Raises:
        ConfigError: as `load_policy`.
    """
    file = policy_file(path)
    document = Document.read(file)
    for assignment in overrides:
        document.override(assignment)
    if "mix" not in document.data:
        return Mixture((_policy(document, document.data, ()),))
    mix = document.validate(Mix)
    members: list[LoadedPolicy] = []
    for n, spec in enumerate(mix.mix):
        at = ("mix", n, "policy")
        where = document.where(at)
        member = (
            _policy(document, spec.policy, at)
            if isinstance(spec.policy, dict)
            else load_policy(_existing(file.parent / spec.policy, spec.policy, where))
        )
        if member.policy.output.per_input != 1:
            raise ConfigError(
                "per_input of a mix stands in the mix, and is 1 in its members",
                found=f"'{member.name}' has {member.policy.output.per_input}",
                where=where,
                next_step="set output.per_input in the mix",
            )
        if member.name in [m.name for m in members]:
            raise ConfigError("policies of a mix have different names", found=member.name, where=where)
        members.append(member)
    written = [spec.model_copy(update={"policy": m.to_dict()}) for m, spec in zip(members, mix.mix, strict=True)]
    return Mixture(tuple(members), mix.model_copy(update={"mix": written}))


def _existing(path: Path, text: str, where: str) -> Path:
    if path.is_file():
        return path
    if text in known(bundled.POLICIES):
        return policy_file(text)
    valid = [p.name for p in path.parent.glob("*.yaml")] + known(bundled.POLICIES)
    raise unknown_name("policy file", text, valid, where)


def _policy(document: Document, data: dict[str, Any], at: Path_) -> LoadedPolicy:
    """Validate one policy that stands at `at` in the file."""
    chain = "edits" in data
    if chain:
        _expand(document, data, at)
    resolve_refs(document, data, at)
    policy = document.validate(Chain, data, at) if chain else document.validate(Policy, data, at)
    if not chain and "params" not in data:
        raise ConfigError("'params' is required", where=document.where(at), next_step="add the key")
    _check_gates(document, data, policy.gates, at)
    params = []
    for n, spec in enumerate(_specs(policy)):
        here: Path_ = (*at, "edits", n) if chain else at
        edit = EDITS.find(spec.edit, document.where((*here, "edit")))
        for role in spec.models:
            if role not in edit.MODELS:
                raise unknown_name("model role", role, list(edit.MODELS), document.where((*here, "models", role)))
        params.append(document.validate(edit.Params, spec.params, (*here, "params")))
        if isinstance(spec, StepSpec):
            _check_gates(document, data["edits"][n], spec.gates, here)
    return LoadedPolicy.of(policy, params)


def _expand(document: Document, data: dict[str, Any], at: Path_) -> None:
    """Write out steps that are a bare name or state no parameters; refuse what belongs to a step."""
    for key in STEP_KEYS:
        if key in data:
            raise ConfigError(
                f"with 'edits', '{key}' belongs to its steps",
                where=document.where((*at, key)),
                next_step="move it into the step",
            )
    if isinstance(data["edits"], list):
        steps = [{"edit": step} if isinstance(step, str) else step for step in data["edits"]]
        data["edits"] = [{"params": {}, **step} if isinstance(step, dict) else step for step in steps]


def _check_gates(document: Document, data: dict[str, Any], gates: Sequence[GateSpec], at: Path_) -> None:
    for n, gate in enumerate(gates):
        measure = MEASURES.find(gate.name, document.where((*at, "gates", n, "name")))
        data["gates"][n].setdefault("options", {})  # so that an option that is missing has a place in the file
        options: Path_ = (*at, "gates", n, "options")
        for name, ref in document.validate(measure, gate.options, options).refs().items():
            if ref.ref is None and measure.model_fields[name].is_required():
                raise ConfigError(
                    f"gate '{gate.name}' needs {name}.ref",
                    where=document.where((*options, name, "ref")),
                    next_step="set it to a folder",
                )


def _specs(policy: Policy | Chain) -> Sequence[EditSpec]:
    return [policy] if isinstance(policy, Policy) else policy.edits


def _steps(policy: Policy | Chain, params: Sequence[Strict]) -> tuple[Step, ...]:
    """A step is labelled by its edit; where that occurs twice, by its number and edit."""
    if isinstance(policy, Policy):
        return (Step(EDITS[policy.edit], params[0], policy.sampler),)
    times = Counter(spec.edit for spec in policy.edits)
    return tuple(
        Step(
            EDITS[spec.edit],
            own,
            spec.sampler,
            spec.edit if times[spec.edit] == 1 else f"{n}.{spec.edit}",
            n,
            tuple(spec.gates),
        )
        for n, (spec, own) in enumerate(zip(policy.edits, params, strict=True), 1)
    )
