"""Connect a script to Ray, on this machine or on a running cluster, and turn user mistakes into one line."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from augengine.errors import AugengineError, ConfigError, RunError

# Read by Ray when it is imported or started: no usage reports, no metrics exporter, no noise on the console.
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}

# Work starts when all actors are up, or the first one would take every short unit; after so long it is an error.
ACTOR_START_S = 600


def connect(num_cpus: int | None = None) -> None:
    """Join the cluster that `RAY_ADDRESS` names (as in `ray job submit`), or start Ray on this machine.

    Args:
        num_cpus: logical CPUs of a local Ray; default: all cores, at least 2, so that actors leave room for
            Ray's own tasks. Ignored on a running cluster.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import ray
    from ray.data import DataContext

    if not ray.is_initialized():
        quiet = {"logging_level": logging.ERROR, "log_to_driver": False}
        try:
            if os.environ.get("RAY_ADDRESS"):
                ray.init(**quiet)
            else:
                cpus = num_cpus or max(2, os.cpu_count() or 1)
                ray.init(address="local", include_dashboard=False, num_cpus=cpus, _node_ip_address="127.0.0.1", **quiet)
        except ConnectionError as error:
            raise RunError(
                "no Ray cluster answers", found=str(error).splitlines()[0], where=os.environ.get("RAY_ADDRESS"),
                next_step="start one with `ray start --head`, or unset RAY_ADDRESS",
            ) from None  # fmt: skip
    for handler in logging.getLogger("ray.data").handlers:  # its own handlers; the log files keep everything
        if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
            handler.setLevel(logging.ERROR)
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.wait_for_min_actors_s = ACTOR_START_S


def in_ray_job() -> bool:
    """True inside `ray job submit`, where the working directory is a temporary copy."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def output_uri(out: str | None, default_name: str) -> str:
    """An absolute output folder: `out`, or `runs/<default_name>` (under the home folder in a Ray job).

    Raises:
        ConfigError: a relative path inside a Ray job, where it would vanish with the job's copy.
    """
    if out is None:
        root = Path.home() / "augengine-runs" if in_ray_job() else Path("runs")
        return str((root / default_name).absolute())
    if "://" in out:
        return out
    if in_ray_job() and not Path(out).expanduser().is_absolute():
        raise ConfigError(
            "inside a Ray job --out must be an absolute path or a URI, since the job runs in a temporary copy",
            found=out, next_step=f"use for example --out {Path.home() / out}",
        )  # fmt: skip
    return str(Path(out).expanduser().absolute())


@contextmanager
def user_errors() -> Iterator[None]:
    """Print an `AugengineError` as one line and exit with 2; Ctrl-C says how to go on and exits with 130."""
    try:
        yield
    except AugengineError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("\nstopped; what was committed is kept: run the same command again to go on", file=sys.stderr)  # noqa: T201
        raise SystemExit(130) from None
