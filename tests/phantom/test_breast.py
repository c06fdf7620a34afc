"""Breast phantoms: plausible anatomy, exact pairs, and vendors that differ."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from scipy import ndimage

from augengine.errors import DataError
from augengine.phantom import physics, scanner
from augengine.phantom.breast import noiseless_signal, render
from augengine.phantom.breast_anatomy import BreastAnatomy, draw_breast
from augengine.phantom.protocols import duke_protocols, without_fat_saturation
from augengine.records import Acquisition, Sample

SMALL = {"matrix": 96, "slices": 6}
GE_3T = max(duke_protocols(), key=lambda p: p.patients).acquisition(0.5)
AVANTO = next(p for p in duke_protocols() if p.model == "Avanto" and p.patients == 93).acquisition(0.5)


@pytest.fixture(scope="module")
def ill() -> BreastAnatomy:
    return draw_breast("test", 1, lesion=True, **SMALL)


def scan(anatomy: BreastAnatomy, acquisition: Acquisition, **changes: object) -> Sample:
    settings: dict[str, object] = {"noise_seed": 1, "bias_seed": 2, "subject_id": "s", "noise": False}
    return render(anatomy, acquisition, **{**settings, **changes})  # type: ignore[arg-type]


def test_fractions_are_shares_and_labels_lie_in_the_body(ill: BreastAnatomy) -> None:
    total = sum(ill.fractions.values())
    assert total.max() <= 1 + 1e-5
    assert min(f.min() for f in ill.fractions.values()) >= 0
    assert total[:, -1].max() == 0  # air in front
    thirds = total.reshape(*ill.tissue_label.shape, 3).mean(-1)
    assert thirds[ill.tissue_label > 0].min() > 0.5


def test_density_spans_the_clinical_range() -> None:
    shares = [draw_breast("density", n, matrix=64, slices=4).density for n in range(24)]
    assert all(0.05 <= share <= 0.60 for share in shares), shares
    assert min(shares) < 0.15
    assert max(shares) > 0.35


def test_both_breasts_lie_apart_and_to_the_front(ill: BreastAnatomy) -> None:
    where = np.argwhere(ill.tissue_label > 0)
    x, y = where[:, 0] * ill.affine[0, 0] + ill.affine[0, 3], where[:, 1] * ill.affine[1, 1] + ill.affine[1, 3]
    assert 0.3 < (x > 0).mean() < 0.7
    heart = np.argwhere(ill.fractions["blood"] > 0.5)
    assert y.mean() > heart[:, 1].mean() * ill.affine[1, 1] + ill.affine[1, 3] + 30


def test_no_two_subjects_are_alike() -> None:
    labels = [draw_breast("alike", n, matrix=64, slices=4).tissue_label for n in range(8)]
    for a, b in itertools.combinations(labels, 2):
        dense_a, dense_b = a == 2, b == 2
        assert 2 * (dense_a & dense_b).sum() / (dense_a.sum() + dense_b.sum()) < 0.85


def test_equal_seeds_give_equal_bytes(ill: BreastAnatomy) -> None:
    again = draw_breast("test", 1, lesion=True, **SMALL)
    first, second = (scan(a, GE_3T, noise=True) for a in (ill, again))
    assert first.image.tobytes() == second.image.tobytes()
    assert first.label is not None
    assert second.label is not None
    assert first.label.tobytes() == second.label.tobytes()


def test_counterfactual_pair_shares_everything_but_the_contrast(ill: BreastAnatomy) -> None:
    first, second = scan(ill, GE_3T), scan(ill, AVANTO)
    assert np.array_equal(first.label, second.label)
    assert np.array_equal(first.affine, second.affine)
    assert not np.array_equal(first.image, second.image)
    assert second.acquisition == AVANTO


def test_tissue_order_flips_with_fat_saturation() -> None:
    for n, protocol in enumerate((GE_3T, AVANTO)):
        anatomy = draw_breast("flip", n, **SMALL)
        fat, dense = anatomy.tissue_label == 1, anatomy.tissue_label == 2
        saturated = noiseless_signal(anatomy, protocol)
        plain = noiseless_signal(anatomy, without_fat_saturation(protocol))
        assert np.median(saturated[dense]) > 1.5 * np.median(saturated[fat])
        assert np.median(plain[fat]) > 1.5 * np.median(plain[dense])


def test_fat_residual_follows_off_resonance_within_its_range(ill: BreastAnatomy) -> None:
    eta = scanner.fat_saturation_residual(GE_3T, ill.off_resonance_ppm)
    assert eta.min() >= 0.05
    assert eta.max() <= 0.25
    good, bad = np.abs(ill.off_resonance_ppm) < 0.1, np.abs(ill.off_resonance_ppm) > 0.6
    assert eta[good].max() < eta[bad].min()
    assert (scanner.fat_saturation_residual(without_fat_saturation(GE_3T), ill.off_resonance_ppm) == 1).all()


def test_noise_falls_with_field_and_voxel_volume() -> None:
    sigma = scanner.noise_sigma(GE_3T)
    assert scanner.noise_sigma(GE_3T.replace(field_strength_t=1.5)) == pytest.approx(2 * sigma)
    thin = GE_3T.replace(slice_thickness_mm=(GE_3T.slice_thickness_mm or 0) / 2)
    assert scanner.noise_sigma(thin) == pytest.approx(2 * sigma)


def test_noise_has_its_own_seed(ill: BreastAnatomy) -> None:
    clean, first, other = scan(ill, AVANTO), scan(ill, AVANTO, noise=True), scan(ill, AVANTO, noise=True, noise_seed=9)
    assert not np.array_equal(first.image, other.image)
    inside = ill.tissue_label == 2
    assert abs(first.image[0][inside].mean() - clean.image[0][inside].mean()) < 0.05 * clean.image[0][inside].mean()
    air = first.image[0, :, -3:]
    assert air.mean() > 0
    assert clean.image[0, :, -3:].max() == 0


def test_thick_slices_blur_through_the_plane(ill: BreastAnatomy) -> None:
    profiles = [scanner.slice_profile(t, 4 / 3, 3) for t in (1.1, 2.2)]
    assert all(p.sum() == pytest.approx(1) for p in profiles)
    assert profiles[0].max() > profiles[1].max()
    thin, thick = (noiseless_signal(ill, GE_3T.replace(slice_thickness_mm=t)) for t in (1.0, 4.0))
    assert np.abs(np.diff(thick, axis=2)).mean() < np.abs(np.diff(thin, axis=2)).mean()


def test_coil_fields_tell_the_vendors_apart(ill: BreastAnatomy) -> None:
    x, y, z = np.linspace(-150, 150, 31)[:, None, None], np.linspace(-150, 130, 29)[None, :, None], np.zeros((1, 1, 1))
    fields = [
        scanner.receive_field(a, x, y, z, np.random.default_rng(seed)) for a in (GE_3T, AVANTO) for seed in (0, 1)
    ]
    correlation = np.corrcoef([f.ravel() for f in fields])
    assert min(correlation[0, 1], correlation[2, 3]) > correlation[:2, 2:].max()
    assert all(f.min() > 0 and f.mean() == pytest.approx(1, abs=1e-3) for f in fields)


def test_intensities_are_whole_and_fit_twelve_bits(ill: BreastAnatomy) -> None:
    for acquisition in (GE_3T, without_fat_saturation(AVANTO)):
        image = scan(ill, acquisition, noise=True).image
        assert (image == np.rint(image)).all()
        assert image.min() >= 0
        assert 300 < image.max() <= 4095


def test_removal_pair_differs_only_near_the_lesion(ill: BreastAnatomy) -> None:
    assert ill.lesion is not None
    healthy = draw_breast("test", 1, lesion=False, **SMALL)
    assert all(np.array_equal(healthy.fractions[n], f) for n, f in ill.fractions.items())
    assert np.array_equal(healthy.tissue_label, ill.without_lesion().label())
    with_, without = noiseless_signal(ill, GE_3T), noiseless_signal(ill.without_lesion(), GE_3T)
    touched = ill.lesion.reshape(*ill.tissue_label.shape, 3).max(-1) > 0
    far = ~ndimage.binary_dilation(touched, np.ones((5, 5, 3)))
    assert np.abs(with_ - without)[far].max() == 0
    assert np.abs(with_ - without)[ill.lesion_mask()].mean() > 0


def test_a_voxel_full_of_lesion_holds_nothing_else(ill: BreastAnatomy) -> None:
    assert ill.lesion is not None
    assert ill.lesion_kind is not None
    filled = dataclasses.replace(ill, lesion=np.ones_like(ill.lesion))
    pure = physics.tissue_gradient_echo(
        ill.lesion_kind,
        repetition_time_ms=GE_3T.repetition_time_ms or 0,
        echo_time_ms=GE_3T.echo_time_ms or 0,
        flip_angle_deg=GE_3T.flip_angle_deg or 0,
        field_strength_t=3.0,
        t1_scale=ill.t1_scale[ill.lesion_kind],
    )
    assert np.allclose(noiseless_signal(filled, GE_3T), pure, rtol=1e-4)


def test_lesion_label_on_request(ill: BreastAnatomy) -> None:
    plain, named = scan(ill, GE_3T), scan(ill, GE_3T, lesion_label=True)
    assert dict(plain.labels) == {"fat": 1, "fibroglandular": 2}
    assert dict(named.labels) == {"fat": 1, "fibroglandular": 2, "lesion": 3}
    assert plain.label is not None
    assert named.label is not None
    mask = ill.lesion_mask()
    assert mask.any()
    assert (plain.label[mask] == 2).all()
    assert (named.label[mask] == 3).all()
    assert np.array_equal(plain.label[~mask], named.label[~mask])


def test_missing_parameter_is_named(ill: BreastAnatomy) -> None:
    with pytest.raises(DataError, match="echo_time_ms"):
        scan(ill, GE_3T.replace(echo_time_ms=None))
