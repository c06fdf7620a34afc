"""Brain phantoms: plausible contrast, nested labels, exact removal and site pairs, BraTS files."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from pydantic import ValidationError
from scipy import ndimage

from augengine.errors import DataError
from augengine.phantom.brain import SITES, render
from augengine.phantom.brain_anatomy import LESION_LABELS, TISSUE_LABELS, BrainAnatomy, draw_brain
from augengine.phantom.brain_cohort import BrainCohort
from augengine.phantom.write import write
from augengine.phantom.write_brats import case_name

COHORT = BrainCohort(subjects=6, seed=2, matrix=64, slices=16, sites=("north", "south", "west"))


@pytest.fixture(scope="module")
def ill() -> BrainAnatomy:
    return draw_brain("brain", 4, matrix=96, slices=32)


def median_by_tissue(anatomy: BrainAnatomy, site: str) -> dict[str, dict[str, float]]:
    sample = render(anatomy, SITES[site], noise_seed=1, bias_seed=2, subject_id="b", noise=False)
    tissues = anatomy.tissue_map()
    return {
        channel: {n: float(np.median(image[tissues == c])) for n, c in TISSUE_LABELS.items() if (tissues == c).any()}
        for channel, image in zip(sample.channels, sample.image, strict=True)
    }


@pytest.mark.parametrize("site", ["north", "south", "west"])
def test_contrast_of_each_sequence(ill: BrainAnatomy, site: str) -> None:
    medians = median_by_tissue(ill.without_lesion(), site)
    assert medians["t1"]["white_matter"] > medians["t1"]["grey_matter"] > medians["t1"]["csf"]
    assert medians["t2"]["csf"] > medians["t2"]["grey_matter"] > medians["t2"]["white_matter"]
    assert medians["flair"]["grey_matter"] > medians["flair"]["white_matter"] > 1.3 * medians["flair"]["csf"]


def test_tissue_shares_are_those_of_a_head(ill: BrainAnatomy) -> None:
    tissues = ill.without_lesion().tissue_map()
    inside = (tissues > 0).sum()
    share = {name: (tissues == code).sum() / inside for name, code in TISSUE_LABELS.items()}
    assert 0.08 < share["csf"] < 0.35
    assert 0.3 < share["grey_matter"] < 0.6
    assert 0.2 < share["white_matter"] < 0.55
    assert sum(share.values()) == pytest.approx(1)
    assert not share["necrosis"] + share["oedema"] + share["enhancing"]
    volume_ml = inside * np.prod(np.diag(ill.affine)[:3]) / 1e3
    assert 900 < volume_ml < 1900


def test_removal_pair_differs_only_near_the_tumour(ill: BrainAnatomy) -> None:
    seeds = {"noise_seed": 1, "bias_seed": 2}
    with_, without = (render(ill, SITES["south"], **seeds, subject_id="b", lesion=lesion) for lesion in (True, False))
    assert without.label is not None
    assert not without.label.any()
    changed = (with_.image != without.image).any(axis=0)
    near = ill.lesion_share() > 0
    for axis, step in itertools.product((0, 1), (-2, -1, 1, 2)):
        near |= np.roll(near, step, axis)
    assert changed.any()
    assert not changed[~near].any()
    assert with_.image[0].max() > 0
    healthy = draw_brain("brain", 4, matrix=96, slices=32, lesion=False)
    assert all(np.array_equal(healthy.fractions[n], f) for n, f in ill.fractions.items())
    assert healthy.t1_scale == ill.t1_scale


def test_a_voxel_full_of_necrosis_holds_nothing_else(ill: BrainAnatomy) -> None:
    shares = {name: np.full_like(share, name == "necrosis") for name, share in ill.lesion.items()}
    only = dataclasses.replace(ill, lesion=shares)
    sample = render(only, SITES["north"], noise_seed=1, bias_seed=2, subject_id="b", noise=False)
    # Bias is all that is left: the ratio of two channels within a voxel is a smooth field, whatever lies beneath.
    ratio = sample.image[2][ill.brain_mask] / sample.image[3][ill.brain_mask]
    tissues = ill.without_lesion().tissue_map()[ill.brain_mask]
    by_tissue = [np.median(ratio[tissues == code]) for code in np.unique(tissues)]
    assert len(by_tissue) == 3
    assert max(by_tissue) < 1.1 * min(by_tissue)


def test_enhancing_rim_lights_up_after_contrast_and_surrounds_necrosis() -> None:
    anatomies = (draw_brain("rim", n, matrix=96, slices=32) for n in range(9))
    anatomy = next(a for a in anatomies if (a.label() == 4).sum() > 100)
    sample = render(anatomy, SITES["south"], noise_seed=1, bias_seed=2, subject_id="b", noise=False)
    label, (t1, t1c, _, flair) = anatomy.label(), sample.image
    rim = label == 4
    assert np.median(t1c[rim]) > 1.5 * np.median(t1[rim])
    white = anatomy.tissue_map() == TISSUE_LABELS["white_matter"]
    assert np.median(flair[label == 2]) > 1.5 * np.median(flair[white])


def test_sites_differ_on_one_anatomy(ill: BrainAnatomy) -> None:
    scans = {name: render(ill, site, noise_seed=1, bias_seed=2, subject_id="b") for name, site in SITES.items()}
    for a, b in itertools.combinations(scans.values(), 2):
        assert np.array_equal(a.label, b.label)
        assert not np.array_equal(a.image, b.image)
        assert a.site != b.site
    assert all((s.image[:, ~ill.brain_mask] == 0).all() for s in scans.values())


def test_no_two_brains_are_alike_and_each_comes_back() -> None:
    maps = [COHORT.anatomy(i).tissue_map() for i in range(6)]
    for a, b in itertools.combinations(maps, 2):
        grey_a, grey_b = (m == TISSUE_LABELS["grey_matter"] for m in (a, b))
        assert (grey_a & grey_b).sum() / (grey_a | grey_b).sum() < 0.75
    again = BrainCohort.model_validate_json(COHORT.model_dump_json())
    assert again.scan(1).image.tobytes() == COHORT.scan(1).image.tobytes()


def test_tissue_labels_lie_under_the_lesion_and_leave_the_image_alone() -> None:
    tissue = COHORT.model_copy(update={"labels": "tissue"})
    for index in (0, 1):
        anatomy, by_lesion, by_tissue = COHORT.anatomy(index), COHORT.scan(index), tissue.scan(index)
        healthy = tissue.truth(by_tissue.subject_id, shared_noise=True)
        assert by_tissue.image.tobytes() == by_lesion.image.tobytes()
        assert len(set(by_tissue.labels.values())) == 6
        assert dict(healthy.labels) == dict(by_tissue.labels) == {**by_lesion.labels, **by_tissue.labels}
        ill = by_lesion.label > 0
        assert ill.any()
        assert np.array_equal(by_tissue.label[ill], by_lesion.label[ill])
        assert np.array_equal(by_tissue.label[~ill], healthy.label[~ill])
        assert {n for n, c in healthy.labels.items() if (healthy.label == c).any()} == {
            "csf",
            "grey_matter",
            "white_matter",
        }
        for label in (by_tissue.label, healthy.label):
            assert np.array_equal(label > 0, anatomy.brain_mask)
        pure = anatomy.fractions["white_matter"] > 0.9
        assert (healthy.label[pure] == healthy.labels["white_matter"]).all()


def test_cohort_truths() -> None:
    scan = COHORT.scan(0)
    healthy = COHORT.truth(scan.subject_id, shared_noise=True)
    assert healthy.volume_id != scan.volume_id
    share = COHORT.anatomy(0).lesion_share()
    far = np.ones(share.shape, bool)
    where = np.argwhere(share > 0)
    low, high = where.min(0) - 3, where.max(0) + 4
    far[tuple(slice(max(0, a), b) for a, b in zip(low, high, strict=True))] = False
    assert np.array_equal(scan.image[:, far], healthy.image[:, far])
    elsewhere = COHORT.truth(scan.subject_id, site="west" if scan.site != "west" else "north", lesion=True)
    assert np.array_equal(elsewhere.label, scan.label)
    with pytest.raises(DataError, match="no such site"):
        COHORT.truth(scan.subject_id, site="east")
    with pytest.raises(DataError, match="not of this phantom cohort"):
        COHORT.truth("BraTS2021_00006")
    with pytest.raises(ValidationError, match="unknown site 'east'"):
        BrainCohort(sites=("east",))


@pytest.mark.parametrize(
    ("year", "suffixes", "enhancing"),
    [
        (2021, ("_t1", "_t1ce", "_t2", "_flair", "_seg"), 4),
        (2023, ("-t1n", "-t1c", "-t2w", "-t2f", "-seg"), 3),
    ],
)
def test_brats_files(tmp_path: Path, year: int, suffixes: tuple[str, ...], enhancing: int) -> None:
    write(COHORT, tmp_path, f"brats{year}", subjects=[0, 1])  # type: ignore[arg-type]
    assert (tmp_path / "cohort.json").is_file()
    codes = set()
    for index in (0, 1):
        sample, name = COHORT.scan(index), case_name(index, year)  # type: ignore[arg-type]
        assert sorted(p.name for p in (tmp_path / name).iterdir()) == sorted(f"{name}{s}.nii.gz" for s in suffixes)
        for channel, suffix in zip(sample.image, suffixes, strict=False):
            file = nib.load(tmp_path / name / f"{name}{suffix}.nii.gz")
            assert nib.aff2axcodes(file.affine) == ("L", "P", "S")
            canonical = nib.as_closest_canonical(file)
            assert np.array_equal(np.asarray(canonical.dataobj), channel)
            assert np.allclose(canonical.affine, sample.affine, atol=1e-4)
        seg = np.asarray(nib.as_closest_canonical(nib.load(tmp_path / name / f"{name}{suffixes[4]}.nii.gz")).dataobj)
        assert sample.label is not None
        assert np.array_equal(seg == enhancing, sample.label == sample.labels["enhancing"])
        codes |= set(np.unique(seg).tolist())
    assert codes <= {0, 1, 2, enhancing}
    assert enhancing in codes


def test_a_lesion_can_be_put_where_a_label_map_has_it(ill: BrainAnatomy) -> None:
    own = ill.with_lesion(ill.label())
    assert np.mean((own.label() > 0) == (ill.label() > 0)) > 0.995
    moved = np.roll(ill.label(), 6, axis=1) * ill.brain_mask
    other = ill.with_lesion(moved)
    agreed = (other.label() == moved)[moved > 0].mean()
    assert agreed > 0.85
    seeds = {"noise_seed": 1, "bias_seed": 2, "subject_id": "b"}
    healthy = render(ill, SITES["north"], lesion=False, **seeds).image  # type: ignore[arg-type]
    image = render(other, SITES["north"], **seeds).image  # type: ignore[arg-type]
    far = ~ndimage.binary_dilation(moved > 0, iterations=6)
    assert np.array_equal(image[:, far], healthy[:, far])
    core = moved == LESION_LABELS["oedema"]
    assert image[-1][core].mean() > 1.1 * healthy[-1][core].mean()  # FLAIR
    with pytest.raises(DataError, match="anatomy's shape"):
        ill.with_lesion(moved[:-1])


def test_a_core_is_necrotic_in_a_subject_of_high_grade_alone() -> None:
    high = draw_brain("brain", 0, matrix=48, slices=16)
    label = high.label()
    bare = np.where(label == LESION_LABELS["enhancing"], 0, label).astype(np.uint8)
    low = dataclasses.replace(high, lesion={**high.lesion, "enhancing": np.zeros_like(high.lesion["core"])})
    never = high.without_lesion()
    for subject, drawn, core in (
        (high, bare, "necrosis"),
        (low, bare, "core"),
        (never, bare, "core"),
        (never, label, "necrosis"),
    ):
        lesion = subject.with_lesion(drawn).lesion
        assert lesion[core].any()
        assert not lesion[{"core": "necrosis", "necrosis": "core"}[core]].any()


def test_the_truth_with_another_lesion_has_the_scans_own_noise() -> None:
    scan = COHORT.scan(1)
    assert scan.label is not None
    label = np.where(np.arange(16) == 8, scan.label, 0).astype(np.uint8)
    truth = COHORT.truth(scan.subject_id, lesion=label, shared_noise=True)
    healthy = COHORT.truth(scan.subject_id, shared_noise=True)
    others = np.arange(16) != 8
    assert np.array_equal(truth.image[..., others], healthy.image[..., others])
    assert not np.array_equal(truth.image[..., 8], healthy.image[..., 8])
    assert truth.volume_id not in (scan.volume_id, healthy.volume_id)
