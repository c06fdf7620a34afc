"""What a job refuses before its first stage, from files, headers and one volume alone, each as one line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from builders import GE, SIEMENS, lesion_sample, slice_sample, write_checkpoint, write_samples

from augengine.bundled import POLICIES
from augengine.errors import AugengineError, DataError
from augengine.io.sources import Source, SourceOptions, Volume
from augengine.io.store import Store
from augengine.load import Mixture, load_mixture
from augengine.pipeline.augment import check_inputs
from augengine.pipeline.ingest_plan import IngestPlan
from augengine.pipeline.models import check_references, folders
from augengine.pipeline.survey import survey
from augengine.preflight import Ready, check_files, check_folder, check_named, check_shards
from augengine.prepare import Preparation
from augengine.records import Acquisition, Sample
from augengine.train.config import read_recipe

DUKE, HEAL = (str(POLICIES / f"{name}.yaml") for name in ("duke_acquisition", "brats_tumor_removal"))


def ready(policy: str | Mixture, recipe: str | None = None, **checkpoints: str) -> Ready:
    mixture = load_mixture(policy) if isinstance(policy, str) else policy
    found = folders(mixture, {"" if role == "all" else role: place for role, place in checkpoints.items()})
    return Ready(mixture, found, None if recipe is None else read_recipe(recipe))


def changed(tmp_path: Path, policy: str, **changes: Any) -> str:
    values = yaml.safe_load(Path(policy).read_text()) | changes
    (tmp_path / "changed.yaml").write_text(yaml.safe_dump(values))
    return str(tmp_path / "changed.yaml")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models")
    return {
        "duke": write_checkpoint(folder / "duke"),
        "flair": write_checkpoint(folder / "flair", channels=("flair",)),
        "painter": write_checkpoint(folder / "painter", kind="painter", channels=("t1", "flair")),
    }


def refusal(call: Callable[..., object], *args: object) -> str:
    with pytest.raises(AugengineError) as error:
        call(*args)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_recipe_of_another_kind_than_the_role_needs() -> None:
    text = refusal(check_files, ready(HEAL, "cddgm_small"))
    assert "recipe cddgm-small: the role 'generator' needs a model of kind 'counterfactual' or 'painter'" in text
    assert "found acquisition; give --checkpoint generator=FOLDER, or a --recipe of that kind" in text
    check_files(ready(HEAL, "seg_m3_small"))
    text = refusal(check_files, ready("brats_synthetic_labels", "seg_m3_small"))
    assert "the role 'prior' needs a model of kind 'label_prior'; found painter" in text


def test_a_recipe_that_the_policy_s_method_cannot_use() -> None:
    """The default policy wants a structure input, and the paper's generator has none."""
    assert "method 'structure' needs a generator with a structure input" in refusal(check_files, ready(DUKE, "cddgm"))
    check_files(ready("duke_acquisition_paper", "cddgm"))


def test_a_model_of_another_kind(models: dict[str, str]) -> None:
    assert "needs a model of kind 'acquisition'; found painter" in refusal(
        check_files, ready(DUKE, all=models["painter"])
    )


def test_a_referee_that_is_missing(tmp_path: Path, models: dict[str, str]) -> None:
    gates = [{"name": "residual_lesion", "max": 0.1, "options": {"model": {"ref": f"{tmp_path}/referee"}}}]
    policy = changed(tmp_path, HEAL, gates=gates)
    for text in (
        refusal(check_files, ready(policy, all=models["painter"])),
        refusal(check_named, load_mixture(policy)),
    ):
        assert f"{tmp_path}/referee: a checkpoint folder holds" in text


@pytest.mark.parametrize(
    ("policy", "model", "rows", "says"),
    [
        (DUKE, "duke", [slice_sample(s, split="val") for s in range(4)], "select takes no row of this data"),
        (DUKE, "duke", [slice_sample(s, acquisition=GE) for s in range(4)], "no manufacturer 'SIEMENS'"),
        (DUKE, "flair", [slice_sample(s) for s in range(4)], "trained on channels flair; found t1"),
        (
            HEAL,
            "painter",
            [lesion_sample(s, at_mm=(-20.0, 0.0, 0.0)) for s in range(2)],
            "this model was trained on slices; found rows that are volumes",
        ),
    ],
)
def test_shards_that_policy_or_models_cannot_work_with(
    tmp_path: Path, models: dict[str, str], policy: str, model: str, rows: list[Sample], says: str
) -> None:
    assert says in refusal(check_shards, ready(policy, all=models[model]), write_samples(tmp_path / "data", rows))


def test_shards_in_which_no_scan_has_a_target(tmp_path: Path, models: dict[str, str]) -> None:
    """One acquisition alone, or none: every row would be skipped."""
    target = {"method": "structure", "target": {"empirical": {"from": "samples"}}}
    policy = changed(tmp_path, DUKE, params=target, select={"split": "train"})
    for name, acquisition in (("one", SIEMENS), ("none", Acquisition())):
        rows = [slice_sample(s, acquisition=acquisition) for s in range(4)]
        data = write_samples(tmp_path / name, rows)
        text = refusal(check_shards, ready(policy, all=models["duke"]), data)
        assert "finds no target for any scan of this data" in text
        assert "4 of 4 scans: no target acquisition differs from the sample's own (4 training subjects with 1" in text
    both = write_samples(tmp_path / "both", [slice_sample(s, acquisition=(GE, SIEMENS)[s % 2]) for s in range(4)])
    check_shards(ready(policy, all=models["duke"]), both)


def test_one_known_target_among_many_that_the_model_never_saw_is_enough(tmp_path: Path, models: dict[str, str]) -> None:
    target = {"method": "structure", "target": {"empirical": {"from": "samples"}}}
    policy = changed(tmp_path, DUKE, params=target, select={"split": "train"})
    strange = [slice_sample(s, acquisition=SIEMENS.replace(model=f"Unheard-of {s}")) for s in range(12)]
    data = write_samples(tmp_path / "data", [*strange, slice_sample(12, acquisition=GE)])
    check_shards(ready(policy, all=models["duke"]), data)
    none = write_samples(tmp_path / "none", strange)
    assert "the generator never saw the target's" in refusal(check_shards, ready(policy, all=models["duke"]), none)


def test_shards_without_the_labels_of_the_recipe(tmp_path: Path) -> None:
    data = write_samples(tmp_path / "data", [slice_sample(s) for s in range(4)])
    assert "unknown label 'necrosis'" in refusal(check_shards, ready(HEAL, "seg_m3_small"), data)


class Folder:
    """A reader of volumes that a test holds in memory."""

    layout, root, options = "nifti", Path("/images"), SourceOptions()

    def __init__(self, volumes: list[Sample]) -> None:
        self.volumes = {v.volume_id: v for v in volumes}
        self.read_count = 0

    def read(self, source: Source) -> Volume:
        self.read_count += 1
        return Volume(self.volumes[source.volume_id])


def planned(volumes: list[Sample], splits: list[str]) -> IngestPlan:
    sources = [Source(v.volume_id, v.subject_id, v.volume_id, acquisition=v.acquisition) for v in volumes]
    of = {v.subject_id: split for v, split in zip(volumes, splits, strict=True)}
    return IngestPlan(Folder(volumes), sources, of, (), (), 0)  # type: ignore[arg-type]


def volume(subject: int, **changes: Any) -> Sample:
    image = np.repeat(slice_sample(subject).image[..., None], 4, axis=-1)
    label = (image[0] > 300).astype(np.uint8)
    values = {
        "image": image,
        "label": label,
        "slice_index": None,
        "affine": np.diag([2.0, 2.0, 2.0, 1.0]),
        "split": None,
    }
    return replace(slice_sample(subject), **{**values, "intensity_range": None, **changes})


def test_headers_and_one_volume_tell_what_a_folder_lacks(models: dict[str, str], tmp_path: Path) -> None:
    volumes, splits, val = [volume(s) for s in range(4)], ["train"] * 4, ["val"] * 4
    good = planned(volumes, splits)
    check_folder(ready(DUKE, all=models["duke"]), good, Preparation())
    assert good.reader.read_count == 1  # type: ignore[attr-defined]
    target = {"method": "structure", "target": {"empirical": {"from": "samples"}}}
    own = changed(tmp_path, DUKE, params=target, select={"split": None})
    check_folder(ready(own, "cddgm_small"), planned(volumes, splits), Preparation())
    for given, plan, says in (
        (ready(DUKE, all=models["flair"]), good, "trained on channels flair; found t1"),
        (ready(DUKE, all=models["duke"]), planned(volumes, val), "select takes no row of this data; found 4 rows"),
        (ready(HEAL, "seg_m3_small"), good, "unknown label"),
        (
            ready(changed(tmp_path, DUKE, select={"split": None}), "cddgm_small"),
            planned(volumes, val),
            "no rows of split 'train' here",
        ),
    ):
        assert says in refusal(check_folder, given, plan, Preparation())
    volumes_kept = Preparation(slices=False)
    assert "this model was trained on slices" in refusal(
        check_folder, ready(DUKE, all=models["duke"]), planned(volumes, splits), volumes_kept
    )


def test_a_volume_that_cannot_be_read_is_left_to_ingest(models: dict[str, str]) -> None:
    volumes = [volume(0, image=np.zeros((1, 32, 32, 4), np.float32)), volume(1)]
    plan = planned(volumes, ["train"] * 2)
    check_folder(ready(DUKE, all=models["duke"]), plan, Preparation())
    assert plan.reader.read_count == 2  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["copy_distance", "nearest_training_dice"])
def test_a_reference_that_rows_cannot_be_compared_with(models: dict[str, str], tmp_path: Path, name: str) -> None:
    """Known from metadata: the reference has another matrix, or none of its training rows is of the rows' channels."""
    mine = write_samples(tmp_path / "mine", [lesion_sample(n) for n in range(4)])
    small = [lesion_sample(n) for n in range(4)]
    cut = [s.replace(image=s.image[:, :-4], label=None if s.label is None else s.label[:-4]) for s in small]
    others = {
        "cut": write_samples(tmp_path / "cut", cut),
        "renamed": write_samples(tmp_path / "renamed", [s.replace(channels=("a", "b")) for s in small]),
        "held": write_samples(tmp_path / "held", [s.replace(split="test") for s in small]),
    }

    def check(reference: str) -> None:
        gates = [{"name": name, "min": 0.1, "options": {"reference": {"ref": reference}}}]
        mixture = load_mixture(changed(tmp_path, HEAL, gates=gates))
        surveyed = survey(Store(mine), mixture)
        for member in mixture.members:
            check_references(member, surveyed.scales[member.name])

    check(mine)
    rule = "a gate compares rows with training rows of their channels and matrix; found "
    assert rule in refusal(check, others["cut"])
    assert rule in (text := refusal(check, others["held"]))
    assert "there are none" in text
    if name == "copy_distance":
        assert "there are a, b (" in refusal(check, others["renamed"])
    else:
        check(others["renamed"])  # of label maps the channels do not matter


def test_a_reference_of_another_matrix_is_refused_before_the_first_stage(tmp_path: Path) -> None:
    """As `augment` asks: of shards, and of images that are yet to be ingested to one matrix."""
    painter = write_checkpoint(tmp_path / "painter", kind="painter", channels=("t1", "flair"))
    mine = [lesion_sample(n) for n in range(4)]
    cut = [s.replace(image=s.image[:, :-4], label=None if s.label is None else s.label[:-4]) for s in mine]
    data, other = write_samples(tmp_path / "data", mine), write_samples(tmp_path / "other", cut)
    gates = [{"name": "copy_distance", "min": 0.1, "options": {"reference": {"ref": other}}}]
    policy = changed(tmp_path, HEAL, gates=gates)
    text = refusal(check_shards, ready(policy, all=painter), data)
    assert f"{other}: a gate compares rows with training rows of their channels and matrix" in text
    with pytest.raises(DataError, match="a gate compares rows"):
        check_inputs(load_mixture(policy), Store(data), {"": painter})


@pytest.mark.parametrize("name", ["copy_distance", "nearest_training_dice", "residual_lesion"])
@pytest.mark.parametrize("ref", ["{ref: null}", "{}"])
def test_a_gate_s_folder_that_nobody_names_is_told_with_its_line(tmp_path: Path, name: str, ref: str) -> None:
    option = "model" if name == "residual_lesion" else "reference"
    text = Path(HEAL).read_text()
    gate = f"gates:\n  - name: {name}\n    min: 0\n    options:\n      {option}: {ref}\n"
    policy = tmp_path / "nobody.yaml"
    policy.write_text(text[: text.index("gates:")] + gate + text[text.index("output:") :])
    line = policy.read_text().splitlines().index(f"      {option}: {ref}") + 1
    assert f"{policy}:{line}: gate '{name}' needs {option}.ref; set it to a folder" in refusal(load_mixture, policy)
