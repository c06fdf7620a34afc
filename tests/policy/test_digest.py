"""Digests: any field that decides a row changes the policy's digest, whatever its model; paths and limits do not.

The fields are found by walking the models of real policies, those of every edit and gate included, so that a field of
tomorrow is tested without a line here.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from augengine.edits import EDITS
from augengine.errors import ConfigError
from augengine.gates import MEASURES
from augengine.load import LoadedPolicy, Mixture, load_mixture
from augengine.policy.spec import EditSpec, GateSpec, Member, Mix, MixOutput, ModelRef, Output

ROOT = Path(__file__).parents[2] / "augengine/policies"
LESION = {"labels": ["necrosis"]}
# What no policy of the project says.
MORE = [
    {"edits": [{"edit": "tumor_removal", "params": LESION, "models": {"generator": {"sha256": "abc"}}}] * 2},
    {
        "edit": "tumor_relocation",
        "params": {**LESION, "add": {"diameter_mm": [10, 20], "parts": [{"label": "necrosis", "share": 1}]}},
    },
    {"edit": "acquisition", "params": {"target": {"explicit": [{"echo_time_ms": 2.0}]}}},
    {
        "edit": "acquisition",
        "params": {"method": "inversion", "target": {"explicit": [{"echo_time_ms": 2.0}]}},
        "sampler": {"solver": "ddim"},
    },
    {"edit": "acquisition", "params": {"target": {"protocols": {"avanto": {"echo_time_ms": 2.0}}}}},
    {"edit": "lesion_insertion", "params": {"texture": "drawn"}},
    {
        "edit": "tumor_removal",
        "params": LESION,
        "models": {"generator": {"sha256": "abc"}},
        "gates": [
            {
                "name": name,
                "min": 0.1,
                "options": {o: {"ref": "somewhere"} for o in ("model", "reference") if o in gate.model_fields},
            }
            for name, gate in MEASURES.items()
        ],
    },
]
# They choose files or judge the run, and decide no row.
FREE = {(ModelRef, "ref"), (Output, "max_reject_rate"), (Output, "max_fail_rate")}
POOL: list[Any] = [
    True,
    False,
    1,
    2,
    3,
    0.05,
    0.2,
    0.5,
    0.9,
    1.5,
    7.0,
    100,
    "other",
    [1],
    [1, 2],
    [2, 3],
    [0.1, 0.6],
    [0.5, 3.0],
    [12.0, 14.0],
    ["oedema"],
    ["core", "rim"],
    {"flair": [0.1, 0.2]},
    {"manufacturer": "GE"},
    {"generator": {"sha256": "abc"}},
    [{"name": "duplicate", "max": 0.5}],
    [{"label": "oedema", "share": 1.0}],
    [{"echo_time_ms": 5.0}],
    {"trio": {"echo_time_ms": 5.0}},
    *EDITS,
    *MEASURES,
    {"from": "samples"},
    {"diameter_mm": [20.0, 30.0]},
    {"diameter_mm": [1, 2], "parts": [{"label": "oedema", "share": 1.0}]},
]
Place = tuple[str | int, ...]


def policies() -> list[LoadedPolicy]:
    more = [{"version": 1, "name": "more", "gates": [{"name": "duplicate", "max": 0}], **values} for values in MORE]
    written = [m for path in sorted(ROOT.glob("*.yaml")) for m in load_mixture(path).members]
    return [*written, *map(LoadedPolicy.from_dict, more)]


def fields(model: BaseModel, at: Place = ()) -> Iterator[tuple[type[BaseModel], str, Place, FieldInfo]]:
    """Every field of a model, or those of the models inside it, with its place in the policy's plain JSON."""
    for name, field in type(model).model_fields.items():
        place = (*at, field.alias or name)
        value = getattr(model, name)
        if isinstance(model, EditSpec) and name == "params":
            value = EDITS[model.edit].Params.model_validate(value)
        elif isinstance(model, GateSpec) and name == "options":
            value = MEASURES[model.name].model_validate(value)
        nested = list(inside(value, place))
        yield from nested or [(type(model), name, place, field)]


def inside(value: Any, place: Place) -> Iterator[tuple[type[BaseModel], str, Place, FieldInfo]]:
    if isinstance(value, BaseModel):
        yield from fields(value, place)
    elif isinstance(value, list | tuple):
        for n, item in enumerate(value):
            yield from inside(item, (*place, n))
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from inside(item, (*place, key))


def literals(annotation: Any) -> list[Any]:
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    return [value for part in get_args(annotation) for value in literals(part)]


def mutated(policy: LoadedPolicy, place: Place, field: FieldInfo) -> LoadedPolicy | None:
    """The policy with another value at one place, the first that is valid; None if no other one is."""
    plain = policy.to_dict()
    for value in [*literals(field.annotation), *POOL]:
        values = copy.deepcopy(plain)
        section: Any = values
        for key in place[:-1]:
            section = section[key]
        if section.get(place[-1]) == value:
            continue
        section[place[-1]] = value
        try:
            found = LoadedPolicy.from_dict(values)
        except (ValidationError, ConfigError):
            continue
        if found.to_dict() != plain:
            return found
    return None


def test_every_field_that_decides_a_row_changes_the_digest_and_no_other() -> None:
    seen: set[tuple[type[BaseModel], str]] = set()
    changed: set[tuple[type[BaseModel], str]] = set()
    for policy in policies():
        for model, name, place, field in fields(policy.policy):
            seen.add((model, name))
            if (model, name) in changed or (other := mutated(policy, place, field)) is None:
                continue
            assert (other.digest == policy.digest) == ((model, name) in FREE), place
            assert (other.run_digest({}) == policy.run_digest({})) == ((model, name) in FREE), place
            changed.add((model, name))
    fixed = {(model.__name__, name) for model, name in seen - changed}
    # One version there is; a gate without options has none, nor has an edit without parameters; targets exclude each
    # other.
    none = {("GateSpec", "options"), ("Policy", "params")}
    assert fixed == {("Policy", "version"), ("Chain", "version"), ("Target", "empirical"), *none}
    assert len(changed) > 90


def test_the_order_of_a_chain_changes_its_digest() -> None:
    chain = load_mixture(ROOT / "brats_relocation_acquisition.yaml").members[0]
    plain = chain.to_dict()
    assert LoadedPolicy.from_dict({**plain, "edits": plain["edits"][::-1]}).digest != chain.digest


def mix(**changes: Any) -> Mixture:
    """The mix of the project, with some values changed."""
    plain = load_mixture(ROOT / "brats_mix.yaml").to_dict()
    for key, value in changes.items():
        plain[key] = value(plain[key]) if callable(value) else value
    return Mixture.from_dict(plain)


def _first_policy(change: dict[str, Any]) -> Any:
    return lambda members: [{**members[0], "policy": {**members[0]["policy"], **change}}, *members[1:]]


CHANGES = {
    "name": {"name": "another"},
    "seed": {"seed": 4},
    "mix.share": {"mix": lambda members: [{**m, "share": s} for m, s in zip(members, (0.4, 0.6), strict=True)]},
    "mix.policy": {"mix": _first_policy({"seed": 99})},
    "output.per_input": {"output": {"per_input": 2}},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))
def test_every_field_of_a_mix_changes_its_digest(change: dict[str, Any]) -> None:
    assert mix(**change).digest != mix().digest


def test_the_fields_of_a_mix_are_all_tested() -> None:
    names = {
        *Mix.model_fields,
        *(f"mix.{f}" for f in Member.model_fields),
        *(f"output.{f}" for f in MixOutput.model_fields),
    }
    assert names - {"version", "mix", "output"} == set(CHANGES)


def test_paths_and_limits_of_a_member_do_not_change_the_digest_of_the_mix(tmp_path: Path) -> None:
    assert mix(mix=_first_policy({"models": {"generator": {"ref": "elsewhere"}}})).digest == mix().digest
    output = {**mix().members[0].policy.output.model_dump(), "max_reject_rate": 0.01}
    assert mix(mix=_first_policy({"output": output})).digest == mix().digest
    for path in ROOT.glob("*.yaml"):
        (tmp_path / path.name).write_text(yaml.safe_dump(yaml.safe_load(path.read_text())))
    for path in ROOT.glob("*.yaml"):  # another place and layout, and no comments
        assert load_mixture(tmp_path / path.name).digest == load_mixture(path).digest
