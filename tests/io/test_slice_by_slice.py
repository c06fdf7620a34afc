"""Whether slices were excited one by one is read from headers; such slices lie at the end of no slab."""

import json
from pathlib import Path

import pytest
from mri_files import block, write_nifti, write_series
from reading import scanned

from augengine.io.dataset import dataset_files
from augengine.io.layouts import open_layout
from augengine.io.shards import iter_samples
from augengine.io.sources import SourceOptions
from augengine.io.store import Store
from augengine.pipeline.ingest import ingest
from augengine.pipeline.units import INLINE


@pytest.mark.parametrize(
    ("stated", "expected"), [("2D", True), (" 2d ", True), ("3D", False), ("", False), (None, False)]
)
@pytest.mark.parametrize("layout", ["bids", "dicom"])
def test_it_is_read_from_headers(stated: str | None, expected: bool, layout: str, tmp_path: Path) -> None:
    values = {} if stated is None else {"MRAcquisitionType": stated}
    if layout == "dicom":
        write_series(tmp_path / "a", block(), **values)
    else:
        write_nifti(tmp_path / "sub-01/anat/sub-01_T1w.nii.gz", block())
        (tmp_path / "sub-01/anat/sub-01_T1w.json").write_text(json.dumps(values))
    reader, _ = open_layout(tmp_path, layout, SourceOptions())
    (source,) = scanned(reader)
    assert source.slice_by_slice == expected


def test_rows_of_single_slices_know_no_slab(tmp_path: Path) -> None:
    for subject, stated in enumerate(("2D", "3D", "3D")):
        anat = tmp_path / f"in/sub-{subject}/anat"
        write_nifti(anat / f"sub-{subject}_T1w.nii.gz", block(seed=subject))
        (anat / f"sub-{subject}_T1w.json").write_text(json.dumps({"MRAcquisitionType": stated}))
    options = SourceOptions(public_ids=True)
    ingest(tmp_path / "in", tmp_path / "out", layout="bids", options=options, actors=INLINE)
    out = Store(tmp_path / "out")
    known = {s.subject_id: s.slab_end_mm is not None for s in iter_samples(out, dataset_files(out))}
    assert known == {"sub-0": False, "sub-1": True, "sub-2": True}
