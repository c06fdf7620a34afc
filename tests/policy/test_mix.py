"""Mixes: every requested row goes to one member, drawn from content by share; mistakes are named with their line."""

from __future__ import annotations

from pathlib import Path

import pytest

from augengine.errors import ConfigError
from augengine.load import Mixture, load_mixture, load_policy
from augengine.records import Acquisition

MEMBER = """\
version: 1
name: NAME
edit: acquisition
select: {split: train, where: WHERE}
params: {target: {empirical: {}}}
gates: [{name: changed, min: 0.0}]
"""
MIX = """\
version: 1
name: both
seed: 3
mix:
  - {policy: a.yaml, share: 0.7}
  - {policy: b.yaml, share: 0.2}
  - {policy: siemens.yaml, share: 0.1}
output: {per_input: 2}
"""


def load(tmp_path: Path, text: str = MIX) -> Mixture:
    for name, where in {"a": "{}", "b": "{}", "siemens": "{manufacturer: SIEMENS}"}.items():
        (tmp_path / f"{name}.yaml").write_text(MEMBER.replace("NAME", name).replace("WHERE", where))
    (tmp_path / "mix.yaml").write_text(text)
    return load_mixture(tmp_path / "mix.yaml")


def row(n: int, manufacturer: str = "SIEMENS", split: str = "train") -> dict[str, object]:
    return {"sample_id": f"S{n:05d}", "split": split, "acquisition": Acquisition(manufacturer).to_dict()}


def dealt(mixture: Mixture, manufacturer: str, rows: int = 4000) -> dict[str, float]:
    """Share of each member among many rows."""
    names = [member.name for n in range(rows) if (member := mixture.drawn(row(n, manufacturer), 0)) is not None]
    assert len(names) == rows
    return {name: names.count(name) / rows for name in sorted(set(names))}


def test_rows_are_dealt_by_share_among_the_members_that_select_them(tmp_path: Path) -> None:
    mixture = load(tmp_path)
    # Four standard errors of a share among 4000 rows: 0.03 at most.
    assert dealt(mixture, "SIEMENS") == pytest.approx({"a": 0.7, "b": 0.2, "siemens": 0.1}, abs=0.03)
    assert dealt(mixture, "GE MEDICAL SYSTEMS") == pytest.approx({"a": 0.7 / 0.9, "b": 0.2 / 0.9}, abs=0.03)
    assert mixture.drawn(row(1, split="test"), 0) is None


def test_a_deal_follows_from_seed_row_and_replicate_alone(tmp_path: Path) -> None:
    mixture, other = load(tmp_path), load(tmp_path, MIX.replace("seed: 3", "seed: 4"))
    again = load(tmp_path)

    def deal(mixture: Mixture, replicate: int) -> list[str]:
        return [m.name for n in range(200) if (m := mixture.drawn(row(n), replicate)) is not None]

    assert deal(mixture, 0) == deal(again, 0)
    assert deal(mixture, 0) != deal(mixture, 1)
    assert deal(mixture, 0) != deal(other, 0)


def test_a_slightly_other_share_moves_few_rows(tmp_path: Path) -> None:
    mixture = load(tmp_path)
    other = load(tmp_path, MIX.replace("0.7", "0.69").replace("0.2}", "0.21}"))
    moved = sum(mixture.drawn(row(n), 0).name != other.drawn(row(n), 0).name for n in range(4000))  # type: ignore[union-attr]
    assert 0 < moved / 4000 < 0.02


def test_a_mix_survives_the_trip_to_a_worker(tmp_path: Path) -> None:
    mixture = load(tmp_path)
    again = Mixture.from_dict(mixture.to_dict())
    assert again == mixture
    assert (again.digest, again.per_input) == (mixture.digest, 2)


def test_members_may_be_written_out(tmp_path: Path) -> None:
    mixture = load(tmp_path)
    assert mixture.mix is not None
    text = MIX.replace(
        "{policy: a.yaml, share: 0.7}",
        "policy:\n      "
        + MEMBER.replace("NAME", "a").replace("WHERE", "{}").strip().replace("\n", "\n      ")
        + "\n    share: 0.7",
    )
    assert load(tmp_path, text).digest == mixture.digest
    with pytest.raises(ConfigError, match=r"mix.yaml:11: unknown gate 'chnged'; did you mean 'changed'"):
        load(tmp_path, text.replace("changed", "chnged"))


@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        ("share: 0.7", "shares: 0.7", 5, "did you mean 'share'"),
        ("share: 0.7", "share: 0.8", 4, "shares sum to 1, not 1.1"),
        ("share: 0.7", "share: 1.7", 5, "less than 1"),
        ("a.yaml", "aa.yaml", 5, "did you mean 'a.yaml'"),
        ("b.yaml", "a.yaml", 6, "policies of a mix have different names; found a"),
        ("per_input: 2", "per_input: 2, retries: 1", 8, "unknown key 'retries'"),
        ("seed: 3", "sead: 3", 3, "did you mean 'seed'"),
    ],
)
def test_mistakes_are_named_with_their_line(tmp_path: Path, old: str, new: str, line: int, says: str) -> None:
    assert old in MIX
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, MIX.replace(old, new, 1))
    assert f"mix.yaml:{line}:" in str(caught.value)
    assert says in str(caught.value)


def test_a_members_own_mistake_and_number_of_rows_are_refused(tmp_path: Path) -> None:
    load(tmp_path)
    (tmp_path / "c.yaml").write_text(MEMBER.replace("NAME", "c").replace("WHERE", "{}") + "output: {per_input: 3}\n")
    text = MIX.replace("b.yaml", "c.yaml")
    with pytest.raises(ConfigError, match=r"mix.yaml:6: per_input of a mix stands in the mix.* found 'c' has 3"):
        load(tmp_path, text)
    (tmp_path / "c.yaml").write_text(MEMBER.replace("WHERE", "{}").replace("edit:", "edti:"))
    with pytest.raises(ConfigError, match=r"c.yaml:3: unknown key 'edti'; did you mean 'edit'"):
        load(tmp_path, text)
    with pytest.raises(ConfigError, match=r"mix.yaml:4: this is a mix of policies, not one policy"):
        load_policy(tmp_path / "mix.yaml")
