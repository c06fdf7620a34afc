"""A training state that was damaged is passed over for the good one before it; a damaged checkpoint is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from builders import write_checkpoint

from augengine.diffusion.checkpoint import damage
from augengine.errors import RunError
from augengine.io.run_lock import RunLock
from augengine.io.store import Store
from augengine.train import state
from augengine.train.local_state import LAST, LocalState
from augengine.train.run import train


def saved(out: Path, *steps: int) -> LocalState:
    local = LocalState(Store(out))
    for step in steps:
        folder = out.parent / f"made-{step}"
        folder.mkdir()
        (folder / state.PROGRESS).write_text(json.dumps({"step": step}))
        (folder / "weights").write_bytes(bytes(100))
        state.seal(folder)
        local.save(folder, step)
    return local


def taken(local: LocalState, into: Path) -> tuple[int | None, list[str]]:
    into.mkdir()
    there, wrong = local.load(into)
    return json.loads((into / state.PROGRESS).read_text())["step"] if there else None, wrong


@pytest.mark.parametrize("file", ["weights", state.PROGRESS, state.SUMS])
def test_the_good_state_before_a_damaged_one_is_taken_and_named(tmp_path: Path, file: str) -> None:
    out = tmp_path / "out"
    local = saved(out, 1, 2, 3)
    assert sorted(p.name for p in (out / "state").glob("local-*")) == ["local-0000002", "local-0000003"]
    assert taken(local, tmp_path / "a") == (3, [])
    path = out / "state/local-0000003" / file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    step, (wrong,) = taken(local, tmp_path / "b")
    assert step == 2
    assert "local-0000003" in wrong
    (out / "state/local-0000002/weights").unlink()
    assert taken(local, tmp_path / "c")[0] is None


def test_a_damaged_list_of_states_does_not_hide_them(tmp_path: Path) -> None:
    out = tmp_path / "out"
    local = saved(out, 1, 2)
    (out / LAST).write_text('{"folders": ["../../elsewhere"]}')
    assert taken(local, tmp_path / "a") == (2, [])
    (out / LAST).write_text("{")
    assert taken(local, tmp_path / "b") == (2, [])
    local.remove()
    assert not list((out / "state").glob("local-*"))


def test_a_damaged_checkpoint_is_told(tmp_path: Path) -> None:
    uri = write_checkpoint(tmp_path)
    assert damage(uri) is None
    for name in ("model.safetensors", "model.json"):
        content = (tmp_path / name).read_bytes()
        place = content.index(b"engine_version") + 20 if name == "model.json" else len(content) - 9
        (tmp_path / name).write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        assert damage(uri) is not None
        (tmp_path / name).write_bytes(content)


def test_two_trainings_do_not_share_a_folder(tmp_path: Path) -> None:
    from test_train_run import recipe

    with RunLock(Store(tmp_path)), pytest.raises(RunError, match="another job is writing"):
        train(recipe(), str(tmp_path / "data"), str(tmp_path))


def test_a_state_that_a_killed_process_left_half_written_goes_with_the_others(tmp_path: Path) -> None:
    out = Store(str(tmp_path / "run"))
    local = LocalState(out)
    (tmp_path / "new").mkdir()
    (tmp_path / "new/file").write_bytes(b"1")
    local.save(tmp_path / "new", 5)
    out.write("state/local-0000009/ema.safetensors", b"half")  # named by nobody
    local.remove()
    assert not out.sizes("state")
