"""Gates: planted defects fail, honest contrast changes pass, and what cannot be measured fails."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import GE, SIEMENS, grained_sample, slice_sample, write_samples
from scipy.ndimage import shift

from augengine.diffusion.build import build
from augengine.diffusion.checkpoint import save_model
from augengine.diffusion.conditions import Vocabulary
from augengine.diffusion.discriminative import PredictorSpec, SegmenterSpec
from augengine.diffusion.spec import ModelSpec
from augengine.errors import CheckpointError, ConfigError, DataError
from augengine.gates import MEASURES, Case, Gates, Tools, complete, gate_hashes, image_digest, training_images
from augengine.gates.base import LESION, label_mask
from augengine.gates.judged import RefereeGate, belief
from augengine.gates.real_rows import RealRow
from augengine.intensity import normalise
from augengine.io.store import Store
from augengine.policy.spec import GateSpec, Policy, policy_digest
from augengine.records import Sample

LABELS = {"necrosis": 1, "enhancing": 2, "oedema": 4, "tissue": 5}


def value(name: str, before: Sample, after: Sample, region: np.ndarray | None = None, **options: Any) -> float:
    return MEASURES[name].model_validate(options).value(Case(before, after, region), Tools())


def balls(*parts: tuple[int, tuple[int, int], float], size: int = 64) -> np.ndarray:
    """A label map of discs (code, centre, radius), later ones on top."""
    grid = np.indices((size, size))
    label = np.zeros((size, size), np.uint8)
    for code, centre, radius in parts:
        label[np.hypot(grid[0] - centre[0], grid[1] - centre[1]) <= radius] = code
    return label


def ill(*parts: tuple[int, tuple[int, int], float], levels: Any = (0, 300, 900, 0, 600, 400)) -> Sample:
    """A disc of tissue with nested lesions, each label of its own intensity."""
    label = balls((5, (32, 32), 26), *parts)
    noise = np.random.default_rng(3).normal(0, 10, label.shape)
    image = (np.array(levels, float)[label] + noise).clip(min=0).astype(np.float32)[None]
    return slice_sample(1, size=64, image=image, label=label, labels=LABELS, intensity_range=((0.0, 900.0),))


NESTED = ((4, (30, 24), 9.0), (2, (30, 24), 6.0), (1, (30, 24), 3.0))
ELSEWHERE = tuple((code, (i, 42), radius) for code, (i, _), radius in NESTED)


def test_structure_ssim_allows_inverted_contrast_but_not_moved_edges() -> None:
    before = slice_sample(1, size=64)
    inverted = before.replace(image=((800 - before.image) * 2.0).astype(np.float32))
    moved = before.replace(image=shift(before.image, (0, 9, 9), order=1))
    noise = before.replace(image=np.random.default_rng(0).normal(300, 90, before.image.shape).astype(np.float32))
    assert value("structure_ssim", before, before) == pytest.approx(1, abs=1e-6)
    assert value("structure_ssim", before, inverted) > 0.999
    assert value("structure_ssim", before, moved) < 0.7
    assert value("structure_ssim", before, noise) < 0.4


def test_changed_and_range() -> None:
    before = slice_sample(1, size=64)
    region = np.zeros((64, 64), bool)
    region[30:34, 30:34] = True
    local = before.replace(image=before.image + np.where(region, 67, 0).astype(np.float32))
    assert value("changed", before, before) == 0
    assert value("changed", before, local, region) == pytest.approx(0.1)
    assert value("changed", before, local) < 0.01
    assert value("out_of_range", before, before.replace(image=before.image + 5000)) == 1
    assert value("out_of_range", before, before) == 0


def test_air_below_the_range_of_tissue_is_not_out_of_range() -> None:
    """Ranges of non-zero voxels put air far below 0; what is darker than the source ever was is out of range."""
    before = slice_sample(1)
    image = np.where(before.image > 100, before.image, 0).astype(np.float32)
    before = before.replace(image=image, intensity_range=((400.0, 700.0),))
    assert normalise(before).min() < -1.3
    assert value("out_of_range", before, before) == 0
    darker = image.copy()
    darker[0, :4] = -200
    assert value("out_of_range", before, before.replace(image=darker)) == 4 / 32
    bright = before.replace(image=image, intensity_range=((0.0, 700.0),))  # its own lowest value is 0
    assert value("out_of_range", bright, bright.replace(image=darker)) == 0
    assert value("out_of_range", bright, bright.replace(image=2 * darker)) == 4 / 32


def test_a_hole_is_void_but_a_tissue_that_darkens_as_a_whole_is_not() -> None:
    before = ill(*NESTED)
    hole, shaded = before.image.copy(), before.image.copy()
    hole[:, 38:46, 34:42] = 0
    lesion = np.isin(before.label, (1, 2, 4))
    shaded[:, lesion] *= 0.1
    coil = before.image * np.linspace(0.4, 1.6, 64, dtype=np.float32)[None, :, None]
    assert value("void_fraction", before, before.replace(image=hole)) > 0.01
    assert value("void_fraction", before, before.replace(image=coil)) == 0
    assert value("void_fraction", before, before.replace(image=shaded)) < 0.01
    # The same dark lesion is a hole to an edit that was to fill it.
    assert value("void_fraction", before, before.replace(image=shaded * 0), lesion) != 0
    filled = np.where(lesion, 400, before.image).astype(np.float32)
    assert value("void_fraction", before, before.replace(image=filled), lesion) == 0
    gone = np.where(lesion, 0, before.image).astype(np.float32)
    assert value("void_fraction", before, before.replace(image=gone), lesion) > 0.5


def test_locality_is_the_largest_change_outside_the_region() -> None:
    before = slice_sample(1)
    region = np.zeros((32, 32), bool)
    region[4:8, 4:8] = True
    image = before.image.copy()
    image[0, 5, 5] += 500
    assert value("locality", before, before.replace(image=image), region) == 0
    image[0, 20, 20] += 67
    assert value("locality", before, before.replace(image=image), region) == pytest.approx(0.1)
    assert value("locality", before, before.replace(image=image)) == 0


def test_sharpness_and_checkerboard_tell_blur_and_grid_from_contrast_and_noise() -> None:
    before = slice_sample(2, size=64)
    rng = np.random.default_rng(0)
    blurred = before.replace(image=sum(np.roll(before.image, s, a) for s in (-1, 0, 1) for a in (1, 2)) / np.float32(6))
    scaled = before.replace(image=before.image * 3 + 100)
    noisy = before.replace(image=before.image + rng.normal(0, 20, before.image.shape).astype(np.float32))
    sign = np.float32(20) * (1 - 2 * (np.indices((64, 64)).sum(0) % 2)).astype(np.float32)
    stripes = np.float32(20) * ((np.indices((64, 64))[0] % 4) < 1).astype(np.float32)
    assert value("sharpness", before, blurred) < 0.6 < value("sharpness", before, before) < 1.5
    assert value("sharpness", before, scaled) == pytest.approx(1, rel=1e-4)
    assert value("sharpness", before, noisy) > 1.5
    for good in (before, scaled, noisy):
        assert value("checkerboard", before, good) < 0.02
    for pattern in (sign, stripes):
        assert value("checkerboard", before, before.replace(image=before.image + pattern)) > 0.05


def test_detail_is_the_sources_own_or_painted_anew() -> None:
    """A smooth image under detail of its own is as sharp as the source, and is no scan of it."""
    rng = np.random.default_rng(0)
    i, j = np.mgrid[:64, :64] / 64 - 0.5
    before = slice_sample(2, size=64, image=(600 * np.exp(-8 * (i**2 + j**2)))[None].astype(np.float32))
    grain = rng.normal(0, 20, before.image.shape).astype(np.float32)
    scan = before.replace(image=before.image + grain)
    inverted = scan.replace(image=600 - 0.5 * scan.image)
    repainted = before.replace(image=before.image + rng.permutation(grain.ravel()).reshape(grain.shape))
    assert value("detail_structure", scan, inverted) > 0.99
    assert value("sharpness", scan, repainted) == pytest.approx(1, abs=0.1)
    assert value("structure_ssim", scan, repainted) > 0.5
    assert value("detail_structure", scan, repainted) < 0.2


def test_duplicates_of_the_source_and_of_kept_rows() -> None:
    before, other = slice_sample(1), slice_sample(2)
    gate, tools = MEASURES["duplicate"](), Tools()
    assert gate.value(Case(before, before), tools) == 1
    assert gate.value(Case(before, other), tools) == 0
    assert gate.value(Case(before, other, kept={image_digest(other)}), tools) == 1


def test_lesion_size_place_pieces_and_nesting() -> None:
    before, moved = ill(*NESTED), ill(*ELSEWHERE)
    outside = before.replace(label=balls((4, (4, 4), 3)))
    inside_out = ill((1, (30, 24), 9.0), (2, (30, 24), 6.0), (4, (30, 24), 3.0))
    two = before.replace(label=np.maximum(balls((4, (20, 20), 4)), balls((4, (44, 44), 4))))
    assert value("volume_ratio", before, moved) == 1
    assert value("volume_ratio", before, two) == pytest.approx(2 * 49 / 253, rel=0.05)
    assert np.isnan(value("volume_ratio", ill(), before))
    assert value("volume_ratio", before, before.replace(label=balls((5, (30, 24), 3))), lesion=("tissue",)) < 0.1
    assert (value("in_brain", before, moved), value("in_brain", before, outside)) == (1, 0)
    thick = before.replace(affine=np.diag([2.0, 3.0, 5.0, 1.0]))
    assert value("lesion_volume_ml", before, thick) == pytest.approx(253 * 30 / 1000, rel=0.05)
    assert value("lesion_volume_ml", before, ill()) == 0
    assert value("label_components", before, moved) == 1
    assert value("label_components", before, two) == 2
    assert value("nesting", before, moved) == 0
    assert value("nesting", before, inside_out) > 0.1


def test_a_label_off_its_edges_is_found_at_any_contrast() -> None:
    before = ill(*NESTED)
    assert before.label is not None
    inverted = before.replace(image=1000 - before.image)
    for offset in ((3, 0), (-2, 4), (6, -5)):
        moved = inverted.replace(label=np.roll(before.label, offset, (0, 1)))
        assert value("label_agreement", before, moved) < 0.95
    assert value("label_agreement", before, inverted) == 1
    assert value("label_agreement", before, before.replace(label=np.zeros_like(before.label))) == 1


def test_swapped_labels_in_place_and_in_a_moved_lesion() -> None:
    before, moved = ill(*NESTED), ill(*ELSEWHERE)

    def swapped(sample: Sample) -> Sample:
        assert sample.label is not None
        return sample.replace(label=np.array([0, 2, 1, 0, 4, 5], np.uint8)[sample.label])

    assert value("label_swap", before, swapped(before)) == 1
    assert value("label_swap", before, before) < 0.5
    assert value("label_swap", before, moved) < 0.5
    assert value("intensity_distance", before, moved) < 0.05
    assert value("intensity_distance", before, swapped(moved)) > 0.5
    assert value("intensity_distance", before, before) == 0


def test_a_filled_lesion_must_look_like_the_tissue_around_it() -> None:
    labels = {"lesion": 1}
    tissue, label = ill(), balls((1, (32, 32), 8))
    image = np.where(label == 1, np.float32(800), tissue.image)
    before = tissue.replace(image=image, label=label, labels=labels)
    healed = before.replace(image=tissue.image, label=np.zeros_like(label))
    assert value("intensity_distance", before, healed) < 0.05
    assert value("intensity_distance", before, before.replace(label=np.zeros_like(label))) > 0.4
    added = value("intensity_distance", healed, before)  # nothing to compare a first lesion with
    assert np.isnan(added)


def test_a_healed_place_is_compared_with_its_mirror_image() -> None:
    labels = {"lesion": 1}
    tissue = ill().replace(affine=np.diag([1.0, 1, 1, 1]))
    label = balls((1, (20, 40), 6))
    before = tissue.replace(image=np.where(label == 1, np.float32(800), tissue.image), label=label, labels=labels)
    removed = before.replace(label=np.zeros_like(label))
    assert value("mirror_distance", before, removed.replace(image=tissue.image)) < 0.2
    assert value("mirror_distance", before, removed) > 1
    half = np.where(label == 1, 0.5 * (before.image + tissue.image), tissue.image).astype(np.float32)
    assert (
        0.3 < value("mirror_distance", before, removed.replace(image=half)) < value("mirror_distance", before, removed)
    )
    assert np.isnan(value("mirror_distance", before, before))  # nothing was removed
    across = before.replace(label=np.ones_like(label))
    assert np.isnan(value("mirror_distance", across, across.replace(label=np.zeros_like(label))))


def test_nearest_training_dice_reads_training_rows_only(tmp_path: Path) -> None:
    train, test = ill(*NESTED), ill(*ELSEWHERE).replace(split="test", subject_id="S9", volume_id="S9")
    uri = write_samples(tmp_path / "maps", [train, test])
    options = {"reference": {"ref": uri}}
    assert value("nearest_training_dice", train, train, **options) == 1
    assert value("nearest_training_dice", train, test, **options) < 0.01
    (before,) = gate_hashes([GateSpec(name="nearest_training_dice", max=0.98, options=options)]).values()
    write_samples(tmp_path / "other", [ill(*ELSEWHERE)])
    options = {"reference": {"ref": str(tmp_path / "other")}}
    (after,) = gate_hashes([GateSpec(name="nearest_training_dice", max=0.98, options=options)]).values()
    assert before != after


def test_copy_distance_tells_copies_from_rows_held_out(tmp_path: Path) -> None:
    training = [grained_sample(s, s) for s in range(12)]
    unseen = [grained_sample(s, s, split="test") for s in range(20, 30)]
    uri = write_samples(tmp_path / "images", [*training, *unseen])
    gate, tools = MEASURES["copy_distance"].model_validate({"reference": {"ref": uri}}), Tools()
    pairs = [RealRow(row, None, None).case("held_out") for row in (*unseen, *training)]
    assert [pair is None for pair in pairs] == [False] * 10 + [True] * 12
    real = [gate.value(pair, tools) for pair in pairs if pair is not None]
    assert 0.2 < min(real) < max(real) < 0.9
    for before, donor in zip(unseen, training, strict=False):
        place = np.argwhere(label_mask(donor, LESION))
        image = before.image.copy()
        move = (place[:, 0] + 3, place[:, 1] - 4)
        image[(slice(None), *move)] = 0.7 * donor.image[(slice(None), *place.T)] + 90  # moved, and in another contrast
        painted = Case(before, before.replace(image=image), np.ones(before.image.shape[1:], bool))
        assert gate.value(painted, tools) < 0.01 < min(real) / 2
    own = training[0].replace(image=training[0].image * np.float32(1.1))
    assert gate.value(Case(training[0], own), tools) > 0.2, "what an edit leaves of its own source is no copy"


def test_copy_distance_knows_what_it_compares_with(tmp_path: Path) -> None:
    first, other = grained_sample(1, 1), grained_sample(2, 2)
    uris = [write_samples(tmp_path / str(n), rows) for n, rows in enumerate(([first, other], [other, first], [other]))]
    specs = [GateSpec(name="copy_distance", min=0.1, options={"reference": {"ref": uri}}) for uri in uris]
    assert len({gate_hashes([spec])["copy_distance.reference"] for spec in specs}) == 3
    row = grained_sample(3, 3, split="test")
    found = [Gates([spec])(row, row.replace(image=row.image + 1))[0].value for spec in specs[:2]]
    assert found[0] == found[1]
    lone = grained_sample(2, 5, split="test")
    (verdict,) = Gates(specs[2:])(lone, lone.replace(image=lone.image + 1))
    assert (verdict.passed, np.isnan(verdict.value)) == (False, True), "no row of another subject"
    (verdict,) = Gates(specs[:1])(slice_sample(5), slice_sample(5))
    assert "its channels and shape" in str(verdict.error)
    with pytest.raises(CheckpointError, match="sha256 ab"):
        gate_hashes([GateSpec(name="copy_distance", min=0.1, options={"reference": {"ref": uris[0], "sha256": "ab"}})])
    empty = write_samples(tmp_path / "empty", [row])
    with pytest.raises(DataError, match="training rows of one shape"):
        Gates([GateSpec(name="copy_distance", min=0.1, options={"reference": {"ref": empty}})])


def test_training_images_are_read_in_pieces_that_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = write_samples(tmp_path / "images", [grained_sample(s, s) for s in range(7)])
    row = grained_sample(9, 9, split="test")
    mask = label_mask(row, LESION)
    whole = training_images.TrainingImages.read(uri).nearest(row, mask)
    monkeypatch.setattr(training_images, "PIECE_VALUES", 2 * row.image.size)
    sizes: list[int] = []
    nearest = training_images.nearest_place
    monkeypatch.setattr(
        training_images, "nearest_place", lambda a, b, others: sizes.append(len(others)) or nearest(a, b, others)
    )
    assert training_images.TrainingImages.read(uri).nearest(row, mask) == whole
    assert sizes == [2, 2, 2, 1]


Referee = Callable[..., str]


@pytest.fixture
def referee(tmp_path: Path) -> Referee:
    """Writes a segmenter with random weights."""

    def make(regions: dict[str, tuple[str, ...]] | None = None) -> str:
        spec = ModelSpec(
            kind="segmenter",
            network=SegmenterSpec(channels=(4, 8)),
            channels=("t1",),
            labels=tuple(LABELS),
            regions=regions or {"tumour": ("necrosis", "enhancing", "oedema"), "all": ("tissue", "oedema")},
            image_size=(64, 64),
            spacing_mm=(1.0, 1.0),
        )
        uri = str(tmp_path / "referee")
        save_model(Store(uri), spec, build(spec).state_dict())
        return uri

    return make


def test_the_referee_judges_dice_and_what_is_left(referee: Referee, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = referee()
    monkeypatch.setattr(RefereeGate, "seen", lambda self, sample, tools: sample.image[0] > 500)
    levels = (0, 900, 900, 0, 900, 400)
    before = ill(*NESTED, levels=levels)
    healed = ill().replace(subject_id=before.subject_id)
    half = healed.image.copy()
    half[:, :30] = before.image[:, :30]
    options = {"model": {"ref": uri}}
    assert value("referee_dice", before, before, **options) == 1
    assert value("referee_dice", before, before.replace(image=healed.image), **options) == 0
    assert value("residual_lesion", before, healed, **options) == 0
    assert value("residual_lesion", before, healed.replace(image=half), **options) == pytest.approx(0.5, abs=0.1)
    assert np.isnan(value("residual_lesion", before, before, **options))


def test_a_referee_is_read_once_and_must_know_lesions(referee: Referee, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = referee()
    specs = [GateSpec(name=n, min=0, options={"model": {"ref": uri}}) for n in ("referee_dice", "residual_lesion")]
    gates = Gates(specs)
    monkeypatch.setattr("augengine.gates.base.load_model", None)  # every further reading would raise
    before, healed = ill(*NESTED), ill()
    for result in gates(before, healed) + gates(before, healed):
        assert result.error is None
        assert 0 <= result.value <= 1
    with pytest.raises(CheckpointError, match="needs a region of lesion labels"):
        gate_hashes([GateSpec(name="referee_dice", min=0, options={"model": {"ref": referee({"t": ("tissue",)})}})])
    with pytest.raises(CheckpointError, match="kind 'acquisition_predictor'"):
        gate_hashes([GateSpec(name="acquisition_prediction", min=0, options={"model": {"ref": uri}})])
    with pytest.raises(ConfigError, match=r"options\.model\.ref"):
        Gates([GateSpec(name="referee_dice", min=0, options={"model": {}})])
    failed, _ = gates(before, healed.replace(channels=("flair",)))
    assert not failed.passed
    assert "channels" in str(failed.error)


def test_the_predictor_is_asked_about_what_changed_only(tmp_path: Path) -> None:
    vocabulary = Vocabulary.fit([SIEMENS, GE])
    target = vocabulary.encode([GE])
    sure = 50 * target.features - 25
    sure[0, -4:] = target.features[0, -4:]
    assert belief(vocabulary, sure, target, ["manufacturer", "scan_options", "echo_time_ms"]) == pytest.approx(1)
    own = vocabulary.encode([SIEMENS]).features
    assert belief(vocabulary, 50 * own - 25, target, ["manufacturer"]) == pytest.approx(0, abs=1e-6)
    spec = ModelSpec(
        kind="acquisition_predictor",
        network=PredictorSpec(width=8, norm_groups=8),
        vocabulary=vocabulary,
        channels=("t1",),
        image_size=(32, 32),
        spacing_mm=(1.0, 1.0),
    )
    uri = str(tmp_path / "predictor")
    save_model(Store(uri), spec, build(spec).state_dict())
    before = slice_sample(1)
    options = {"model": {"ref": uri}}
    assert value("acquisition_prediction", before, before.replace(acquisition=GE), **options) == 0
    assert np.isnan(value("acquisition_prediction", before, slice_sample(3), **options))
    other = before.replace(image=before.image[:, ::-1].copy(), acquisition=GE)
    assert 0 < abs(value("acquisition_prediction", before, other, **options)) <= 1
    respelt = SIEMENS.replace(manufacturer="Siemens", model="MAGNETOM Skyra", scan_options="sfs\\pfp")
    assert np.isnan(value("acquisition_prediction", before, other.replace(acquisition=respelt), **options))


def test_what_cannot_be_measured_fails() -> None:
    before = slice_sample(1)
    broken = before.image.copy()
    broken[0, 0, 0] = np.nan
    (result,) = Gates([GateSpec(name="changed", max=9.0)])(before, before.replace(image=broken))
    assert not result.passed
    assert result.to_dict()["value"] is None
    (result,) = Gates([GateSpec(name="changed", max=9.0)])(before.replace(intensity_range=None), before)
    assert not result.passed
    assert "intensity range" in str(result.error)
    for name, gate in MEASURES.items():
        if set(gate.model_fields) <= {"lesion", "order"} and name not in ("locality", "duplicate"):
            blank = before.replace(image=np.zeros_like(before.image), label=None, intensity_range=None)
            (result,) = Gates([GateSpec(name=name, min=-9, max=9)])(blank, blank)
            assert not result.passed, name


def test_bounds_are_kept_on_both_sides_and_named() -> None:
    before = slice_sample(1)
    after = before.replace(image=before.image + 67)  # a tenth of the intensity range
    assert value("changed", before, after) == pytest.approx(0.1)
    for spec, passes in (
        (GateSpec(name="changed", min=0.09, max=0.11), True),
        (GateSpec(name="changed", min=0.2), False),
    ):
        (result,) = Gates([spec])(before, after)
        assert result.passed is passes
    assert str(result) == "changed = 0.1, must be ≥ 0.2"


def test_options_but_not_their_paths_enter_the_digest() -> None:
    def digest(**options: Any) -> str:
        spec = complete(GateSpec(name="referee_dice", min=0.5, options=options))
        return policy_digest(Policy(version=1, name="p", edit="acquisition", gates=[spec]))

    here = digest(model={"ref": "here"})
    assert here == digest(model={"ref": "there"})
    assert here == digest(model={"ref": "here"}, lesion=["necrosis", "enhancing", "oedema", "lesion"])
    assert here != digest(model={"ref": "here"}, lesion=["oedema"])
    assert here != digest(model={"ref": "here", "sha256": "ab"})
