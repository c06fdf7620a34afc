"""Addresses that no cluster answers at, and paths that a Ray job does not ship: one line, within seconds."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from augengine.errors import CheckpointError, RunError
from augengine.pipeline import address as ray_address
from augengine.pipeline import cluster


@pytest.fixture
def listener() -> socket.socket:
    """A server that accepts and says nothing."""
    return socket.create_server(("127.0.0.1", 0))


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("127.0.0.1:{free}", "Connection refused"),
        ("127.0.0.1:{silent}", "something that is not Ray"),
        ("http://127.0.0.1:8265", "the dashboard's address"),
        ("head", "no address of the form host:port"),
    ],
)
def test_a_wrong_address_is_one_line_within_seconds(
    monkeypatch: pytest.MonkeyPatch, listener: socket.socket, address: str, says: str
) -> None:
    monkeypatch.setattr(ray_address, "ANSWER_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        free = closed.getsockname()[1]
    given = address.format(free=free, silent=listener.getsockname()[1])
    started = time.monotonic()
    with pytest.raises(RunError, match="no Ray cluster answers") as error:
        ray_address.check_answers(given)
    assert says in str(error.value)
    assert f"RAY_ADDRESS={given}" in str(error.value)
    assert "\n" not in str(error.value)
    assert time.monotonic() - started < 5


def test_a_head_that_ray_finds_by_itself_is_told_by_what_its_native_code_says(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """`auto` has no address to ask; half a minute of the same line becomes the cause, and any other line stays."""
    import ray

    def refused(**_: object) -> None:
        os.write(2, 3 * b"gcs_client.cc:210: Unauthenticated: RPC error: InvalidAuthToken: ...\n" + b"disk is slow\n")
        raise ConnectionError("Failed to connect to Ray cluster")

    monkeypatch.setenv("RAY_ADDRESS", "auto")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", refused)
    with pytest.raises(
        RunError, match=r"RAY_ADDRESS=auto: this Ray cluster asks for its token; found no token in what"
    ):
        cluster.connect()
    assert capfd.readouterr().err == "disk is slow\n"


@pytest.mark.parametrize("text", ["runs/model", str])
def test_a_relative_path_that_a_job_does_not_ship_is_named_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | Callable[..., str]
) -> None:
    """Whether the error names it as it was given or in full."""
    monkeypatch.chdir(tmp_path)
    where = text if isinstance(text, str) else text(tmp_path / "runs/model")

    def refuse(where: str) -> str:
        with pytest.raises(SystemExit), cluster.user_errors():
            raise CheckpointError("a checkpoint folder holds model.json", found="no model.json", where=where)
        return capsys.readouterr().err

    assert "give an absolute path" not in refuse(where)
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert "runs/model is not in it: give an absolute path that all nodes see, or a URI" in refuse(where)
    assert "give an absolute path" not in refuse("/elsewhere/model")
    (tmp_path / "runs/model").mkdir(parents=True)
    for there in (where, f"{where}:3", "S003"):
        assert "give an absolute path" not in refuse(there)
