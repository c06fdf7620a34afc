"""The contact sheet: one row per subject, with or without a truth, what is written on it, and an error without rows."""

from __future__ import annotations

import dataclasses
import io
import itertools
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from builders import SIEMENS, lesion_sample, slice_sample, write_samples
from matplotlib.contour import ContourSet
from matplotlib.figure import Figure
from matplotlib.text import Text

from augengine.errors import DataError
from augengine.gates.base import LESION
from augengine.intensity import normalise
from augengine.io.dataset import dataset_files
from augengine.io.store import Store
from augengine.records import Provenance, Sample
from augengine.report import contact_sheet as module
from augengine.report.contact_sheet import (
    DPI,
    STRIP_INCH,
    contact_sheet,
    drawn,
    most_changed,
    named_place,
    plane,
    upright,
)


def edited(source: Sample) -> Sample:
    provenance = Provenance(f"out-{source.sample_id}", source.sample_id, "p", "d", "acquisition", {})
    return source.replace(image=source.image[:, ::-1].copy(), provenance=provenance)


def draw(tmp_path: Path, subjects: int, truth: bool) -> tuple[int, int]:
    sources = [slice_sample(s, i) for s in range(subjects) for i in range(4)]
    data = Store(write_samples(tmp_path / "data", sources, per_file=100))
    out = Store(write_samples(tmp_path / "out", [edited(s) for s in sources], per_file=100))
    path = contact_sheet(data, dataset_files(data), out, dataset_files(out), truth=normalise if truth else None)
    picture = matplotlib.image.imread(path)
    assert picture[..., :3].std() > 0.1, "the picture is empty"
    return picture.shape[:2]


def test_size_follows_subjects_and_truth(tmp_path: Path) -> None:
    small, tall = draw(tmp_path / "a", 1, False), draw(tmp_path / "b", 3, False)
    wide = draw(tmp_path / "c", 3, True)
    row = STRIP_INCH * DPI
    assert tall[0] - small[0] == pytest.approx(2 * row, abs=1)
    assert wide[1] * 3 == tall[1] * 5
    assert draw(tmp_path / "d", 20, False)[0] - small[0] == pytest.approx(5 * row, abs=1)


def texts(figure: Figure) -> list[Text]:
    """What is written on a sheet and can be seen, ticks of the scales apart."""
    found = [t for t in figure.findobj(Text) if isinstance(t, Text) and t.get_text().strip() and t.get_visible()]
    return [t for t in found if not t.get_text().lstrip("−").replace(".", "").isdigit()]


def test_captions_name_ids_and_channel_and_do_not_overlap() -> None:
    long = "A manufacturer whose name fills more than the whole width of a picture, and $\\frac{1}{2}$ of the next one"
    source = lesion_sample(1, subject_id="subject_of_a_long_name" * 3)
    source = source.replace(acquisition=dataclasses.replace(SIEMENS, manufacturer=long, scan_options="O" * 90))
    other = lesion_sample(2)
    figure = drawn([(source, edited(source)), (other, edited(other))], normalise)
    figure.savefig(io.BytesIO())
    shown = texts(figure)
    boxes = [t.get_window_extent() for t in shown]
    frame = figure.bbox
    for text, box in zip(shown, boxes, strict=True):
        assert frame.x0 <= box.x0 < box.x1 <= frame.x1 + 1, text.get_text()
        assert frame.y0 <= box.y0 < box.y1 <= frame.y1 + 1, text.get_text()
    for (a, first), (b, second) in itertools.combinations(zip(shown, boxes, strict=True), 2):
        assert not first.overlaps(second), (a.get_text(), b.get_text())
    said = "\n".join(t.get_text() for t in shown)
    for sample in (source, other):
        assert f"row {edited(sample).sample_id}"[:60] in said
    assert said.count("channel flair (of t1, flair)") == 2
    assert "intensity; 0 and 1" in said
    assert "difference, in that range" in said
    assert "…" in said


def test_lesions_are_outlined_where_they_are(tmp_path: Path) -> None:
    source = lesion_sample(1)
    removed = edited(source).replace(label=np.zeros_like(source.label))
    figure = drawn([(source, removed)])
    left, right, difference = (axis for axis in figure.axes if axis.get_title())
    (outline,) = [c for c in left.collections if isinstance(c, ContourSet)]
    assert not right.collections
    assert not difference.collections
    mask = upright(np.isin(source.label, [code for name, code in source.labels.items() if name in LESION]))
    rows, columns = np.nonzero(mask)
    box = outline.get_paths()[0].get_extents()
    assert (box.x0, box.x1) == (columns.min() - 0.5, columns.max() + 0.5)
    assert (box.y0, box.y1) == (rows.min() - 0.5, rows.max() + 0.5)
    names = ", ".join(name for name in source.labels if name in LESION)
    assert any(t.get_text() == f"outlined: {names}" for t in texts(figure))
    assert any(t.get_text() == "no lesion label is outlined" for t in texts(drawn([(slice_sample(1),) * 2])))


def test_the_channel_and_the_slice_that_changed_most_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = lesion_sample(1, at_mm=(-8.0, 0.0, 4.0), size=12, voxel_mm=8.0)
    image = source.image.copy()
    image[1, :, :, 4] += 200
    image[0, 5, 5, 7] += 900
    provenance = Provenance("out", source.sample_id, "p", "d", "tumor_removal", {})
    after = source.replace(image=image, provenance=provenance)
    place = most_changed(normalise(after) - normalise(source))
    assert place == (1, 4)
    assert named_place(source, place) == "flair, slice 4"
    assert np.array_equal(plane(after.image, place), image[1, :, :, 4])
    assert most_changed(np.array([[[0.0]], [[-3.0]], [[2.0]]])) == (1,)
    assert named_place(lesion_sample(1), (1,)) == "flair"
    shown: list[np.ndarray] = []
    monkeypatch.setattr(module, "upright", lambda picture: shown.append(picture) or picture)
    data, out = Store(write_samples(tmp_path / "data", [source])), Store(write_samples(tmp_path / "out", [after]))
    contact_sheet(data, dataset_files(data), out, dataset_files(out), truth=normalise)
    expected = [normalise(s)[1, :, :, 4] for s in (source, after, after)]
    assert len(shown) == 5
    for picture, wanted in zip(shown, expected, strict=False):
        np.testing.assert_array_equal(picture, wanted)


def test_no_rows_is_an_error(tmp_path: Path) -> None:
    data = Store(write_samples(tmp_path, [slice_sample(1)]))
    with pytest.raises(DataError, match="no accepted row to show"):
        contact_sheet(data, dataset_files(data), data, [])


def test_upright_puts_anterior_on_top_and_the_patients_right_at_the_left() -> None:
    image = slice_sample(1).image[0]
    image[:] = 0
    image[-1, -1] = 1  # the most right, most anterior voxel
    assert upright(image)[0, 0] == 1
