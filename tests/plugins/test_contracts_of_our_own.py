"""What plug-ins must keep, our own gates, layouts, targets and extractors keep too; edits and segmenters: elsewhere."""

from __future__ import annotations

from typing import Any

import pytest

from augengine.contracts import extractor, gate, layout, target
from augengine.contracts.samples import SAMPLES
from augengine.export import TARGETS
from augengine.gates import MEASURES, Tools
from augengine.io.layouts import READERS
from augengine.metrics.extractors import load_extractor

# A gate that asks a model or training maps needs files; tests/test_gates.py has them.
GATES = [name for name, cls in MEASURES.items() if {"model", "reference"}.isdisjoint(cls.model_fields)]
OPTIONS: dict[str, dict[str, Any]] = {"nesting": {"order": ["necrosis", "enhancing", "oedema"]}}
# nnunet wants a folder's name, webdataset more cases, and dicom-seg a package; they have tests of their own.
TOLD = ("monai", "bids", "torchio", "hf")


@pytest.mark.parametrize("name", GATES)
def test_gates(name: str) -> None:
    case = gate.GateCase(MEASURES[name].model_validate(OPTIONS.get(name, {})), Tools(), SAMPLES)
    for check in gate.CHECKS.values():
        check(case)


@pytest.mark.parametrize("name", READERS.own)
def test_layouts(name: str) -> None:
    for check in layout.CHECKS.values():
        check(READERS[name])


@pytest.mark.parametrize("name", TOLD)
def test_targets(name: str) -> None:
    case = target.TargetCase(TARGETS[name](), SAMPLES)  # type: ignore[arg-type]
    for check in target.CHECKS.values():
        check(case)


def test_extractors() -> None:
    for check in extractor.CHECKS.values():
        check(extractor.ExtractorCase(load_extractor("radiomics"), SAMPLES))
