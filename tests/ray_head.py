"""A Ray head of its own for a test, as `ray start --head` makes it, with a token; no other Ray is touched."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
START_S, STARTS = 120, 4


@dataclass(frozen=True)
class Head:
    """A running head.

    Attributes:
        env: the environment of everybody who uses it.
        process: of `ray start --block`, which ends if any part of the head does.
        log: its output.
        address: where scripts join it, `host:port`.
        client: where Ray's client does, `ray://host:port`.
        token_path: file of its token.
    """

    env: dict[str, str]
    process: subprocess.Popen[bytes]
    log: Path
    address: str
    client: str
    token_path: Path

    def ray(self, *args: str, timeout_s: float = 240) -> subprocess.CompletedProcess[str]:
        """`ray ARGS` in the project's folder; stdout and stderr together."""
        assert self.process.poll() is None, f"the head has ended by itself:\n{self.log.read_text()[-4000:]}"
        return subprocess.run(
            ["ray", *args],
            cwd=ROOT,
            env=self.env,
            text=True,
            check=False,
            timeout=timeout_s,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def submit(self, *args: str) -> subprocess.CompletedProcess[str]:
        """`ray job submit ARGS`; a head that has just started may not take jobs yet."""
        until = time.monotonic() + START_S
        while True:
            done = self.ray("job", "submit", *args)
            if "No available agent" not in done.stdout or time.monotonic() > until:
                return done
            time.sleep(3)


@contextmanager
def ray_head(*options: str) -> Iterator[Head]:
    """A head with 2 logical CPUs, and `options` of `ray start`, in an activated environment."""
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp") as home:  # sockets below it allow no long path
        port, dashboard, agent, client = _free_ports(4)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        env = {
            **kept,
            "HOME": home,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "RAY_AUTH_MODE": "token",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        }
        subprocess.run(["ray", "get-auth-token", "--generate"], env=env, check=True, stdout=subprocess.DEVNULL)
        command = [
            "ray",
            "start",
            "--head",
            "--block",
            "--node-ip-address=127.0.0.1",
            f"--port={port}",
            "--dashboard-host=127.0.0.1",
            f"--dashboard-port={dashboard}",
            f"--dashboard-agent-listen-port={agent}",
            f"--ray-client-server-port={client}",
            "--num-cpus=2",
            f"--temp-dir={home}/ray",
            "--disable-usage-stats",
            *options,
        ]
        log = Path(home, "head.log")
        head = _started(command, env, log)
        try:
            _wait_for_clients(client)
            yield Head(
                env={**env, "RAY_ADDRESS": f"http://127.0.0.1:{dashboard}"},
                process=head,
                log=log,
                address=f"127.0.0.1:{port}",
                client=f"ray://127.0.0.1:{client}",
                token_path=Path(home, ".ray/auth_token"),
            )
        finally:
            _end(head)


def _started(command: list[str], env: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    """The head's process; Ray gives a head half a minute to start, which a busy machine may not do at once."""
    for _ in range(STARTS):
        with log.open("w") as file:
            head = subprocess.Popen(command, cwd=ROOT, env=env, stdout=file, stderr=file, start_new_session=True)
        until = time.monotonic() + START_S
        while head.poll() is None and time.monotonic() < until:
            if "Ray runtime started" in log.read_text():
                return head
            time.sleep(0.5)
        _end(head)
    raise AssertionError(log.read_text())


def _wait_for_clients(port: int) -> None:
    """The server of Ray's client listens some time after the head has started."""
    until = time.monotonic() + START_S
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            assert time.monotonic() < until, "Ray's client server does not listen"
            time.sleep(0.2)


def _end(head: subprocess.Popen[bytes]) -> None:
    if head.poll() is None:
        head.send_signal(signal.SIGTERM)
    try:
        head.wait(30)
    except subprocess.TimeoutExpired:
        os.killpg(head.pid, signal.SIGKILL)
        head.wait()


def _free_ports(count: int) -> list[int]:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in held]
    for server in held:
        server.close()
    return ports
