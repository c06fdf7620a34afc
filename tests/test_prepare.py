"""Preparation: planes, slices, sizes in mm, and refusals."""

import numpy as np
import pytest
from pydantic import ValidationError

from augengine.errors import DataError
from augengine.prepare import Preparation, prepare
from augengine.records import Sample


def volume(shape: tuple[int, ...] = (12, 10, 6), affine: np.ndarray | None = None, **changes: object) -> Sample:
    image = np.random.default_rng(7).normal(100, 20, (1, *shape)).astype(np.float32)
    affine = np.diag([1.0, 1.0, 4.0, 1.0]) if affine is None else affine
    return Sample(
        image=image, affine=affine, channels=("t1",), subject_id="s", volume_id="v",
        label=(image[0] > 110).astype(np.uint8), labels={"fat": 1},
    ).replace(**changes)  # fmt: skip


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
    ):
        with pytest.raises(ValidationError):
            Preparation(**bad)
