"""Connect a script to Ray, on this machine or on a running cluster, and turn user mistakes into one line."""

from __future__ import annotations

import logging
import os
import re
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from augengine.errors import AugengineError, ConfigError, RunError
from augengine.io.store import check_uri
from augengine.machine import RAY_MESSAGES, usable_cpus
from augengine.pipeline.address import check_answers, no_answer, token_refused
from augengine.told import tell

# Read by Ray when it is imported or started: no usage reports, no metrics exporter, no noise on the console.
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}

_STARTED_HERE = {"RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0"}
"""Of a Ray that is started here, whose one node nobody takes away: each training does without the process that waits
for that, which takes as long to start as a worker of Ray."""

_SILENCE = ("RAY_BACKEND_LOG_LEVEL", "RAY_TRAIN_ENABLE_PRINT_PATCH")
"""Of these, what `--ray-messages` leaves as Ray has it."""

_LEVEL_LINE = b"Set ray log level from environment variable"
"""Ray says this of the level above whenever it starts, at any level."""

_TOKEN_LINE = b"InvalidAuthToken"
"""Ray's native code says this once a second while a head refuses the token, and ends with a cause that is none."""

# Work starts when all actors are up, or the first one would take every short unit; after so long it is an error.
ACTOR_START_S = 600
GO_ON = "what was committed is kept: run the same command again to go on"


def connect(num_cpus: int | None = None) -> None:
    """Join the cluster that `RAY_ADDRESS` names (as in `ray job submit`), or start Ray on this machine.

    Args:
        num_cpus: logical CPUs of a local Ray; default: all that it may use, at least 2, so that actors leave room for
            Ray's own tasks. Ignored on a running cluster.
    """
    loud = os.environ.get(RAY_MESSAGES) == "1"
    for name, value in _ENVIRONMENT.items():
        if not (loud and name in _SILENCE):
            os.environ.setdefault(name, value)
    address = os.environ.get("RAY_ADDRESS")
    started = "ray" in sys.modules and sys.modules["ray"].is_initialized()
    if address and not started:
        check_answers(address)
    import ray
    from ray.data import DataContext

    if not started:
        quiet = {"logging_level": logging.INFO if loud else logging.ERROR, "log_to_driver": loud}
        try:
            with without_lines(_LEVEL_LINE, _TOKEN_LINE) as dropped:
                if address:
                    ray.init(**quiet)
                else:
                    for name, value in _STARTED_HERE.items():
                        os.environ.setdefault(name, value)
                    cpus = num_cpus or max(2, usable_cpus())
                    ray.init(
                        address="local", include_dashboard=False, num_cpus=cpus, _node_ip_address="127.0.0.1", **quiet
                    )
        except ray.exceptions.AuthenticationError as error:
            raise token_refused(address or "local", str(error).split(". ")[0]) from None
        except SystemExit:  # Ray ends a process whose head it cannot reach
            if not address:
                raise
            if _refused(dropped):
                raise token_refused(address) from None
            raise no_answer(address, "no head that can be reached from here") from None
        except Exception as error:  # a start that takes too long is a bare `Exception`
            if address and _refused(dropped):
                raise token_refused(address) from None
            if address and isinstance(error, ConnectionError | ValueError | RuntimeError):
                raise no_answer(address, str(error)) from None
            if "timed out during startup" in str(error):
                raise RunError(
                    "Ray must start within half a minute",
                    found="a machine that is too busy",
                    next_step="run the same command again when it is less so",
                ) from None
            raise
    if threading.current_thread() is threading.main_thread():
        # Ray's own handler in C++ prints a stack and calls what Python has set before it.
        signal.signal(signal.SIGTERM, _stop)
    for handler in (
        () if loud else logging.getLogger("ray.data").handlers
    ):  # its own handlers; the log files keep everything
        if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
            handler.setLevel(logging.ERROR)
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.wait_for_min_actors_s = ACTOR_START_S


def _refused(lines: list[bytes]) -> bool:
    return any(_TOKEN_LINE in line for line in lines)


@contextmanager
def without_lines(*parts: bytes) -> Iterator[list[bytes]]:
    """What native code writes to standard error meanwhile comes out at the end, but for lines that hold one of `parts`.

    Those are in the list that is yielded, once the block has ended.
    """
    dropped: list[bytes] = []
    sys.stderr.flush()
    try:
        real = os.dup(2)
    except OSError:  # standard error is closed
        yield dropped
        return
    with tempfile.TemporaryFile() as kept:
        os.dup2(kept.fileno(), 2)
        try:
            yield dropped
        finally:
            sys.stderr.flush()
            os.dup2(real, 2)
            os.close(real)
            kept.seek(0)
            for line in kept:
                if any(part in line for part in parts):
                    dropped.append(line)
                else:
                    os.write(2, line)


def _stop(number: int, frame: FrameType | None) -> None:
    """End on SIGTERM (`ray job stop`, a batch system) as on Ctrl-C: clean up, and say how to go on."""
    print(f"\nstopped by signal {number}; {GO_ON}", file=sys.stderr, flush=True)  # noqa: T201
    raise SystemExit(128 + number)


def in_ray_job() -> bool:
    """True inside `ray job submit`, where the working directory is a temporary copy."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def output_uri(out: str | None, default_name: str) -> str:
    """An absolute output folder: `out`, or `runs/<default_name>` (under the home folder in a Ray job).

    Raises:
        ConfigError: an empty name, or a relative path inside a Ray job, where it would vanish with the job's copy.
        RunError: a URI that no store takes.
    """
    if out is None:
        root = Path.home() / "augengine-runs" if in_ray_job() else Path("runs")
        return str((root / default_name).absolute())
    if not out.strip():
        raise ConfigError("an output folder has a name", found="nothing", where="--out")
    check_uri(out)
    if "://" in out:
        return out
    if in_ray_job() and not Path(out).expanduser().is_absolute():
        raise ConfigError(
            "inside a Ray job --out must be an absolute path or a URI, since the job runs in a temporary copy",
            found=out,
            next_step=f"use for example --out {Path.home() / out}",
        )
    return str(Path(out).expanduser().absolute())


@contextmanager
def user_errors() -> Iterator[None]:
    """Print an `AugengineError` as one line and exit with 2; Ctrl-C says how to go on and exits with 130."""
    try:
        yield
    except AugengineError as error:
        hint = _not_shipped(error)
        print(f"error: {error}" + (f"; {hint}" if hint else ""), file=sys.stderr)  # noqa: T201
        tell(error=error.to_dict())
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print(f"\nstopped; {GO_ON}", file=sys.stderr)  # noqa: T201
        raise SystemExit(130) from None


def _not_shipped(error: AugengineError) -> str | None:
    """What to do about a relative path that a Ray job's copy of the working directory does not hold."""
    if not in_ray_job():
        return None
    flag = error.where is not None and error.where.startswith("--")
    text, here = error.found if flag else error.where, Path.cwd()
    missing = flag and error.rule.startswith("no such file")
    if not isinstance(text, str) or "://" in text or ("/" not in text and not missing):
        return None
    path = here / re.sub(r":\d+$", "", text)
    if path.exists() or not path.is_relative_to(here):
        return None
    return (
        "a Ray job runs in a copy of the working directory without what .gitignore and .rayignore name, and "
        f"{path.relative_to(here)} is not in it: give an absolute path that all nodes see, or a URI"
    )
