"""One absurd row of a well stored data set, through every reader of labelled rows: refused in one line, by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from fuzz import row_consumers

from augengine.errors import DataError
from augengine.io.dataset import write_dataset
from augengine.io.shards import SCHEMA, label_map

Use = Callable[[str, str], object]
Row = dict[str, Any]

references, training, balanced = row_consumers._references, row_consumers._training, row_consumers._balanced
inventory, lesions = row_consumers._inventory, row_consumers._lesions


def written(folder: Path, changes: Row, which: int = 0, lost: str = "") -> list[str]:
    """Folders of real and of augmented rows, of which the first of one kind is changed, or one column is lost."""
    places = []
    for n, (name, kept) in enumerate(zip(("real", "made"), row_consumers._rows(), strict=True)):
        rows = [dict(row) for row in kept]
        if n == which:
            rows[0].update(changes)
        table = pa.Table.from_pylist(rows, schema=SCHEMA)
        table = table.drop_columns([lost]) if lost and n == which else table
        places.append(write_dataset(str(folder / name), [table]).uri)
    return places


@pytest.mark.parametrize("use", [references, training, balanced, lesions, inventory])
def test_sound_rows_are_read(tmp_path: Path, use: Use) -> None:
    use(*written(tmp_path, {}))


@pytest.mark.parametrize(
    ("use", "changes", "rule"),
    [
        (references, {"label": bytes(7)}, "a label map must fit image_shape"),
        (references, {"label_names": None}, "label_names must be stated"),
        (references, {"label_names": ["a"], "label_codes": [1, 2]}, "every label must have a code"),
        (references, {"image_shape": []}, "image_shape must be"),
        (training, {"label_names": ["fat", "fat", "cyst"]}, "different names"),
        (training, {"label_codes": [1]}, "every label must have a code"),
        (training, {"spacing_mm": None}, "spacing_mm must be stated"),
        (training, {"acquisition": {"echo_time_ms": float("inf")}}, "echo_time_ms must be a number"),
        (training, {"subject_id": None}, "subject_id must be stated"),
        (balanced, {"label_codes": None}, "label_codes must be stated"),
        (inventory, {"label_codes": [1, 2]}, "every label must have a code"),
        (inventory, {"label": bytes(9)}, "a label map must fit image_shape"),
        (inventory, {"acquisition": None}, "acquisition must be stated"),
        (lesions, {"label": bytes(9)}, "pixels must fit image_shape"),
    ],
)
def test_an_absurd_row_is_refused_by_its_rule_and_named(tmp_path: Path, use: Use, changes: Row, rule: str) -> None:
    with pytest.raises(DataError) as caught:
        use(*written(tmp_path, changes))
    assert rule in str(caught.value)
    assert str(row_consumers._rows()[0][0]["sample_id"]) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_damaged_provenance_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="how it was made"):
        balanced(*written(tmp_path, {"provenance": "x"}, which=1))


def test_an_absurd_augmented_row_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="every label must have a code"):
        balanced(*written(tmp_path, {"label_codes": [1]}, which=1))


@pytest.mark.parametrize(
    ("use", "lost"), [(lesions, "split"), (references, "image_shape"), (references, "label_codes")]
)
def test_a_lost_column_is_one_line(tmp_path: Path, use: Use, lost: str) -> None:
    with pytest.raises(DataError) as caught:
        use(*written(tmp_path, {}, lost=lost))
    assert "\n" not in str(caught.value)


def test_rows_of_other_splits_do_not_end_a_training(tmp_path: Path) -> None:
    """Nobody reads them."""
    real, made = written(tmp_path, {"split": "test", "spacing_mm": None})
    training(real, made)


def test_a_label_map_is_a_view_of_its_bytes() -> None:
    found = label_map({"label": bytes(range(6)), "image_shape": [1, 2, 3]})
    assert found is not None
    assert found.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert label_map({"label": None, "image_shape": [1, 2, 3]}) is None
