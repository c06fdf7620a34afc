"""Cases and their files in; `export.json`, which leads from every name back to its row, out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from augengine.export.case import Case

RECORD = "export.json"


def entry(case: Case, files: Sequence[str], cleared: int | None) -> dict[str, Any]:
    """What `export.json` says of a case."""
    found: dict[str, Any] = {
        "sample_id": case.sample_id,
        "subject_id": case.subject_id,
        "split": case.split,
        "synthetic": case.synthetic,
        "files": sorted(files),
    }
    if case.synthetic:
        found |= {
            "parent": case.parent,
            "policy": case.policy,
            "policy_digest": case.policy_digest,
            "replicate": case.replicate,
            "source_licence": case.licence,
        }
    if cleared:
        found["cleared_voxels"] = cleared
    return found


def files_of(files: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """The files of every case."""
    found: dict[str, list[str]] = {}
    for name, row in files.items():
        for case in row["cases"]:
            found.setdefault(case, []).append(name)
    return found
