"""nnU-Net: what it makes of an export, from the plan to a finished short training; and what each choice is for."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

pytest.importorskip("nnunetv2")

from export_cohorts import augmented, cohort, exported, slices, volume

from augengine.export.nnunet import NnUnet, own_dataset_json
from augengine.records import Sample

NAME = "Dataset501_X"
HERE = Path(__file__).parent
Planned = Callable[..., dict[str, Any]]


@pytest.fixture
def roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """nnU-Net's three folders, for this process and those that it starts."""
    for kind in ("raw", "preprocessed", "results"):
        (tmp_path / kind).mkdir()
        monkeypatch.setenv(f"nnUNet_{kind}", str(tmp_path / kind))
    monkeypatch.setenv("nnUNet_n_proc_DA", "1")
    return tmp_path


@pytest.fixture
def planned(roots: Path, monkeypatch: pytest.MonkeyPatch) -> Planned:
    """Plan an exported data set in this process, on all training cases or on the real ones."""

    def plan(real: bool) -> dict[str, Any]:
        from nnunetv2.experiment_planning.dataset_fingerprint import fingerprint_extractor as module
        from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner

        monkeypatch.syspath_prepend(str(roots / "raw" / NAME / "augengine"))
        monkeypatch.delitem(sys.modules, "prepare", raising=False)
        monkeypatch.setattr(module.multiprocessing, "get_context", lambda kind: _Serial)
        import prepare

        extractor = prepare.RealFingerprint if real else module.DatasetFingerprintExtractor
        extractor(501, 1).run(overwrite_existing=True)
        planner = prepare.real_planner(ExperimentPlanner) if real else ExperimentPlanner
        return planner(501).plan_experiment()

    return plan


class _Serial:
    """In place of a pool of processes, each of which would import torch."""

    class Pool:
        def __init__(self, processes: int) -> None:
            self._pool: list[Any] = []

        def __enter__(self) -> _Serial.Pool:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def starmap_async(self, function: Callable[..., Any], arguments: Any) -> _Done:
            return _Done([function(*a) for a in arguments])


class _Done:
    def __init__(self, value: Any) -> None:
        self.value = value

    def ready(self) -> bool:
        return True

    def get(self) -> Any:
        return self.value


def thin(subject: int, shape: tuple[int, int, int] = (64, 80, 3)) -> Sample:
    """A volume whose slices are thinner than its pixels are wide."""
    affine = np.diag([1.0, 1.0, 0.5, 1.0])
    return volume(subject, shape=shape, affine=affine)


def test_dataset_json_is_nnunets_own() -> None:
    values = {
        "channel_names": {"0": "t1", "1": "flair"},
        "labels": {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3},
        "num_training_cases": 7,
        "file_ending": ".nii.gz",
        "regions_class_order": (1, 2),
        "license": "CC0",
        "converted_by": "augengine",
        "description": "x",
        "overwrite_image_reader_writer": "NibabelIOWithReorient",
        "augengine": {"synthetic": ["syn-1"], "sampling_ratio": None, "weights": {}},
    }
    from augengine.export.nnunet import dataset_json

    assert dataset_json(values) == own_dataset_json(values)


def test_the_patch_of_thin_slices(roots: Path, planned: Planned) -> None:
    """With 0.5 mm between slices nnU-Net would take a column of pixels for the slice."""
    rows = [s for n in (0, 1, 2, 3) for s in slices(thin(n)) if s.slice_index == 1]
    exported(NnUnet(), cohort(roots, rows), roots / "raw" / NAME)
    assert list(planned(real=False)["configurations"]["2d"]["patch_size"]) == [80, 64]
    for path in (roots / "raw" / NAME).rglob("*.nii.gz"):
        image = nib.load(path)
        header_affine = image.affine.copy()
        header_affine[:3, 2] *= 0.5 / 999
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj), header_affine), path)
    assert list(planned(real=False)["configurations"]["2d"]["patch_size"]) == [1, 64]


def test_the_reader_that_knows_directions(roots: Path) -> None:
    """A source in LPS against an export in RAS: two of the readers see the mirror image."""
    from nnunetv2.imageio.nibabel_reader_writer import NibabelIO, NibabelIOWithReorient
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    rows = [volume(n) for n in (0, 3)]
    for row in rows:
        assert row.label is not None
        row.label[:] = 0
        row.label[2:6, 3:6, 1:3] = 1  # to one side
    stores = cohort(roots, rows)
    exported(NnUnet(), stores, roots / "raw" / NAME)
    exported(NnUnet(source_orientation="LPS"), stores, roots / "raw" / "Dataset502_Source")
    found = {}
    for reader in (NibabelIO, SimpleITKIO, NibabelIOWithReorient):
        a, b = (
            reader().read_seg(str(roots / "raw" / name / "labelsTr/S000.nii.gz"))[0] > 0
            for name in (NAME, "Dataset502_Source")
        )
        found[reader.__name__] = 2 * (a & b).sum() / (a.sum() + b.sum())
    assert found == {"NibabelIO": 0.0, "SimpleITKIO": 0.0, "NibabelIOWithReorient": 1.0}
    asked = json.loads((roots / "raw" / NAME / "dataset.json").read_text())["overwrite_image_reader_writer"]
    assert found[asked] == 1.0


def test_nnunets_own_folds_validate_on_augmented_cases(roots: Path) -> None:
    from nnunetv2.utilities.crossval_split import generate_crossval_split

    rows = [s for n in range(10) for s in slices(volume(n)) if s.split != "test"]
    stores = cohort(roots, rows, [augmented(s) for s in rows if s.split == "train"], per_file=16)
    exported(NnUnet(), stores, roots / "raw" / NAME)
    names = sorted(p.name.removesuffix(".nii.gz") for p in (roots / "raw" / NAME / "labelsTr").iterdir())
    default = generate_crossval_split(names, seed=12345, n_splits=5)
    assert all(sum(case.startswith("syn-") for case in fold["val"]) > 0 for fold in default)
    for fold in json.loads((roots / "raw" / NAME / "splits_final.json").read_text()):
        assert not [case for case in fold["val"] if case.startswith("syn-")]


def test_the_plan_is_that_of_the_real_cases(roots: Path, planned: Planned) -> None:
    """Augmented cases with air that is not 0 would change normalisation, spacing, patch and batch of both arms."""
    rows = [volume(n, shape=(64, 64, 5)) for n in range(5)]
    shrunk = []
    for row in rows:  # a small head, so that nnU-Net crops more than a quarter away
        image = np.zeros_like(row.image)
        image[:, 18:50, 18:50] = row.image[:, ::2, ::2]
        label = np.zeros_like(row.label)
        assert row.label is not None
        label[18:50, 18:50] = row.label[::2, ::2]
        shrunk += slices(row.replace(image=image, label=label))[1:4]  # those that show the head
    made = [augmented(s, n) for s in shrunk if s.split == "train" for n in range(3)]
    exported(NnUnet(), cohort(roots, shrunk, made), roots / "raw" / NAME, clear=False)
    mixed, real = (planned(real=kind)["configurations"]["2d"] for kind in (False, True))
    assert (real["use_mask_for_norm"], mixed["use_mask_for_norm"]) == ([True, True], [False, False])
    assert list(real["patch_size"]) != list(mixed["patch_size"])
    exported(NnUnet(), cohort(roots / "alone", shrunk), roots / "raw" / "Dataset502_Real")
    take_the_place(roots, "Dataset502_Real")
    alone = planned(real=False)["configurations"]["2d"]
    assert (real["patch_size"], real["batch_size"]) == (alone["patch_size"], alone["batch_size"])


def take_the_place(roots: Path, name: str) -> None:
    """Put another export in the place of the data set."""
    for kind in ("raw", "preprocessed"):
        (roots / kind / NAME).rename(roots / kind / "Dataset900_Before")
    (roots / "raw" / name).rename(roots / "raw" / NAME)


def test_ratio_and_weights_of_the_trainer(roots: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [volume(n) for n in range(5)]
    stores = cohort(roots, rows, [augmented(s, n) for s in rows if s.split == "train" for n in range(2)])
    exported(NnUnet(sampling_ratio=0.5), stores, roots / "raw" / NAME)
    monkeypatch.syspath_prepend(str(roots / "raw" / NAME / "augengine"))
    monkeypatch.syspath_prepend(str(HERE))
    from augengine_trainer import AugengineTrainer, module

    trainer = AugengineTrainer.__new__(AugengineTrainer)
    trainer.dataset_json = json.loads((roots / "raw" / NAME / "dataset.json").read_text())
    (fold, _) = json.loads((roots / "raw" / NAME / "splits_final.json").read_text())
    share = trainer.probabilities(fold["train"])
    made = np.array([name.startswith("syn-") for name in fold["train"]])
    assert share.sum() == pytest.approx(1)
    assert share[made].sum() / share[~made].sum() == pytest.approx(0.5)
    trainer.dataset_json["augengine"]["weights"] = {"S000": 3.0}
    weighted = dict(zip(fold["train"], trainer.probabilities(fold["train"]), strict=True))
    assert weighted["S000"] / weighted["S001"] == pytest.approx(3)
    trainer.dataset_json["augengine"]["sampling_ratio"] = None
    trainer.dataset_json["augengine"]["weights"] = {}
    assert trainer.probabilities(fold["train"]) == pytest.approx(np.full(9, 1 / 9))

    class Data:
        identifiers = fold["train"]

    given = {}
    trainer.training_data, validation = Data(), Data()
    monkeypatch.setattr(module, "nnUNetDataLoader", lambda data, **options: given.update({id(data): options}))

    def base(self: Any) -> None:
        for data in (trainer.training_data, validation):
            module.nnUNetDataLoader(data, sampling_probabilities=None)

    monkeypatch.setattr(module.nnUNetTrainer, "get_dataloaders", base)
    trainer.get_dataloaders()
    assert given[id(trainer.training_data)]["sampling_probabilities"].sum() == pytest.approx(1)
    assert given[id(validation)]["sampling_probabilities"] is None


def test_from_export_to_a_finished_training(
    roots: Path, monkeypatch: pytest.MonkeyPatch, record_testsuite_property: Callable[[str, object], None]
) -> None:
    """Three commands; the second and third as their users type them."""
    rows = [s for n in range(5) for s in slices(volume(n, shape=(48, 40, 3)))]
    stores = cohort(roots, rows, [augmented(s) for s in rows if s.split == "train"], per_file=16)
    started = time.monotonic()
    exported(NnUnet(), stores, roots / "raw" / NAME)
    monkeypatch.setenv("nnUNet_extTrainer", str(roots / "raw" / NAME / "augengine"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]))
    prepare = [sys.executable, roots / "raw" / NAME / "augengine/prepare.py", "-c", "2d", "-np", "1"]
    subprocess.run(prepare, check=True, capture_output=True, text=True)
    code = "import cpu_torchvision; from nnunetv2.run.run_training import run_training_entry; run_training_entry()"
    train = [sys.executable, "-c", code, "501", "2d", "0", "-tr", "AugengineTrainerShort", "-device", "cpu"]
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    done = subprocess.run(train, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    record_testsuite_property("seconds from a run to a finished training of 6 steps", time.monotonic() - started)
    folder = roots / "results" / NAME / "AugengineTrainerShort__nnUNetPlans__2d" / "fold_0"
    assert (folder / "checkpoint_final.pth").is_file()
    assert "This split has 18 training and 3 validation cases." in done.stdout
    losses = [float(value) for value in re.findall(r"train_loss (\S+)", done.stdout)]
    assert len(losses) == 2
    assert np.isfinite(losses).all()
    assert sorted(p.name for p in (folder / "validation").glob("*.nii.gz")) == [f"S003-000{k}.nii.gz" for k in range(3)]
