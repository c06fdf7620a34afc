"""What a phantom's generators are shown, per protocol, and the policy of a direction."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from builders import GE, SIEMENS, slice_sample, write_checkpoint, write_samples

from augengine.commands.evaluate import default_recipe, recipes_of
from augengine.diffusion.checkpoint import load_generator, read_spec
from augengine.downstream.inventory import take_inventory
from augengine.downstream.protocols import Protocol, protocol
from augengine.downstream.study import (
    Study,
    _generator_view,
    _some_unlabelled,
    _source_view,
    _without_training,
    direction,
    labeller_recipe,
)
from augengine.downstream.views import View, write_views
from augengine.io.dataset import dataset_files
from augengine.io.shards import iter_samples
from augengine.io.store import Store
from augengine.phantom.cohort import Cohort
from augengine.pipeline.units import INLINE
from augengine.prepare import Preparation
from augengine.records import Sample

ROOT = Path(__file__).parents[2]
TISSUES = {"fat": 1, "fibroglandular": 2}
VENDORS = {"SIEMENS": "Siemens", "GE MEDICAL SYSTEMS": "GE"}


def written(view: View, asked: Protocol, folder: Path) -> list[Sample]:
    uri = write_views([view], str(folder), asked, actors=INLINE)[view.name]
    return list(iter_samples(Store(uri), dataset_files(Store(uri))))


def seen(rows: list[Sample]) -> Counter[tuple[str | None, str, bool]]:
    """Rows by split, vendor and whether they have labels."""
    return Counter((s.split, VENDORS[s.acquisition.manufacturer or ""], s.label is not None) for s in rows)


@pytest.fixture
def data(tmp_path: Path) -> str:
    splits = {"train": range(1, 9), "val": range(9, 11), "test": range(11, 13)}
    rows = [slice_sample(n, split=split, labels=TISSUES) for split, numbers in splits.items() for n in numbers]
    return write_samples(tmp_path / "data", rows)


@pytest.mark.parametrize("name", ["phantom_strict", "phantom_transductive"])
def test_labels_of_the_other_vendor_are_never_shown(name: str, data: str, tmp_path: Path) -> None:
    asked, found = protocol(name), take_inventory(data, protocol(name))
    strict = name == "phantom_strict"
    rows = written(_generator_view(found, asked, "GE", "Siemens"), asked, tmp_path / "views")
    # Beside the other vendor's images the own ones come without labels, too: masks must not tell the vendors apart.
    own = {("train", "GE", strict): 4, ("val", "GE", strict): 1}
    assert seen(rows) == own | ({} if strict else {("train", "Siemens", False): 4, ("val", "Siemens", False): 1})
    edited = written(_source_view(found, asked, "GE", "Siemens"), asked, tmp_path / "edited")
    assert seen(edited) == {("train", "GE", True): 4} | ({} if strict else {("train", "Siemens", False): 4})


def test_the_paper_s_generator_sees_subjects_without_labels(data: str, tmp_path: Path) -> None:
    asked = protocol("phantom_paper")
    rows = written(_some_unlabelled(take_inventory(data, asked)), asked, tmp_path / "views")
    hidden = {s.subject_id for s in rows if s.label is None}
    assert len(rows) == 12
    assert 0 < len(hidden) < 8
    assert {s.split for s in rows if s.label is None} == {"train"}
    again = take_inventory(write_samples(tmp_path / "again", rows), asked)
    shown = written(_generator_view(again, asked, "GE", "Siemens"), asked, tmp_path / "shown")
    assert {s.subject_id for s in shown} == hidden
    assert all(s.label is None for s in shown)


def test_a_direction_s_policy_edits_one_vendor_towards_the_other() -> None:
    study = Study(Cohort(), Preparation(), policy="duke_acquisition", ratio=2.5)
    vendors = str(GE.manufacturer), str(SIEMENS.manufacturer)
    judged, control = (direction(study, *vendors, judged=judged) for judged in (True, False))
    row = {"split": "train", "acquisition": GE.to_dict()}
    assert judged.takes(row)
    assert not judged.takes({**row, "split": "test"})
    assert not judged.takes({**row, "acquisition": SIEMENS.to_dict()})
    assert judged.to_dict()["params"]["target"]["empirical"]["where"] == {"manufacturer": "SIEMENS"}
    assert judged.to_dict()["params"]["target"]["empirical"]["from"] == "duke_protocols"
    assert judged.to_dict()["params"]["target"]["unseen"] == "absent"  # strict: it never saw the other vendor
    known = direction(study, *vendors, known=True).to_dict()["params"]["target"]
    assert known["empirical"] == {"from": "samples", "where": {"manufacturer": "SIEMENS"}}
    assert "unseen" not in known
    assert (judged.policy.output.per_input, control.policy.output.per_input) == (3, 3)
    few = [direction(replace(study, ratio=0.25), *vendors, judged=judged) for judged in (True, False)]
    assert [policy.policy.output.per_input for policy in few] == [2, 1]  # enough for a ratio of 1, later
    assert len(judged.policy.gates) > 1
    assert [(g.name, g.min) for g in control.policy.gates] == [("changed", 0.0)]


def test_the_labeller_sees_rows_moved_and_learns_the_protocol_s_classes() -> None:
    recipe = labeller_recipe(
        Study(Cohort(), Preparation(), labeller="unet_duke_small"), protocol("phantom_transductive")
    )
    assert recipe.warp is not None
    assert recipe.warp.flip
    assert recipe.data.regions == {"fat": ("fat",), "fibroglandular": ("fibroglandular",)}


@pytest.mark.parametrize(
    ("asked", "small", "found"),
    [
        ("phantom_transductive", True, "unet-duke-small"),
        ("phantom_brats", True, "unet-small"),
        ("duke_strict", False, "unet-duke"),
        ("brats_paper", False, "unet3d"),
    ],
)
def test_the_segmenter_s_recipe_follows_the_anatomy_and_the_data(
    asked: str, small: bool, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    assert recipes_of("unet", [], default_recipe(protocol(asked), small))["unet"].name == found


def test_the_control_has_the_generator_s_architecture_and_no_training(tmp_path: Path) -> None:
    trained = write_checkpoint(tmp_path / "trained")
    uri = _without_training(trained, str(tmp_path / "control"))
    assert _without_training(trained, str(tmp_path / "control")) == uri
    spec, control = read_spec(trained), read_spec(uri)
    assert control.network == spec.network
    assert control.sha256 != spec.sha256
    assert (control.subject_hashes, control.untrained_seed) == ((), 1)
    load_generator(uri)
    wider = write_checkpoint(tmp_path / "wider", channels=("t1", "flair"))
    assert read_spec(_without_training(wider, str(tmp_path / "control"))).channels == ("t1", "flair")
