"""Policies: strict validation with file:line, and a digest that names what the rows depend on."""

from __future__ import annotations

from pathlib import Path

import pytest

from augengine.errors import ConfigError
from augengine.load import LoadedPolicy, load_mixture, load_policy

POLICY = """\
version: 1
name: test
edit: acquisition
seed: 3
select: {split: train, where: {manufacturer: SIEMENS}}
params:
  method: structure
  target:
    empirical: {from: samples, where: {manufacturer: GE MEDICAL SYSTEMS}}
models:
  generator: {ref: somewhere, sha256: null}
sampler: {solver: ddim, steps: 5, strength: 1.0, guidance: 1.0}
gates:
  - {name: changed, min: 0.01}
output: {per_input: 2, retries: 1, max_reject_rate: 0.5, micro_batch: 4}
"""


def load(tmp_path: Path, text: str) -> LoadedPolicy:
    path = tmp_path / "policy.yaml"
    path.write_text(text)
    return load_policy(path)


@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        ("steps: 5", "stepz: 5", 12, "did you mean 'steps'"),
        ("edit: acquisition", "edit: aquisition", 3, "did you mean 'acquisition'"),
        ("name: changed", "name: chnaged", 14, "did you mean 'changed'"),
        ("strength: 1.0", "strength: 7", 12, "less than or equal to 1"),
        ("method: structure", "method: magic", 7, "found 'magic'"),
        ("{manufacturer: SIEMENS}", "{vendor: SIEMENS}", 5, "no acquisition parameter 'vendor'"),
        ("empirical: {from", "empirical: {form", 9, "did you mean 'from'"),
        ("min: 0.01", "min: 2, max: 1", 14, "can never pass"),
        (", min: 0.01", "", 14, "needs min or max"),
        ("  generator:", "  generatr:", 11, "did you mean 'generator'"),
        ("seed: 3", "seed: 3\nseed: 4", 5, "a key may stand once"),
        ("version: 1", "version: 2", 1, "found 2"),
        ("seed: 3", "seed: [", 6, "not valid YAML"),
    ],
)
def test_mistakes_are_named_with_their_line(tmp_path: Path, old: str, new: str, line: int, says: str) -> None:
    assert old in POLICY
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, POLICY.replace(old, new, 1))
    message = str(caught.value)
    assert f"policy.yaml:{line}:" in message
    assert says in message
    assert "\n" not in message


def test_missing_key_and_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'gates' is required"):
        load(tmp_path, POLICY.replace("gates:\n  - {name: changed, min: 0.01}\n", ""))
    with pytest.raises(ConfigError, match="no such configuration file"):
        load_policy(tmp_path / "absent.yaml")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("seed: 3", "seed: 4"),
        ("steps: 5", "steps: 6"),
        ("manufacturer: GE MEDICAL SYSTEMS", "manufacturer: SIEMENS"),
        ("method: structure", "method: inversion"),
        ("min: 0.01", "min: 0.02"),
        ("per_input: 2", "per_input: 3"),
        ("micro_batch: 4", "micro_batch: 8"),
    ],
)
def test_behaviour_changes_the_digest(tmp_path: Path, old: str, new: str) -> None:
    assert load(tmp_path, POLICY).digest != load(tmp_path, POLICY.replace(old, new, 1)).digest


@pytest.mark.parametrize(
    ("old", "new"), [("seed: 3", "seed: 3   # a comment"), ("ref: somewhere", "ref: elsewhere"), ("{ref:", "{  ref:")]
)
def test_comments_and_paths_do_not_change_the_digest(tmp_path: Path, old: str, new: str) -> None:
    assert load(tmp_path, POLICY).digest == load(tmp_path, POLICY.replace(old, new, 1)).digest


def test_a_policy_survives_the_trip_to_a_worker(tmp_path: Path) -> None:
    loaded = load(tmp_path, POLICY)
    assert LoadedPolicy.from_dict(loaded.to_dict()) == loaded


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[2] / "augengine/policies").glob("*.yaml")), ids=lambda p: p.name
)
def test_shipped_policies_are_valid(path: Path) -> None:
    assert all(member.policy.gates for member in load_mixture(path).members)
