"""A changed setting on an old folder is told as the difference, not as the whole of what stood there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from augengine.errors import RunError
from augengine.io.changes import LONGEST, told_changes
from augengine.io.commits import claim, version
from augengine.io.store import Store

SETTINGS = {
    "layout": "duke",
    "options": {"labels": None, "channels": {"t1": "*"}, "site": None},
    "preparation": {"size": 96, "percentiles": (10, 99), "drop": 1},
    "many": {str(n): n for n in range(100)},
}


def changed(**sections: dict[str, Any]) -> dict[str, Any]:
    return {
        key: {**value, **sections.get(key, {})} if isinstance(value, dict) else value for key, value in SETTINGS.items()
    }


@pytest.mark.parametrize(
    ("other", "held", "asked"),
    [
        (changed(preparation={"size": 128}), "preparation.size 96", "preparation.size 128"),
        (
            changed(preparation={"percentiles": [10, 98]}),
            "preparation.percentiles[1] 99",
            "preparation.percentiles[1] 98",
        ),
        (changed(options={"site": "Bonn"}), "options.site not set", "options.site Bonn"),
        (changed(options={"channels": {"t1": "*", "t2": "b"}}), "options.channels.t2 not set", "options.channels.t2 b"),
        (changed(preparation={"size": True}), "preparation.size 96", "preparation.size true"),
        (changed(preparation={"percentiles": [1]}), "preparation.percentiles [10,99]", "preparation.percentiles [1]"),
        (
            changed(many=dict.fromkeys("01234", -1)),
            "many.0 0, many.1 1, many.2 2 and 2 more",
            "many.0 -1, many.1 -1, many.2 -1 and 2 more",
        ),
        (SETTINGS, "", ""),
    ],
)
def test_only_what_differs_is_told(other: Any, held: str, asked: str) -> None:
    assert told_changes(SETTINGS, other) == (held, asked)


def test_true_is_not_one_and_long_values_are_cut() -> None:
    assert told_changes({"a": 1}, {"a": True}) == ("a 1", "a true")
    assert told_changes("x" * 1000, "y")[0] == "x" * LONGEST + "…"


def test_refusals_name_the_setting(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "out"))
    claim(store, SETTINGS)
    with pytest.raises(RunError) as refusal:
        claim(store, changed(preparation={"size": 128}))
    assert str(refusal.value) == (
        f"{store.uri}: this output folder holds a run with another preparation; found size 96; "
        "choose another --out (this run has size 128)"
    )
    with pytest.raises(RunError, match=r"found size 96; .*--new-version \(this run has size 128"):
        version(store, changed(preparation={"size": 128}))


def test_a_digest_is_told_by_the_file_of_what_was_digested(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "out"))
    claim(store, {"digest": "abc"})
    told = {"digest": ("policy.yaml", {"seed": 4, "gates": []})}
    with pytest.raises(RunError, match=r"found abc; .*this run has def"):
        version(store, {"digest": "def"}, digested=told)
    store.write("policy.yaml", b"seed: 3\ngates: []\n")
    with pytest.raises(RunError, match=r"another digest; found seed 3; .*\(this run has seed 4\)"):
        version(store, {"digest": "def"}, digested=told)
    store.write("policy.yaml", b"\xff: [")
    with pytest.raises(RunError, match=r"found abc; .*this run has def"):
        version(store, {"digest": "def"}, digested=told)
