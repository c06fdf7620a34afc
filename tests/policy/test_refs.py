"""Paths of models in a policy: from the policy's folder; what lies only in the working directory is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from augengine.errors import ConfigError
from augengine.load import LoadedPolicy, load_mixture, load_policy

GATES: list[Any] = [{"name": "changed", "min": 0}]


def written(folder: Path, ref: str | None, gate_ref: str | None = None, **values: Any) -> Path:
    folder.mkdir(exist_ok=True)
    gates = [*GATES, {"name": "residual_lesion", "max": 1, "options": {"model": {"ref": gate_ref}}}]
    policy = {
        "version": 1,
        "name": "p",
        "edit": "tumor_removal",
        "params": {"labels": ["necrosis"]},
        "models": {"generator": {"ref": ref}},
        "gates": gates if gate_ref else GATES,
    }
    path = folder / "policy.yaml"
    path.write_text(yaml.safe_dump({**policy, **values}))
    return path


def refs(loaded: LoadedPolicy) -> list[str | None]:
    return [loaded.ref("generator"), *(g.options["model"]["ref"] for g in loaded.policy.gates if "model" in g.options)]


def test_a_relative_ref_lies_beside_its_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "policies", "../models/m3", "referee")
    (tmp_path / "models/m3").mkdir(parents=True)
    expected = [str(tmp_path / "models/m3"), str(tmp_path / "policies/referee")]
    assert refs(load_policy(path)) == expected
    monkeypatch.chdir(path.parent)
    assert refs(load_policy("policy.yaml")) == expected, "wherever the command runs"
    assert load_policy(path).digest == load_policy(written(tmp_path / "elsewhere", "m", "r")).digest


@pytest.mark.parametrize("ref", ["s3://bucket/model", "memory://model", "/absolute/model", None])
def test_uris_and_absolute_paths_stay(tmp_path: Path, ref: str | None) -> None:
    assert load_policy(written(tmp_path, ref)).ref("generator") == ref


def test_what_lies_only_in_the_working_directory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "policies", "runs/m3")
    monkeypatch.chdir(tmp_path)
    assert load_policy(path).ref("generator") == str(tmp_path / "policies/runs/m3"), (
        "who reads it says that it is missing"
    )
    (tmp_path / "runs/m3").mkdir(parents=True)
    with pytest.raises(ConfigError) as error:
        load_policy(path)
    for said in (f"{path}:", str(tmp_path / "policies/runs/m3"), str(tmp_path / "runs/m3"), "working directory"):
        assert said in str(error.value)
    (tmp_path / "policies/runs/m3").mkdir(parents=True)
    assert load_policy(path).ref("generator") == str(tmp_path / "policies/runs/m3"), "the policy's folder comes first"
    path = written(tmp_path / "policies", None, "runs/referee")
    (tmp_path / "runs/referee").mkdir()
    with pytest.raises(ConfigError, match=r"policies/policy.yaml:.* a ref is relative to the folder of its policy"):
        load_policy(path)


def test_flags_mean_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "policies", None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs/m3").mkdir(parents=True)
    (loaded,) = load_mixture(path, ["models.generator.ref=runs/m3"]).members
    assert loaded.ref("generator") == str(tmp_path / "runs/m3")


def test_steps_of_chains_and_members_of_mixes_too(tmp_path: Path) -> None:
    step = {"edit": "tumor_removal", "params": {"labels": ["necrosis"]}, "models": {"generator": {"ref": "m"}}}
    gate = {"name": "residual_lesion", "max": 1, "options": {"model": {"ref": "r"}}}
    chain = {"version": 1, "name": "c", "edits": [{**step, "gates": [gate]}, "acquisition"], "gates": GATES}
    chain["edits"][1] = {"edit": "acquisition", "params": {"target": {"explicit": [{"echo_time_ms": 2.0}]}}}  # type: ignore[index]
    inner, outer = tmp_path / "inner", tmp_path / "outer"
    inner.mkdir()
    outer.mkdir()
    (inner / "chain.yaml").write_text(yaml.safe_dump(chain))
    mix = {
        "version": 1,
        "name": "m",
        "mix": [
            {"policy": "../inner/chain.yaml", "share": 0.5},
            {"policy": {"version": 1, "name": "own", "gates": GATES, **step}, "share": 0.5},
        ],
    }
    (outer / "mix.yaml").write_text(yaml.safe_dump(mix))
    first, second = load_mixture(outer / "mix.yaml").members
    assert first.ref("tumor_removal.generator") == str(inner / "m")
    assert first.steps[0].gates[0].options["model"]["ref"] == str(inner / "r")
    assert second.ref("generator") == str(outer / "m")
