"""Small JSON files that the engine wrote and reads again: one that was damaged is one line that names it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from fuzz import run_files

from augengine.errors import AugengineError, DataError
from augengine.io.store import Store

DAMAGED = {
    "run": '{"data": 5, "models": {}, "device": "cpu"}',
    "lineage": "[1, 2]",
    "speed": '{"rows_per_second": "fast"}',
    "fingerprint": '"p"',
    "export": "null",
    "labels": '{"segmenter": 7}',
    "fitted": '{"segmenter": null}',
    "seconds": '{"seconds": "many"}',
    "plan": '{"protocol": {}}',
    "figures": '{"about": {"runs": ["x"]}}',
}


def put(folder: Path, kind: str, text: str) -> Callable[[], object]:
    name, _, use = run_files.FILES[kind]
    (folder / name).write_text(text)
    (folder / "policy.yaml").write_text(run_files.yaml.safe_dump(run_files._policy(), sort_keys=False))
    return lambda: use(Store(str(folder)))


@pytest.mark.parametrize("kind", sorted(run_files.FILES))
def test_whole_files_are_read(tmp_path: Path, kind: str) -> None:
    put(tmp_path, kind, run_files.json.dumps(run_files.FILES[kind][1]()))()


@pytest.mark.parametrize("kind", sorted(run_files.FILES))
@pytest.mark.parametrize("deep", [False, True])
def test_damaged_ones_are_one_line_that_names_them(tmp_path: Path, kind: str, deep: bool) -> None:
    use = put(tmp_path, kind, "[" * 100_000 if deep else DAMAGED[kind])
    with pytest.raises(AugengineError) as caught:
        use()
    assert run_files.FILES[kind][0] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_truth_value_is_no_number(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.write_json("a.json", {"seconds": True})
    with pytest.raises(DataError, match="this file says 'seconds'; found True"):
        store.read_mapping("a.json", seconds=(int, float))
    assert store.read_mapping("a.json") == {"seconds": True}
