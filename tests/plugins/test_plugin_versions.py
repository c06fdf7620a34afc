"""Layouts, targets, segmenters: the version of the package stands in what decides whether finished work is taken."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
from installed_packages import Packages

from augengine.contracts.samples import SAMPLES
from augengine.contracts.target import TargetCase
from augengine.downstream.arms import Arm
from augengine.downstream.segmenters import SEGMENTERS, segmenter_identity
from augengine.downstream.segmenters.fitting import mark
from augengine.downstream.trials import _trial
from augengine.export import TARGETS
from augengine.io.sources import SourceOptions
from augengine.pipeline.ingest import ingest
from augengine.pipeline.units import Actors

SOURCE = """
from typing import ClassVar
from augengine.downstream.segmenters.unet import UNet
from augengine.export.monai import Monai
from augengine.io.folders import NiftiReader

class Reader(NiftiReader):
    layout = "ours"

class Target(Monai):
    name: ClassVar[str] = "ours"

class Segmenter(UNet):
    name = "ours"
    loaded = ()
"""
POINTS = {
    "augengine.layouts": {"ours": "mine:Reader"},
    "augengine.targets": {"ours": "mine:Target"},
    "augengine.segmenters": {"ours": "mine:Segmenter"},
}
INLINE = Actors(inline=True)


def test_of_a_layout_in_the_manifest_of_an_ingest(packages: Packages, tmp_path: Path) -> None:
    packages.add("mine", POINTS, {"mine.py": SOURCE}, "1.2")
    root = tmp_path / "images"
    for name in ("a", "b", "c"):
        (root / name).mkdir(parents=True)
        image = np.random.default_rng(0).normal(300, 50, (16, 16, 3)).astype(np.float32)
        nib.save(nib.Nifti1Image(image, np.eye(4)), root / name / "t1.nii.gz")  # type: ignore[attr-defined]
    options = SourceOptions(channels={"t1": "t1.nii.gz"}, pseudonym_key="k")
    manifest = ingest(root, tmp_path / "out", layout="ours", options=options, actors=INLINE)
    assert (manifest["layout"], manifest["plugins"]) == ("ours", {"mine": "1.2"})
    assert json.loads((tmp_path / "out/manifest.json").read_text())["plugins"] == {"mine": "1.2"}


def test_of_a_target_in_the_fingerprint_of_an_export(packages: Packages) -> None:
    packages.add("mine", POINTS, {"mine.py": SOURCE}, "1.2")
    record = json.loads(TargetCase(TARGETS["ours"](), SAMPLES).files["export.json"])  # type: ignore[arg-type]
    assert record["fingerprint"]["plugins"] == {"mine": "1.2"}
    record = json.loads(TargetCase(TARGETS["monai"](), SAMPLES).files["export.json"])  # type: ignore[arg-type]
    assert "plugins" not in record["fingerprint"]


def test_of_a_segmenter_in_its_identity_and_in_those_of_its_trainings(packages: Packages, tmp_path: Path) -> None:
    def identities(version: str, name: str = "ours") -> tuple[dict[str, Any], str]:
        packages.add("mine", POINTS, {"mine.py": SOURCE}, version)
        asked: Any = SimpleNamespace(adapted_recipes={}, segmenter=name, steps=1, nets=1)
        chosen: Any = SimpleNamespace(train="GE", subjects=None)
        trial = _trial(asked, chosen, Arm("real"), 1.0, 0, {"none": ["data"]})
        return segmenter_identity(mark(SEGMENTERS["ours"], str(tmp_path / "fitted"))), trial.trial_id

    first, second = identities("1.2"), identities("1.3")
    assert (first[0]["plugins"], second[0]["plugins"]) == ({"mine": "1.2"}, {"mine": "1.3"})
    assert first[1] != second[1]
    assert identities("1.2", "unet")[1] == identities("1.3", "unet")[1]
