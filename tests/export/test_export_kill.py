"""An export that is killed, at any write or any moment, ends in the same folder as one that is not."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from export_cohorts import augmented, cohort, exported, slice_cohort, volume

from augengine.export.monai import Monai
from augengine.export.webdataset import WebDataset
from augengine.io.store import Store

KILLS = int(os.environ.get("AUGENGINE_EXPORT_KILLS", "3"))  # 20 and more outside CI: each starts Python anew
TESTS = Path(__file__).parents[1]
RUN = """
from pathlib import Path
from export_cohorts import exported
from augengine.export.monai import Monai
from augengine.io.store import Store
root = Path({root!r})
print("ready", flush=True)
exported(Monai(), (Store(str(root / "data")), Store(str(root / "run"))), {out!r})
"""


class Killed(BaseException):
    """Stands for the end of the process: nothing catches it."""


def files_of(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("target", [Monai(), WebDataset(readers=1)], ids=lambda t: t.name)
def test_death_at_any_write_or_removal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: Monai, after: bool
) -> None:
    rows = [volume(n, shape=(6, 5, 3)) for n in (0, 3)]
    stores = cohort(tmp_path, rows, [augmented(rows[0])], per_file=1)
    exported(target, stores, tmp_path / "whole" / "out")
    expected = files_of(tmp_path / "whole" / "out")
    for n in range(1, 1000):
        out, died = tmp_path / f"killed{n}" / "out", False
        with monkeypatch.context() as patch:
            left = [n]
            for name in ("write", "create", "remove"):
                patch.setattr(Store, name, dying(getattr(Store, name), left, after))
            try:
                exported(target, stores, out)
            except Killed:
                died = True
        if (out / "export.json").exists():  # it says that the folder is whole
            assert files_of(out).items() >= expected.items()
        (out / ".augengine" / "_lock.json").unlink(missing_ok=True)  # its holder, this process, is still there
        exported(target, stores, out)
        assert files_of(out) == expected, n
        if not died:
            break
    assert n > 15


def dying(act: Callable[..., Any], left: list[int], after: bool) -> Callable[..., Any]:
    """A method of the store that dies the n-th time, before or after it did what it is there for."""

    def method(self: Store, *args: Any) -> Any:
        left[0] -= 1
        last = left[0] == 0  # before another thread comes here
        if last and not after:
            raise Killed
        found = act(self, *args)
        if last:
            raise Killed
        return found

    return method


@pytest.mark.slow
def test_kills_at_random(tmp_path: Path) -> None:
    stores = slice_cohort(tmp_path)
    exported(Monai(), stores, tmp_path / "whole" / "out")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)])}
    draw, kills, folders, out = random.Random(5), 0, 0, tmp_path
    while kills < KILLS or not (out / "export.json").exists():
        if not folders or (out / "export.json").exists():
            folders += 1
            out = tmp_path / f"killed{folders}" / "out"
        code = RUN.format(root=str(tmp_path), out=str(out))
        process = subprocess.Popen(
            [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        if kills < KILLS:
            time.sleep(draw.uniform(0, 0.5))
            process.send_signal(signal.SIGKILL)
        _, errors = process.communicate()
        kills += process.returncode == -signal.SIGKILL
        assert process.returncode in (0, -signal.SIGKILL), errors.decode()[-2000:]
    assert kills == KILLS
    for n in range(1, folders + 1):
        assert files_of(tmp_path / f"killed{n}" / "out") == files_of(tmp_path / "whole" / "out")
