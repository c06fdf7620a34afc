"""Trackers: only what is asked for, installed and configured is opened, and a restart continues its run."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from augengine.errors import ConfigError
from augengine.io.store import Store
from augengine.report.image_grid import image_grid
from augengine.train.trackers import check, trackers

PNG = image_grid([("a picture", [np.eye(8, dtype=np.uint8)])])
VARIABLES = ("MLFLOW_TRACKING_URI", "WANDB_API_KEY", "WANDB_MODE", "WANDB_PROJECT")


class Calls(list):
    """Remembers what a fake module was told."""

    def taking(self, name: str, result: Any = None) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            self.append((name, args, options))
            return result

        return call

    def only(self, name: str) -> list[tuple[Any, ...]]:
        return [(*args, options) for called, args, options in self if called == name]


@pytest.fixture(autouse=True)
def _unconfigured(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name in ("mlflow", "wandb"):
        monkeypatch.setitem(sys.modules, name, None)


def fake(monkeypatch: pytest.MonkeyPatch, name: str, **members: Any) -> None:
    module = types.ModuleType(name)
    module.__dict__.update(members)
    monkeypatch.setitem(sys.modules, name, module)


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> Calls:
    calls = Calls()
    run = types.SimpleNamespace(info=types.SimpleNamespace(run_id="7f"))
    members = {name: calls.taking(name) for name in ("log_metrics", "log_image", "end_run")}
    fake(monkeypatch, "mlflow", start_run=calls.taking("start_run", run), **members)
    return calls


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> Calls:
    calls = Calls()
    run = types.SimpleNamespace(log=calls.taking("log"), finish=calls.taking("finish"))
    fake(monkeypatch, "wandb", init=calls.taking("init", run), Image=lambda pixels: ("image", pixels))
    return calls


@pytest.fixture
def board(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """A writer that, as the true one, has its file on the disk after `flush`."""
    calls = Calls()

    def writer(folder: str, purge_step: int) -> types.SimpleNamespace:
        calls.append(("writer", (folder,), {"purge_step": purge_step}))
        members = {name: calls.taking(name) for name in ("add_scalar", "add_image", "close")}
        return types.SimpleNamespace(
            flush=lambda: (Path(folder) / "events").write_bytes(b"e%d" % len(calls)), **members
        )

    fake(monkeypatch, "torch.utils.tensorboard", SummaryWriter=writer)
    return calls


def test_nothing_is_opened_unless_asked_for(mlflow: Calls, wandb: Calls, tmp_path: Path) -> None:
    assert trackers("run", Store(tmp_path), []) == []
    assert not mlflow
    assert not wandb


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_what_is_not_installed_is_refused_with_the_next_step(name: Any) -> None:
    with pytest.raises(ConfigError, match=f"pip install {name}"):
        check([name])


def test_what_is_not_configured_is_refused_before_anything_opens(
    mlflow: Calls, wandb: Calls, board: Calls, tmp_path: Path
) -> None:
    for name, variable in (("mlflow", "MLFLOW_TRACKING_URI"), ("wandb", "WANDB_API_KEY")):
        with pytest.raises(ConfigError, match=f"set {variable}"):
            trackers("run", Store(tmp_path), ["tensorboard", name])
    assert not mlflow + wandb + board


def test_mlflow_continues_its_run_on_its_own_server(
    mlflow: Calls, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for server in ("http://a", "http://a", "http://b"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
        [tracker] = trackers("run", Store(tmp_path), ["mlflow"])
        tracker.scalars(3, {"loss": 0.5})
        tracker.picture(3, "samples", PNG)
        tracker.close()
    assert [options["run_id"] for (options,) in mlflow.only("start_run")] == [None, "7f", None]
    assert mlflow.only("log_metrics")[0] == ({"loss": 0.5}, {"step": 3})
    pixels, options = mlflow.only("log_image")[0]
    assert pixels.dtype == np.uint8
    assert pixels.shape[2] == 3
    assert options == {"artifact_file": "samples/step-0000003.png"}
    assert len(mlflow.only("end_run")) == 3


def test_wandb_continues_the_run_of_the_folder(wandb: Calls, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    for folder in ("a", "a", "b"):
        [tracker] = trackers("run", Store(tmp_path / folder), ["wandb", "wandb"])
        tracker.scalars(3, {"loss": 0.5})
        tracker.picture(3, "samples", PNG)
        tracker.close()
    first, again, other = (options for (options,) in wandb.only("init"))
    assert first == again
    assert first["id"] != other["id"]
    assert first["project"] == "augengine"
    assert first["resume"] == "allow"
    assert wandb.only("log")[0] == ({"loss": 0.5}, {"step": 3})
    kind, pixels = wandb.only("log")[1][0]["samples"]
    assert kind == "image"
    assert pixels.max() == 255
    assert len(wandb.only("finish")) == 3


def test_tensorboard_writes_into_a_local_run(board: Calls, tmp_path: Path) -> None:
    [tracker] = trackers("run", Store(tmp_path / "run"), ["tensorboard"], resumed_step=40)
    Path(tmp_path / "run" / "tensorboard").mkdir(parents=True)
    tracker.scalars(41, {"loss": 0.5, "grad_norm": 2.0})
    tracker.close()
    assert board.only("writer") == [(str(tmp_path / "run" / "tensorboard"), {"purge_step": 41})]
    assert board.only("add_scalar") == [("loss", 0.5, 41, {}), ("grad_norm", 2.0, 41, {})]


def test_tensorboard_files_reach_an_object_store(board: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    out = Store("memory://trackers/run")
    [tracker] = trackers("run", out, ["tensorboard"])
    scratch = Path(board.only("writer")[0][0])
    tracker.scalars(1, {"loss": 0.5})
    assert not out.exists("tensorboard/events"), "copying after every step would be slow"
    monkeypatch.setattr("augengine.train.trackers.UPLOAD_EVERY_S", 0.0)
    tracker.scalars(2, {"loss": 0.5})
    before = out.read("tensorboard/events")
    tracker.picture(2, "samples", PNG)
    tracker.close()
    assert out.read("tensorboard/events") != before
    assert not scratch.exists()


def test_an_object_store_is_sent_no_more_than_the_events_and_a_bounded_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Events of ten bytes; a file is followed by another at a hundred."""
    sent, folder, opened = [0], Store("memory://trackers/bytes"), []

    class Writer:
        def __init__(self, path: str, purge_step: int | None) -> None:
            opened.append(purge_step)
            self.file = Path(path) / f"events-{len(opened):03d}"

        def add_scalar(self, *_: Any) -> None:
            with self.file.open("ab") as file:
                file.write(b"0123456789")

        flush = close = lambda self: None

    fake(monkeypatch, "torch.utils.tensorboard", SummaryWriter=Writer)
    monkeypatch.setattr("augengine.train.trackers.UPLOAD_EVERY_S", 0.0)
    monkeypatch.setattr("augengine.train.trackers.EVENT_FILE_BYTES", 100)
    write = Store.write
    monkeypatch.setattr(Store, "write", lambda s, n, c: (sent.append(sent[-1] + len(c)), write(s, n, c))[1])
    [tracker] = trackers("run", folder, ["tensorboard"], resumed_step=7)
    for step in range(400):
        tracker.scalars(step, {"loss": 0.5})
    tracker.close()
    stored = [folder.read(name) for name in folder.names("tensorboard")]
    assert b"".join(stored) == b"0123456789" * 400
    assert opened == [8, *[None] * (len(opened) - 1)]  # only the first hides what a restart repeats
    assert sent[-1] <= 4000 * 100 / 10  # copied whole every time, 800,000


def test_true_event_files_hold_the_scalars(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    [tracker] = trackers("run", Store(tmp_path), ["tensorboard"])
    tracker.scalars(1, {"loss": 0.5})
    tracker.picture(1, "samples", PNG)
    tracker.close()
    [again] = trackers("run", Store(tmp_path), ["tensorboard"], resumed_step=0)
    again.scalars(1, {"loss": 0.25})
    again.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(1, 0.25)]


def test_tensorboard_that_is_missing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match="pip install tensorboard"):
        check(["tensorboard"])
