"""Preparation: planes, slices, sizes in mm, and refusals."""

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.ndimage import binary_dilation

from augengine.errors import DataError
from augengine.intensity import normalise
from augengine.prepare import Preparation, prepare
from augengine.records import IntensityRule, Sample


def volume(shape: tuple[int, ...] = (12, 10, 6), affine: np.ndarray | None = None, **changes: object) -> Sample:
    image = np.random.default_rng(7).normal(100, 20, (1, *shape)).astype(np.float32)
    affine = np.diag([1.0, 1.0, 4.0, 1.0]) if affine is None else affine
    return Sample(
        image=image,
        affine=affine,
        channels=("t1",),
        subject_id="s",
        volume_id="v",
        label=(image[0] > 110).astype(np.uint8),
        labels={"fat": 1},
    ).replace(**changes)


def oblique() -> np.ndarray:
    c, s = np.cos(0.35), np.sin(0.35)
    affine = np.eye(4)
    affine[:3, :3] = np.array([[-c, s, 0], [-s, -c, 0], [0, 0, 1]]) @ np.diag([0.8, 0.9, 3])
    affine[:3, 3] = 30, -12, 8
    return affine


def world(sample: Sample, index: tuple[float, ...]) -> np.ndarray:
    return sample.affine[:3, :3] @ index + sample.affine[:3, 3]


@pytest.mark.parametrize("plane", ["acquired", "axial", "coronal", "sagittal"])
@pytest.mark.parametrize("slices", [True, False])
def test_every_voxel_keeps_its_world_position(plane: str, slices: bool) -> None:
    source = volume(affine=oblique())
    out = prepare(source, Preparation(plane=plane, slices=slices))
    at = {tuple(np.round(world(source, i), 4)): source.image[0][i] for i in np.ndindex(source.image.shape[1:])}
    labels = {tuple(np.round(world(source, i), 4)): source.label[i] for i in np.ndindex(source.image.shape[1:])}
    count = 0
    for sample in out:
        for index in np.ndindex(sample.image.shape[1:]):
            key = tuple(np.round(world(sample, (*index, 0)[:3] if slices else index), 4))
            assert at[key] == sample.image[0][index]
            assert labels[key] == sample.label[index]
            count += 1
    assert count == source.image.size


def test_acquired_plane_is_the_coarsest_axis_and_last_on_ties() -> None:
    sagittal = np.diag([5.0, 1.0, 1.0, 1.0])
    assert prepare(volume(affine=sagittal), Preparation())[0].image.shape == (1, 10, 6)
    assert len(prepare(volume(affine=np.eye(4)), Preparation())) == 6
    assert len(prepare(volume(affine=np.diag([1, 1.0002, 1, 1.0])), Preparation())) == 6


def test_end_slices_are_dropped_and_indices_stay() -> None:
    source = volume()
    out = prepare(source, Preparation(drop_end_slices=2))
    assert [s.slice_index for s in out] == [2, 3]
    np.testing.assert_array_equal(out[0].image, source.image[..., 2])
    np.testing.assert_allclose(world(out[0], (0, 0, 0)), (0, 0, 8))
    assert out[0].sample_id == "v#0002"
    with pytest.raises(DataError, match="must leave one"):
        prepare(source, Preparation(drop_end_slices=3))


def test_slices_know_how_far_they_lie_from_the_ends_of_what_was_acquired() -> None:
    source = volume((12, 10, 6), np.diag([1.0, 1.0, 3.0, 1.0]))
    assert [s.slab_end_mm for s in prepare(source, Preparation())] == [1.5, 4.5, 7.5, 7.5, 4.5, 1.5]
    assert [s.slab_end_mm for s in prepare(source, Preparation(drop_end_slices=2))] == [7.5, 7.5]
    assert [s.slab_end_mm for s in prepare(source, Preparation(slices=False, drop_end_slices=1))] == [4.5]
    (thin,) = prepare(source, Preparation(slices=False, spacing_mm=1.0))
    assert thin.slab_end_mm == pytest.approx(0.5)
    assert {s.slab_end_mm for s in prepare(source, Preparation(), slice_by_slice=True)} == {None}  # of no slab
    assert {s.slab_end_mm for s in prepare(source, Preparation(plane="sagittal"))} == {None}  # cut across the slices
    assert {s.slab_end_mm for s in prepare(source, Preparation(plane="axial"))} == {1.5, 4.5, 7.5}


def test_size_fits_the_field_of_view_isotropically() -> None:
    affine = np.diag([1.0, 2.0, 5.0, 1.0])  # 40 x 60 mm in plane
    out = prepare(volume((40, 30, 4), affine), Preparation(size=30))[0]
    assert out.image.shape == (1, 30, 30)
    np.testing.assert_allclose(out.spacing_mm, (2, 2, 5))
    assert (out.image[0, :5] == 0).all()  # 10 mm of padding on each side
    assert (out.image[0, 5:25] > 0).all()
    # Centres of both fields of view are the same point.
    np.testing.assert_allclose(world(out, (14.5, 14.5, 0))[:2], (19.5, 29))


def test_spacing_alone_and_with_size_and_volumes() -> None:
    source = volume((40, 30, 8), np.diag([1.0, 1.0, 2.0, 1.0]))
    assert prepare(source, Preparation(spacing_mm=2))[0].image.shape == (1, 20, 15)
    both = prepare(source, Preparation(spacing_mm=2, size=16))[0]
    assert both.image.shape == (1, 16, 16)
    np.testing.assert_allclose(both.spacing_mm[:2], 2)
    (whole,) = prepare(source, Preparation(slices=False, size=20))
    assert whole.image.shape == (1, 20, 20, 8)
    np.testing.assert_allclose(whole.spacing_mm, 2)


def test_intensity_range_is_that_of_the_whole_source() -> None:
    source = volume()
    expected = np.percentile(source.image[0], (10, 99))[None]
    for sample in prepare(source, Preparation(size=16, drop_end_slices=1)):
        np.testing.assert_allclose(sample.intensity_range, expected)
        assert sample.image.dtype == np.float32


def test_pure_and_deterministic() -> None:
    source = volume(affine=oblique())
    before = source.image.copy()
    first, second = (prepare(source, Preparation(size=16)) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert a.image.tobytes() == b.image.tobytes()
    first[0].image[:] = -1
    np.testing.assert_array_equal(source.image, before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": np.full((1, 4, 4, 4), np.nan, np.float32), "label": None}, "64 NaN or infinite"),
        ({"image": np.ones((1, 4, 4, 4), np.float32), "label": None}, "must not be constant"),
        ({"image": np.ones((1, 4, 4), np.float32), "label": None}, "needs volumes"),
        ({"image": np.ones((1, 4, 0, 4), np.float32), "label": None}, "empty"),
    ],
)
def test_refusals(change: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        prepare(volume(**change), Preparation())


def scaled(*tops: float) -> Sample:
    """The same brain in several channels, each to another top; skull-stripped, so air is exactly 0."""
    rng = np.random.default_rng(0)
    brain = np.zeros((40, 40, 12), bool)
    brain[6:34, 6:34] = True
    image = np.stack([np.round(brain * rng.uniform(0.3, 1, brain.shape) * top) for top in tops]).astype(np.float32)
    return volume(image=image, channels=tuple(f"c{n}" for n in range(len(tops))), label=None)


def test_every_channel_has_its_own_range_and_keeps_its_contrast() -> None:
    source = scaled(30000, 25000, 250, 120)
    sample = prepare(source, Preparation())[5]
    expected = [np.percentile(channel, (10, 99)) for channel in source.image]
    np.testing.assert_allclose(sample.intensity_range, expected)
    spread = normalise(sample)[:, 6:34, 6:34].std((1, 2))
    np.testing.assert_allclose(spread, 0.2, atol=0.01)  # with one range for all, the last two have less than 0.01


def test_percentiles_and_the_voxels_they_are_taken_of() -> None:
    source = scaled(1000, 500)
    (whole,) = prepare(source, Preparation(slices=False, percentiles=(0, 99.5), foreground="nonzero"))
    expected = [np.percentile(channel[channel != 0], (0, 99.5)) for channel in source.image]
    np.testing.assert_allclose(whole.intensity_range, expected)
    assert whole.intensity_range[0][0] > 250
    assert whole.intensity_rule == IntensityRule((0.0, 99.5), "nonzero")
    assert prepare(source, Preparation())[0].intensity_rule == IntensityRule()


def test_a_channel_without_contrast_is_named() -> None:
    source = scaled(1000, 500)
    image = source.image.copy()
    image[1] = 0
    image[1, 0, 0, 0] = 5
    with pytest.raises(DataError, match="percentiles 10 and 99 of channel 'c1' must differ"):
        prepare(source.replace(image=image), Preparation())


def air_of(sample: Sample) -> np.ndarray:
    """What stands in the columns that `size` added at both ends of the first axis, by channel."""
    added = np.concatenate([sample.image[:, :6], sample.image[:, -6:]], axis=1)
    return np.stack([np.unique(channel) for channel in added])


def test_what_size_adds_is_background() -> None:
    """z-scores with air at -1.5, magnitudes, and magnitudes whose interpolation went a little below 0."""
    rng = np.random.default_rng(0)
    z = np.full((24, 40, 6), -1.5, np.float32)
    z[4:20, 8:32] = rng.normal(0.5, 0.4, (16, 24, 6))
    magnitude = rng.integers(50, 900, z.shape).astype(np.float32)  # tissue up to the rim
    ringing = np.where(z > -1.5, magnitude, 0)
    ringing[3, 8:32] = -7
    source = volume(image=np.stack([z, magnitude, ringing]), channels=("z", "m", "r"), label=None)
    for preparation in (Preparation(size=40), Preparation(size=44, spacing_mm=1.0), Preparation(size=40, slices=False)):
        for sample in prepare(source, preparation):
            np.testing.assert_array_equal(air_of(sample).ravel(), [-1.5, 0, 0])


def test_nothing_foreign_is_mixed_in_at_the_border() -> None:
    """Between the last measured voxel and what is added, there is no third value."""
    z = np.full((24, 40, 6), -1.5, np.float32)
    z[8:16, 12:28] = np.random.default_rng(0).normal(0.5, 0.4, (8, 16, 6))
    full = np.full(z.shape, 400, np.float32)
    full[8:16, 12:28] = 800
    source = volume(image=np.stack([z, full]), channels=("z", "full"), label=None)
    for spacing in (0.7, 1.0, 1.6):
        sample = prepare(source, Preparation(size=64, spacing_mm=spacing))[3]
        outside = sample.image[1] == 0
        assert 0.1 < outside.mean() < 0.95
        np.testing.assert_allclose(sample.image[1][~outside].min(), 400, rtol=1e-6)
        np.testing.assert_array_equal(np.unique(sample.image[0][outside]), [np.float32(-1.5)])
        rim = binary_dilation(outside, iterations=2) & ~outside
        np.testing.assert_allclose(sample.image[0][rim], -1.5, rtol=1e-6)


def padded(value: float, low: int = 1) -> tuple[Sample, np.ndarray]:
    """A round field of view whose corners hold a value that stands for "not measured"."""
    image = np.random.default_rng(1).integers(low, 900, (1, 40, 40, 8)).astype(np.float32)
    i, j = np.mgrid[:40, :40] - 19.5
    outside = np.repeat((i**2 + j**2 > 19.5**2)[..., None], 8, axis=2)
    image[:, outside] = value
    return volume(image=image, label=outside.astype(np.uint8), labels={"corner": 1}), outside


@pytest.mark.parametrize("value", [-32768.0, 32767.0, np.nan])
def test_what_was_not_measured_counts_for_nothing(value: float) -> None:
    source, outside = padded(value)
    (sample,) = prepare(source, Preparation(slices=False), outside=outside)
    np.testing.assert_allclose(sample.intensity_range, [np.percentile(source.image[0][~outside], (10, 99))])
    assert np.unique(sample.image[0][outside]).tolist() == [0]
    np.testing.assert_array_equal(sample.image[0][~outside], source.image[0][~outside])
    np.testing.assert_array_equal(sample.label, outside)  # turned and flipped alike, and otherwise left alone


def test_what_was_not_measured_is_no_part_of_resampled_voxels() -> None:
    source, outside = padded(-32768.0)
    flipped = source.replace(affine=np.diag([-1.0, 1.0, 4.0, 1.0]), image=source.image, label=None)
    lopsided = outside.copy()
    lopsided[:2] = True  # a wrong axis or direction would leave padding values in the image
    image = np.where(lopsided, np.float32(-32768), source.image)
    for sample in prepare(flipped.replace(image=image), Preparation(size=24), outside=lopsided):
        assert sample.image.min() >= 0
    signed, outside = padded(-32768.0, low=-900)
    measured = signed.image[0][~outside]
    (sample,) = prepare(signed, Preparation(slices=False), outside=outside)
    (air,) = np.unique(sample.image[0][outside])
    assert abs(air) < 60  # the median of the measured rim, not the smallest measured value
    assert measured.min() < -890


def test_nothing_measured_is_refused() -> None:
    source, outside = padded(0.0)
    for wrong in (np.ones_like(outside), outside[:-1]):
        with pytest.raises(DataError, match="must have been measured"):
            prepare(source, Preparation(), outside=wrong)


def test_slices_are_cut_along_the_axis_that_was_acquired() -> None:
    isotropic = volume((12, 10, 8), np.eye(4))
    for axis, shape in ((0, (1, 10, 8)), (1, (1, 12, 8)), (2, (1, 12, 10))):
        assert {s.image.shape for s in prepare(isotropic, Preparation(), acquired_axis=axis)} == {shape}
    # Array axes that run to posterior, right and superior: the first is the canonical second.
    turned = np.zeros((4, 4))
    turned[1, 0], turned[0, 1], turned[2, 2], turned[3, 3] = -1, 1, 1, 1
    samples = prepare(volume((12, 10, 8), turned), Preparation(), acquired_axis=0)
    assert [s.image.shape for s in samples] == [(1, 10, 8)] * 12
    assert prepare(isotropic, Preparation(plane="axial"), acquired_axis=0)[0].image.shape == (1, 12, 10)
    thin = volume((12, 10, 8), np.diag([1.0, 1.0, 0.9, 1.0]))  # slices closer than the pixels are wide
    assert len(prepare(thin, Preparation(), acquired_axis=2)) == 8


@pytest.mark.parametrize("thickness_mm", [1.0, 5.0])
def test_a_single_slice_lies_in_plane_however_thick_it_is(thickness_mm: float) -> None:
    (sample,) = prepare(volume((12, 10, 1), np.diag([1.5, 1.5, thickness_mm, 1.0])), Preparation())
    assert sample.image.shape == (1, 12, 10)
    (sample,) = prepare(volume((1, 10, 12), np.diag([thickness_mm, 1.5, 1.5, 1.0])), Preparation())
    assert sample.image.shape == (1, 10, 12)


def test_nearly_constant_image_is_refused() -> None:
    image = np.zeros((1, 20, 20, 10), np.float32)
    image[0, 0, 0, 0] = 5
    with pytest.raises(DataError, match="percentile"):
        prepare(volume(image=image, label=None), Preparation())


def test_bad_settings_are_refused() -> None:
    for bad in (
        {"size": 0},
        {"plane": "oblique"},
        {"drop_end_slices": -1},
        {"size": 8, "spacing_mm": 0.1},
        {"sizes": 3},
        {"percentiles": (99, 10)},
        {"percentiles": (-1, 99)},
        {"foreground": "brain"},
    ):
        with pytest.raises(ValidationError):
            Preparation(**bad)


def test_percentiles_of_the_body_do_not_depend_on_how_much_air_there_is() -> None:
    rng = np.random.default_rng(0)
    body = np.zeros((40, 40, 4), bool)
    body[8:32, 8:32] = True
    noise = np.hypot(*rng.normal(0, 10, (2, 40, 40, 4)))
    near = np.where(body, rng.uniform(200, 1000, body.shape), noise).astype(np.float32)
    far = np.pad(near, ((40, 40), (40, 40), (0, 0)), mode="symmetric")
    far[~np.pad(body, ((40, 40), (40, 40), (0, 0)))] = np.hypot(*rng.normal(0, 10, (2, 120, 120, 4)))[
        ~np.pad(body, ((40, 40), (40, 40), (0, 0)))
    ]
    found = {}
    for foreground in ("all", "body"):
        rule = Preparation(percentiles=(0, 99), foreground=foreground)
        found[foreground] = [
            prepare(volume(image=image[None], label=None, labels={}), rule)[0].intensity_range[0][1]
            for image in (near, far)
        ]
    wanted = np.percentile(near[body], 99)
    np.testing.assert_allclose(found["body"], wanted, rtol=0.01)
    assert found["all"][1] < 0.97 * found["all"][0]  # what the former rule makes of a wider field of view


@pytest.mark.parametrize("flip", [False, True])
def test_a_body_is_looked_for_in_slices_however_the_file_stores_them(flip: bool) -> None:
    rng = np.random.default_rng(0)
    image = np.zeros((1, 40, 40, 8), np.float32)
    image[:, 8:32, 8:32, 1:-1] = rng.uniform(100, 500, (24, 24, 6))
    image[:, 16:24, 16:24] = 0  # a cavity, open at both ends of the stack
    affine = np.diag([1.0, 1.0, 4.0, 1.0])
    if flip:
        image, affine = image.transpose(0, 3, 1, 2), affine[:, [2, 0, 1, 3]]
    (found,) = {
        s.intensity_range
        for s in prepare(
            volume(image=image, affine=affine, label=None, labels={}),
            Preparation(percentiles=(5, 99), foreground="body"),
        )
    }
    assert found[0][0] == 0.0  # the cavity belongs to the body: a ninth of it is 0
