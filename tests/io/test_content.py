"""The digest of a data set: every kind of change to its rows is another one, and a listed file is not read again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import slice_sample, write_samples

from augengine.io.content import content_digest, file_sha256
from augengine.io.store import Store
from augengine.records import Acquisition, Sample

SAMPLES = [slice_sample(n, split="train" if n else "val") for n in range(4)]
CERTAIN = np.full(SAMPLES[0].image.shape[1:], 255, np.uint8)
CHANGES: dict[str, dict[str, Any]] = {
    "id": {"volume_id": "S900"},
    "subject": {"subject_id": "S900"},
    "split": {"split": "test"},
    "acquisition": {"acquisition": Acquisition("Philips")},
    "label": {"label": np.roll(SAMPLES[2].label, 1)},  # type: ignore[arg-type]
    "no label": {"label": None},
    "names of labels": {"labels": {"gland": 1}},
    "confidence": {"label_confidence": CERTAIN},
    # The same values at other places: as many bytes, compressed or not.
    "pixels": {"image": SAMPLES[2].image[:, ::-1].copy()},
    "range": {"intensity_range": (31.0, 700.0)},
}


def digest_of(folder: Path, samples: list[Sample]) -> str:
    store = Store(write_samples(folder, samples, per_file=2))
    return content_digest(store, store.names("", ".parquet"))


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_one_row_is_another_data_set(change: str, tmp_path: Path) -> None:
    others = [s.replace(**CHANGES[change]) if n == 2 else s for n, s in enumerate(SAMPLES)]
    before = digest_of(tmp_path / "a", SAMPLES)
    assert digest_of(tmp_path / "again", SAMPLES) == before
    assert digest_of(tmp_path / "b", others) != before


def test_rows_missing_added_or_in_another_order_are_another_data_set(tmp_path: Path) -> None:
    variants = [SAMPLES, SAMPLES[:-1], [*SAMPLES, slice_sample(9)], SAMPLES[::-1], SAMPLES[2:] + SAMPLES[:2]]
    assert len({digest_of(tmp_path / str(n), rows) for n, rows in enumerate(variants)}) == len(variants)


def test_what_the_manifest_lists_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(write_samples(tmp_path, SAMPLES, per_file=2))
    names = store.names("", ".parquet")
    read = content_digest(store, names)
    parts = [{"name": name, "sha256": file_sha256(store, name), "rows": 2, "bytes": 1} for name in names]
    store.write_json("manifest.json", {"files": {"samples": parts, "failed": ["older"]}})
    monkeypatch.setattr("augengine.io.content.file_sha256", lambda *_: pytest.fail("a listed file was read"))
    assert content_digest(store, names) == read
    monkeypatch.undo()
    store.write_json("manifest.json", {"files": {"samples": names}})  # as older versions wrote it
    assert content_digest(store, names) == read
