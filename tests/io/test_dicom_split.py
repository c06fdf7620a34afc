"""One series: what rounding divides is one volume; what tags tell apart are several; what they do not is refused."""

from pathlib import Path

import numpy as np
import pytest
from dicom_files import AXIAL, CORONAL, SAGITTAL, block, errors, found, images, unused, volumes, write_slices

from augengine.errors import DataError

A, B, C = block(seed=1), block(seed=2), block(seed=3)
TILT = np.arcsin(0.0005)


def tilted(extra: float) -> dict[str, object]:
    """Cosines that lie on the edge of a rounding to three digits."""
    c, s = np.cos(TILT + extra), np.sin(TILT + extra)
    return {"ImageOrientationPatient": [f"{v:.9f}" for v in (c, s, 0, -s, c, 0)]}


def same(arrays: list[np.ndarray], *wanted: np.ndarray) -> bool:
    return len(arrays) == len(wanted) and all(any(np.array_equal(a, w) for a in arrays) for w in wanted)


@pytest.mark.parametrize("odd", [(1, 3, 5), (0, 1, 4)])
@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"EchoTime": "2.4"}, {"EchoTime": "2.4004"}),
        ({"FlipAngle": "10"}, {"FlipAngle": "10.001"}),
        ({"InversionTime": "900"}, {"InversionTime": "900.2"}),
        ({"RepetitionTime": "4.1"}, {"RepetitionTime": "4.1004"}),
        ({"PixelSpacing": ["0.70312"] * 2}, {"PixelSpacing": ["0.703125"] * 2}),
        ({"PixelSpacing": ["0.7031501"] * 2}, {"PixelSpacing": ["0.7031499"] * 2}),
        (tilted(1e-7), tilted(-1e-7)),
    ],
)
def test_rounding_noise_divides_no_volume(tmp_path: Path, one: dict, other: dict, odd: tuple[int, ...]) -> None:
    write_slices(tmp_path / "p", A, per_slice=lambda k: other if k in odd else one)
    (volume,) = volumes(tmp_path)
    np.testing.assert_array_equal(volume.sample.image[0], A)
    assert volume.sample.spacing_mm[2] == pytest.approx(3, abs=1e-6)
    assert volume.acquired_axis == 2
    assert volume.notes == []
    assert volume.sample.acquisition.repetition_time_ms == pytest.approx(4.1, abs=1e-3)


def test_real_differences_divide(tmp_path: Path) -> None:
    for n, x in enumerate((A, B, C)):
        write_slices(tmp_path / "p", x, name=f"e{n}_{{:03d}}.dcm", EchoTime=str(5 + 10 * n))
    assert [s.acquisition.echo_time_ms for s in found(tmp_path)[1]] == [5, 15, 25]
    assert same(images(tmp_path), A, B, C)


def test_two_repetition_times_with_one_echo_time(tmp_path: Path) -> None:
    for n, x in enumerate((A, B)):
        write_slices(tmp_path / "p", x, name=f"e{n}_{{:03d}}.dcm", RepetitionTime=str(20 + 80 * n))
    assert [s.acquisition.repetition_time_ms for s in found(tmp_path)[1]] == [20, 100]
    assert same(images(tmp_path), A, B)


def test_a_triggered_volume_has_no_one_repetition_time(tmp_path: Path) -> None:
    write_slices(tmp_path / "p", A, per_slice=lambda k: {"RepetitionTime": str(2000 + 37 * k)})
    (source,) = found(tmp_path)[1]
    assert source.acquisition.repetition_time_ms is None
    assert source.notes == ("repetition_time_ms differs from slice to slice (2000 to 2185) and is left out",)
    assert same(images(tmp_path), A)


@pytest.mark.parametrize(
    "tags",
    [
        lambda n, k: {"AcquisitionNumber": n + 1},
        lambda n, k: {"TriggerTime": str(1000 * n)},
        lambda n, k: {"AcquisitionTime": f"10000{n}"},
        # Each slice its own time, phase after phase, also across midnight.
        lambda n, k: {"AcquisitionTime": f"10{n}{k}00", "AcquisitionNumber": 6 * n + k},
        lambda n, k: {"AcquisitionDateTime": f"2020010{1 + n}{'2359' if n == 0 else '0001'}{10 + k}"},
    ],
)
def test_phases_of_a_dynamic_series(tmp_path: Path, tags) -> None:  # type: ignore[no-untyped-def]
    for n, x in enumerate((A, B)):
        write_slices(tmp_path / "p", x, name=f"{n}_{{:03d}}.dcm", per_slice=lambda k, n=n: tags(n, k))
    arrays = images(tmp_path)
    assert np.array_equal(arrays[0], A)
    assert np.array_equal(arrays[1], B)


def test_phases_that_nothing_tells_apart_are_refused(tmp_path: Path) -> None:
    for n, x in enumerate((A, B)):  # slices in turn: 1a 1b 2a 2b …, at times that tell no phase
        write_slices(
            tmp_path / "p",
            x,
            name=f"{n}_{{:03d}}.dcm",
            per_slice=lambda k, n=n: {"AcquisitionTime": f"1000{2 * k + n:02d}"},
        )
    reader, (source,) = found(tmp_path)
    assert source.error is None
    with pytest.raises(DataError, match="one image per position"):
        reader.read(source)


def test_a_phase_that_broke_off_and_one_that_lost_a_slice(tmp_path: Path) -> None:
    for n, keep in enumerate(((0, 1, 2, 3, 4, 5), (0, 1, 2, 3), (0, 1, 3, 4, 5))):
        x = block(seed=n)
        write_slices(
            tmp_path / "p",
            x[..., list(keep)],
            name=f"{n}_{{:03d}}.dcm",
            AcquisitionNumber=n,
            positions=[(0, 0, 3 * k) for k in keep],
        )
    whole, broken_off, gap = errors(tmp_path)
    assert whole is broken_off is None
    assert "about 1 missing" in str(gap)


@pytest.mark.parametrize("tag", ["TemporalPositionIdentifier", "AcquisitionNumber", "TriggerTime"])
def test_tags_that_count_slices_divide_nothing(tmp_path: Path, tag: str) -> None:
    write_slices(tmp_path / "p", A, per_slice=lambda k: {tag: str(k + 1)})
    assert same(images(tmp_path), A)


def test_a_second_acquisition_between_the_slices_of_the_first(tmp_path: Path) -> None:
    for n, x in enumerate((A, B)):
        write_slices(
            tmp_path / "p",
            x,
            name=f"{n}_{{:03d}}.dcm",
            AcquisitionNumber=n + 1,
            positions=[(0, 0, 3 * k + 1.5 * n) for k in range(6)],
        )
    assert same(images(tmp_path), A, B)


def test_two_passes_of_one_volume_stay_together(tmp_path: Path) -> None:
    write_slices(tmp_path / "p", A, step_mm=1.5, SliceThickness="1.5", per_slice=lambda k: {"AcquisitionNumber": k % 2})
    assert same(images(tmp_path), A)


def test_slabs_are_volumes_of_their_own_where_no_image_is_missing(tmp_path: Path) -> None:
    x = block((12, 10, 16))
    places = [(v, 0, 0) for v in [-120 + 3 * k for k in range(8)] + [60 + 3 * k for k in range(8)]]
    paths = write_slices(tmp_path / "p", x, orientation=SAGITTAL, positions=places)
    reader, sources = found(tmp_path)
    assert all("one of 2 slabs" in s.notes[0] for s in sources)
    assert same(images(tmp_path), x[..., 7::-1], x[..., :7:-1])  # sorted along the normal, towards the right
    left = [float(reader.read(s).sample.affine[0, 3]) for s in sources]
    assert sorted(left) == [-81, 99]  # RAS: the slices nearest the left come first
    paths[5].unlink()  # now the numbers have a gap, too: nobody knows what else is missing
    (error,) = errors(tmp_path)
    assert "instead of 3.00" in str(error)


def test_a_three_plane_localiser_is_named(tmp_path: Path) -> None:
    for n, plane in enumerate((AXIAL, SAGITTAL, CORONAL)):
        write_slices(
            tmp_path / "p",
            block((12, 10, 3), n),
            name=f"l{n}_{{:03d}}.dcm",
            orientation=plane,
            step_mm=10,
            series="1.2.3",
        )
    assert errors(tmp_path) == []
    assert unused(tmp_path) == {"p/": "localiser"}
    write_slices(tmp_path / "p", A)
    assert same(images(tmp_path), A)
    assert set(unused(tmp_path).values()) == {"series 0: localiser"}


def test_two_planes_are_two_volumes(tmp_path: Path) -> None:
    write_slices(tmp_path / "p", A)
    write_slices(tmp_path / "p", B, name="c{:03d}.dcm", orientation=SAGITTAL)
    assert len(images(tmp_path)) == 2


def test_part_numbers_do_not_depend_on_names(tmp_path: Path) -> None:
    for root, names in (("a", "xy"), ("b", "yx")):
        for n, x in enumerate((A, B)):
            write_slices(tmp_path / root / "p", x, name=f"{names[n]}{{:03d}}.dcm", EchoTime=str(5 + 10 * n))
    first, second = ([(s.volume_id, s.acquisition) for s in found(tmp_path / root)[1]] for root in "ab")
    assert first == second
    assert first[0][0] + "-1" == first[1][0]
