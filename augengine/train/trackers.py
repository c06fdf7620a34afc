"""Scalars and pictures of a run in; TensorBoard, MLflow and Weights & Biases out, each only if it is asked for.

A tracker needs its package and, to reach a server, its own environment variables. Restarts continue the run that
the folder began. Installed packages add others (`augengine.trackers`).
"""

from __future__ import annotations

import importlib
import io
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import matplotlib.image
import numpy as np

from augengine.errors import ConfigError
from augengine.io.store import Store
from augengine.plugins import Registry, with_methods
from augengine.rng import digest

UPLOAD_EVERY_S = 60.0
EVENT_FILE_BYTES = 2**22


class Tracker(Protocol):
    """Where a run is watched."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers by name after optimiser step `step`."""

    def picture(self, step: int, name: str, png: bytes) -> None:
        """A PNG file after optimiser step `step`."""

    def close(self) -> None:
        """Send what is left; the tracker is of no use afterwards."""


def trackers(run_name: str, out: Store, wanted: Sequence[str], resumed_step: int = 0) -> list[Tracker]:
    """Open the trackers of the run in folder `out`, which goes on after step `resumed_step`.

    Raises:
        ConfigError: a tracker whose package is not installed, or that does not know its server.
    """
    check(wanted)
    return [TRACKERS[name](run_name, out, resumed_step) for name in dict.fromkeys(wanted)]


def check(wanted: Sequence[str]) -> None:
    """Refuse what `trackers` could not open on this machine, without opening anything.

    Raises:
        ConfigError: as `trackers`.
    """
    for name in wanted:
        TRACKERS.find(name, "trackers")
        if name not in _MODULES:  # a plug-in, which was imported with what it needs
            continue
        try:
            importlib.import_module(_MODULES[name])
        except ImportError as error:
            raise ConfigError(
                f"tracker {name} needs its package",
                found=str(error),
                next_step=f"pip install {name}, or leave {name} out of trackers",
            ) from None
        variables = _VARIABLES[name]
        if variables and not any(os.environ.get(variable) for variable in variables):
            raise ConfigError(
                f"tracker {name} must know where to send",
                found=f"{' and '.join(variables)} unset",
                next_step=f"set {' or '.join(variables)}, or leave {name} out of trackers",
            )


class TensorBoard:
    """Event files in `<run>/tensorboard`.

    An object store cannot append: those that grew are copied there once a minute, and one that has `EVENT_FILE_BYTES`
    is followed by another, or ever more bytes would be copied for the same events.
    """

    def __init__(self, run_name: str, out: Store, resumed_step: int) -> None:
        self.out = out
        self._scratch = None if out.local else tempfile.TemporaryDirectory()
        self.folder = Path(out.path("tensorboard") if self._scratch is None else self._scratch.name)
        # Steps that a restart repeats are hidden where an earlier file holds them.
        self.writer = self._open(resumed_step + 1)
        self._uploaded, self._copied = time.monotonic(), dict[str, tuple[int, int]]()

    def _open(self, purge_step: int | None) -> Any:
        module = importlib.import_module(_MODULES["tensorboard"])
        return module.SummaryWriter(str(self.folder), purge_step=purge_step)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """See `Tracker`."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
        if time.monotonic() - self._uploaded > UPLOAD_EVERY_S:
            self._upload()

    def picture(self, step: int, name: str, png: bytes) -> None:
        """See `Tracker`."""
        self.writer.add_image(name, _pixels(png), step, dataformats="HWC")

    def close(self) -> None:
        """See `Tracker`."""
        self._upload()
        self.writer.close()
        if self._scratch is not None:
            self._scratch.cleanup()

    def _upload(self) -> None:
        self._uploaded = time.monotonic()
        self.writer.flush()
        if self._scratch is None:
            return
        grown = 0
        for file in sorted(self.folder.iterdir()):
            state = file.stat()
            if self._copied.get(file.name) != (state.st_size, state.st_mtime_ns):
                self.out.write(f"tensorboard/{file.name}", file.read_bytes())
                self._copied[file.name], grown = (state.st_size, state.st_mtime_ns), max(grown, state.st_size)
        if grown >= EVENT_FILE_BYTES:
            self.writer.close()
            self.writer = self._open(None)


class MLflow:
    """A run of the experiment that MLFLOW_EXPERIMENT_NAME names, on the server of MLFLOW_TRACKING_URI."""

    def __init__(self, run_name: str, out: Store, resumed_step: int) -> None:
        self.mlflow: Any = importlib.import_module(_MODULES["mlflow"])
        server = os.environ["MLFLOW_TRACKING_URI"]
        begun = out.read_mapping("mlflow.json") if out.exists("mlflow.json") else {}
        run_id = begun.get("run_id") if begun.get("server") == server else None
        run = self.mlflow.start_run(run_id=run_id, run_name=run_name)
        out.write_json("mlflow.json", {"run_id": run.info.run_id, "server": server})

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """See `Tracker`."""
        self.mlflow.log_metrics(dict(values), step=step)

    def picture(self, step: int, name: str, png: bytes) -> None:
        """See `Tracker`."""
        self.mlflow.log_image(_pixels(png), artifact_file=f"{name}/step-{step:07d}.png")

    def close(self) -> None:
        """See `Tracker`."""
        self.mlflow.end_run()


class WandB:
    """A run of the project that WANDB_PROJECT names, or `augengine`; WANDB_MODE=offline needs no server."""

    def __init__(self, run_name: str, out: Store, resumed_step: int) -> None:
        self.wandb: Any = importlib.import_module(_MODULES["wandb"])
        self.run = self.wandb.init(
            project=os.environ.get("WANDB_PROJECT", "augengine"),
            name=run_name,
            id=digest("wandb", run_name, out.uri)[:16],
            resume="allow",
            dir=out.root if out.local else tempfile.gettempdir(),
        )

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """See `Tracker`."""
        self.run.log(dict(values), step=step)

    def picture(self, step: int, name: str, png: bytes) -> None:
        """See `Tracker`."""
        self.run.log({name: self.wandb.Image(_pixels(png))}, step=step)

    def close(self) -> None:
        """See `Tracker`."""
        self.run.finish()


def _tracker(name: str, cls: Any) -> Callable[[str, Store, int], Tracker]:
    """A tracker's class, which takes the run's name, its folder and the step it goes on from."""
    found: Callable[[str, Store, int], Tracker] = with_methods(Tracker, cls)
    return found


TRACKERS: Registry[Callable[[str, Store, int], Tracker]] = Registry(
    "tracker", {"tensorboard": TensorBoard, "mlflow": MLflow, "wandb": WandB}, _tracker
)
_MODULES: dict[str, str] = {"tensorboard": "torch.utils.tensorboard", "mlflow": "mlflow", "wandb": "wandb"}
# One of them must be set.
_VARIABLES: dict[str, tuple[str, ...]] = {
    "tensorboard": (),
    "mlflow": ("MLFLOW_TRACKING_URI",),
    "wandb": ("WANDB_API_KEY", "WANDB_MODE"),
}


def _pixels(png: bytes) -> np.ndarray:
    """Colours (I, J, 3) uint8 of a PNG file."""
    return np.round(255 * matplotlib.image.imread(io.BytesIO(png), format="png")[..., :3]).astype(np.uint8)
