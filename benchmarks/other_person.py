"""Other people than the one that `local_contrast` learnt from: what it refuses, what it marks, and what it paints.

    python benchmarks/other_person.py --data B1_spine_generic_one_volunteer --people B2_gm_challenge

Trained on the travelling volunteer's scanners (see `truth_real.py`), used on the spinal cords of the grey-matter
challenge (CC0): other people, other scanners, another sequence, whose sidecars state neither repetition time nor flip
angle. There is no truth. By default every row has to be skipped with that reason; with `unseen: nearest` rows are made
and marked, and must show no artefacts: the contact sheet is for looking at, the gates of the policy are counted.
Writes other_person.json and other_person.png to benchmarks/results.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _record import HERE, RESULTS, record
from truth_real import DIRECTIONS, INTENSITY, PREPARATION, read, trained

from augengine.diffusion.checkpoint import Model
from augengine.edits.acquisition import AcquisitionEdit, AcquisitionParams
from augengine.edits.base import Context, Donor, Plan, Skip
from augengine.gates import Gates
from augengine.intensity import normalise
from augengine.io.layouts import open_layout
from augengine.io.sources import SourceOptions
from augengine.load import load_policy
from augengine.pipeline.ingest_plan import plan_ingest
from augengine.policy.spec import Sampler
from augengine.prepare import prepare
from augengine.records import Sample
from augengine.report.console import console
from augengine.report.image_grid import image_grid
from augengine.rng import derive, generator

POLICY = HERE.parent / "augengine/policies/duke_acquisition_local_contrast.yaml"


def main() -> None:
    """Train, paint, judge and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of the volunteer's scans")
    parser.add_argument("--people", required=True, help="folder of the others' scans")
    parser.add_argument("--every", type=int, default=3, help="every n-th slice")
    given = parser.parse_args()
    torch.set_num_threads(1)
    scanners = read(Path(given.data))
    model = trained(scanners, "local_contrast")
    donors = tuple(Donor(s.name, s.acquisition(kind)) for s in scanners for kind, _ in DIRECTIONS.values())
    people = sessions(Path(given.people))
    gates = Gates(load_policy(POLICY).gates[""])
    figures: dict[str, Any] = {"intensity": INTENSITY, "sessions": {}}
    pictures = []
    for name, rows in people.items():
        chosen = rows[:: given.every]
        refused = Counter(
            plan.reason for row in chosen if isinstance(plan := planned(model, donors, row, "skip"), Skip)
        )
        made = [(row, painted(model, donors, row)) for row in chosen]
        results = [gates(row, after, None) for row, after in made]
        figures["sessions"][name] = {
            "rows": len(chosen),
            "refused": dict(refused),
            "accepted": sum(all(g.passed for g in found) for found in results),
            **{
                g.name: round(float(np.median([found[n].value for found in results])), 4)
                for n, g in enumerate(results[0])
            },
        }
        before, after = made[len(made) // 2]
        pictures.append(
            (
                f"{name}: as scanned, and with another acquisition",
                [normalise(before)[0], normalise(before.replace(image=after.image))[0]],
            )
        )
        console.print(name, figures["sessions"][name])
    path = record("other_person", figures)
    (RESULTS / "other_person.png").write_bytes(image_grid(pictures))
    console.print(path)


def sessions(root: Path) -> dict[str, list[Sample]]:
    """Rows of every session's first scan, by subject."""
    options = SourceOptions(channels={"mr": "run-1_T2starw"}, public_ids=True)
    reader, _ = open_layout(root, "bids", options)
    found: dict[str, list[Sample]] = {}
    for source in plan_ingest(root, "bids", options, inline=True).sources:
        rows = prepare(reader.read(source).sample, PREPARATION)
        found[rows[0].subject_id] = [row.replace(label=None, labels={}) for row in rows]
    return found


def planned(model: Model, donors: tuple[Donor, ...], row: Sample, unseen: str) -> Any:
    """The edit's own plan of one row."""
    edit, params = AcquisitionEdit(), parameters(unseen)
    return edit.plan(row, params, generator("other", row.sample_id), Context(donors, {"generator": model.spec}))


def parameters(unseen: str) -> AcquisitionParams:
    """Targets are the acquisitions of the volunteer's scans."""
    return AcquisitionParams.model_validate({"method": "local_contrast", "target": {"empirical": {}, "unseen": unseen}})


def painted(model: Model, donors: tuple[Donor, ...], row: Sample) -> Sample:
    """The row under its plan, which has to say that the source was strange."""
    drawing = planned(model, donors, row, "nearest")
    assert drawing.params["unseen_source"], "a source that training never met must be marked"
    plan = Plan("other", row.sample_id, 0, 0, derive(row.sample_id), drawing.params, drawing.donors)
    (made,) = AcquisitionEdit().apply([row], [plan], {"generator": model}, parameters("nearest"), Sampler())
    return made


if __name__ == "__main__":
    main()
