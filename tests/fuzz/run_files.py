"""The small JSON files of a run, an evaluation or an export, damaged or made absurd, through what reads them again.

The oracle is types: what is accepted has the kind of value that its reader goes on with.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from fuzz import mutations
from fuzz.pool import Silent

from augengine.bundled import PROTOCOLS, names, policy_file
from augengine.commands.evaluate import ELAPSED, _add_elapsed
from augengine.downstream.lineage import models_of
from augengine.downstream.protocols import protocol
from augengine.downstream.results import PLAN, Plan
from augengine.downstream.segmenters.fitting import MARK, fitted_by
from augengine.export.run import RECORD, _finished
from augengine.io.commits import RUN, claim
from augengine.io.labellers import LABELLERS, labellers
from augengine.io.store import Store
from augengine.load import load_mixture
from augengine.pipeline.augment import INPUTS, POLICY, THROUGHPUT
from augengine.pipeline.forecast import _measured
from augengine.pipeline.lineage import Run
from augengine.report.page.figures import MEASURED, beside, read_tables
from augengine.selection.guard import specs_of

SHA = "ab" * 32
POLICY_NAME = "duke_acquisition_paper"


@cache
def _policy() -> dict[str, Any]:
    return load_mixture(policy_file(POLICY_NAME)).to_dict()


def _run(store: Store) -> None:
    run = Run(store)
    for member in run.mixture.members:
        for ref in run.checkpoints(member).values():
            if not isinstance(ref, str):
                raise Silent(f"a folder of {ref!r}")
    if not isinstance(run.inputs["data"], str) or not isinstance(run.inputs["device"], str):
        raise Silent("data or device that is no text")


def _lineage(store: Store) -> None:
    models_of([store.uri])
    specs_of([store], ())


def _speed(store: Store) -> None:
    found = _measured(store)
    for name in ("rows_per_second", "bytes_per_row"):
        value = found.get(name)
        if value is not None and not (isinstance(value, int | float) and 0 < value < float("inf")):
            raise Silent(f"{name} of {value!r}")


def _claim(store: Store) -> None:
    claim(store, {"policy": "p", "source": "s"})


def _plan(store: Store) -> None:
    plan = Plan.read(store.uri)
    for trial in plan.trials:
        for cell in plan.protocol.cells:
            plan.tested(trial, cell)


def _labellers(store: Store) -> None:
    if any(not isinstance(value, str) for value in labellers(store).values()):
        raise Silent("weights that are no text")


def _plan_values() -> dict[str, Any]:
    trial = {"trial_id": "t", "train": "GE", "arm": "real", "ratio": 0.0, "seed": 0, "subjects": 0}
    chunk = {"chunk_id": "c", "value": "GE", "split": "test", "subjects": ["a"], "places": [["x", 0]]}
    asked = protocol(names(PROTOCOLS)[0]).model_dump(mode="json")
    common = {"segmenter": "unet", "steps": 2, "ratio": 0.5, "sizes": [0], "fresh_draws": False, "nets": 1}
    return {"protocol": asked, "trials": [trial], "chunks": [chunk], "patients": {"GE": 3}, **common}


def _figures(store: Store) -> None:
    read_tables(store.uri)
    beside(store, "runs/x/augmented")


MODELS = {"generator": {"ref": "/nowhere/checkpoint", "sha256": SHA}}
INPUT_VALUES = {"data": "/nowhere/data", "models": MODELS, "device": "cpu", "engine_version": "0", "plugins": {}}
FILES: dict[str, tuple[str, Callable[[], Any], Callable[[Store], object]]] = {
    "run": (INPUTS, lambda: INPUT_VALUES, _run),
    "lineage": (INPUTS, lambda: INPUT_VALUES, _lineage),
    "speed": (THROUGHPUT, lambda: {"rows_per_second": 1.5, "bytes_per_row": 700, "device": "cpu", "rows": 9}, _speed),
    "fingerprint": (RUN, lambda: {"policy": "p", "source": "s"}, _claim),
    "export": (RECORD, lambda: {"fingerprint": {"a": 1}, "cases": {}, "files": {}}, lambda s: _finished(s, {"a": 1})),
    "labels": (LABELLERS, lambda: {"segmenter": SHA}, _labellers),
    "fitted": (MARK, lambda: {"segmenter": "unet"}, lambda s: fitted_by(s.uri)),
    "seconds": (ELAPSED, lambda: {"seconds": 12}, lambda s: _add_elapsed(s, 3.0)),
    "plan": (PLAN, _plan_values, _plan),
    "figures": (MEASURED, lambda: {"about": {"runs": {"x": "runs/x/augmented"}}, "tables": []}, _figures),
}


def run_file(rng: np.random.Generator, folder: Path) -> None:
    """One of them."""
    name, values, use = FILES[mutations.pick(rng, sorted(FILES))]
    made = values()
    if rng.random() < 0.6:
        made, _ = mutations.absurd(rng, made)
        content = json.dumps(made).encode()
    else:
        content = mutations.damaged(rng, json.dumps(made).encode())
        content = b"[" * int(rng.integers(1, 200_000)) if rng.random() < 0.05 else content
    (folder / name).write_bytes(content)
    (folder / POLICY).write_text(yaml.safe_dump(_policy(), sort_keys=False))
    use(Store(str(folder)))


READERS = {"run file": run_file}
