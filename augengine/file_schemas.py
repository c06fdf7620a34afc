"""What policies, recipes and protocols may say in; JSON Schemas out, by which editors complete and check files."""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import Any, Literal

from pydantic import BaseModel, Field, TypeAdapter, create_model

from augengine.downstream.protocols import Protocol
from augengine.edits import EDITS
from augengine.gates import MEASURES
from augengine.policy.spec import Base, Chain, EditSpec, GateSpec, Member, Mix, Policy, StepSpec
from augengine.train.config import Recipe

DIALECT = "https://json-schema.org/draft/2020-12/schema"
# Types that are made here, of values: no type checker knows them.
_List: Any = list
_Only: Any = Literal


def policy_schema() -> dict[str, Any]:
    """Of policies of one edit, chains and mixes: parameters by edit, and options by gate."""
    gate = _any([_gate(name) for name in MEASURES])
    gates: Any = (_List[gate], Field(min_length=1))
    steps = [_edit(f"Step {name}", StepSpec, name, gates=(_List[gate], Field(default_factory=list))) for name in EDITS]
    policies = [_edit(f"Policy {name}", Policy, name, gates=gates) for name in EDITS]
    step = _any([*steps, _Only[tuple(EDITS)]])
    chain = create_model("Chain", __base__=Chain, edits=(_List[step], Field(min_length=2)), gates=gates)
    one = _any([*policies, chain])
    member = create_model("Member", __base__=Member, policy=(str | one, ...))
    mix = create_model("Mix", __base__=Mix, mix=(_List[member], Field(min_length=2)))
    return _document("augengine policy", TypeAdapter(_any([*policies, chain, mix])).json_schema())


def recipe_schema() -> dict[str, Any]:
    """Of training recipes."""
    return _document("augengine recipe", Recipe.model_json_schema())


def protocol_schema() -> dict[str, Any]:
    """Of evaluation protocols."""
    return _document("augengine protocol", Protocol.model_json_schema())


SCHEMAS = {"policy": policy_schema, "recipe": recipe_schema, "protocol": protocol_schema}


def _gate(name: str) -> type[BaseModel]:
    options = MEASURES[name]
    needed = any(field.is_required() for field in options.model_fields.values())
    default: Any = ... if needed else Field(default_factory=dict)
    return create_model(f"Gate {name}", __base__=GateSpec, name=(_Only[name], ...), options=(options, default))


def _edit(title: str, base: type[EditSpec] | type[Base], name: str, **fields: Any) -> type[BaseModel]:
    """A policy or a step of one edit, with that edit's parameters."""
    params = EDITS[name].Params
    needed = base is Policy or any(field.is_required() for field in params.model_fields.values())
    own: Any = (params, ... if needed else Field(default_factory=dict))
    return create_model(title, __base__=base, edit=(_Only[name], ...), params=own, **fields)


def _any(kinds: list[Any]) -> Any:
    return reduce(or_, kinds)


def _document(title: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"$schema": DIALECT, "title": title, **{key: value for key, value in schema.items() if key != "title"}}
