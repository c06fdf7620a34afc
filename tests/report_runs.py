"""Augmented runs as a report reads them, written without a model: rows, commits, policy and inputs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from builders import slice_sample, write_samples

from augengine.gates import GateResult
from augengine.io.commits import Record, commit
from augengine.io.dataset import finish
from augengine.io.parts import write_part
from augengine.io.store import Store
from augengine.pipeline.outcomes import Outcomes, count_reasons
from augengine.records import Acquisition, Provenance, Sample

POLICY = {
    "version": 1,
    "name": "told",
    "edit": "acquisition",
    "gates": [{"name": "changed", "min": 0.3}],
    "params": {"target": {"empirical": {"from": "samples"}}},
}
HOSTILE = "</script><img src=x onerror=\"window.hacked=1\"><b title='x'>&amp;"
LEAST = 0.3
"""Bound of the only gate."""


def edit(source: Sample, row_id: str, *, gate: float = 0.5, **changes: Any) -> Sample:
    """An augmented row of a source; its gate has the value `gate`."""
    verdict = GateResult("changed", gate, LEAST, None, gate >= LEAST).to_dict()
    provenance = Provenance(
        row_id, source.sample_id, "told", "digest", "acquisition", {"replicate": 0}, gates=[verdict]
    )
    changes = {"image": source.image + 50, **changes}
    if "label" in changes:
        changes["label"] = changes["label"].astype(np.uint8)
    return source.replace(provenance=provenance, **{**changes, "image": changes["image"].astype(np.float32)})


def write_report_run(
    folder: Path,
    sources: Sequence[Sample],
    accepted: Sequence[Sample] = (),
    rejected: Sequence[tuple[Sample, str]] = (),
) -> str:
    """A finished run of one unit; rejected rows with their reasons."""
    data = write_samples(folder / "data", list(sources))
    outcomes, store = Outcomes(), Store(str(folder / "out"))
    for sample in accepted:
        outcomes.keep(sample, [])
    outcomes._rejected.extend(rejected)
    tables = outcomes.tables()
    files = {k: [write_part(store, k, "unit", t)] if t.num_rows else [] for k, t in tables.items()}
    counts = {k: t.num_rows for k, t in tables.items()}
    made = {k: tuple(of) for k, of in files.items()}
    commit(store, Record("unit", counts, made, 1.0, 1, 1.0, count_reasons(tables)))
    store.write("policy.yaml", yaml.safe_dump(POLICY).encode())
    store.write_json("inputs.json", {"data": data, "models": {}, "device": "cpu", "engine_version": "0"})
    finish(store, {"counts": counts}, files)
    return store.uri


def hostile_run(folder: Path) -> str:
    """Names of everything that a data set names, as someone would write them who wants a reader's browser."""
    source = slice_sample(
        1, channels=(HOSTILE,), labels={HOSTILE: 1}, subject_id=HOSTILE, volume_id=HOSTILE + chr(0x202E)
    )
    after = edit(source, f"{HOSTILE}-1", acquisition=Acquisition(HOSTILE, HOSTILE, 3.0, HOSTILE, 10.0, 2.0, 2.0, 5.0))
    other = edit(source, f"{HOSTILE}-2", label=source.label * 0)
    return write_report_run(folder, [source], accepted=[after], rejected=[(other, HOSTILE)])
