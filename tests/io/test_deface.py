"""Faces are removed by a tool that the user names; one that fails, or moves voxels, loses the volume by name."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mri_files import block, write_nifti
from typer.testing import CliRunner

from augengine.cli import app
from augengine.errors import ConfigError, DataError
from augengine.io.dataset import run_files
from augengine.io.deface import NOTHING_REMOVED, deface_words, defaced
from augengine.io.shards import iter_samples
from augengine.io.store import Store
from augengine.records import Sample

TOOL = """\
import sys
import nibabel as nib
import numpy as np
source, target = sys.argv[1:3]
image = nib.load(source)
values, affine = np.asarray(image.dataobj).copy(), image.affine
CHANGE
nib.save(nib.Nifti1Image(values, affine), target)
"""


def tool(tmp_path: Path, change: str) -> str:
    path = tmp_path / "tool.py"
    path.write_text(TOOL.replace("CHANGE", change))
    return f"{sys.executable} {path} {{in}} {{out}}"


def head() -> Sample:
    image = np.random.default_rng(0).integers(1, 900, (2, 8, 6, 4)).astype(np.float32)
    return Sample(
        image=image, affine=np.diag([1.0, 2.0, 3.0, 1.0]), channels=("t1", "t2"), subject_id="s", volume_id="v"
    )


def test_what_the_tool_removes_is_gone_in_every_channel_and_nothing_else(tmp_path: Path) -> None:
    sample = head()
    after, notes = defaced(sample, tool(tmp_path, "values[:3] = 0"))
    assert not after.image[:, :3].any()
    assert np.array_equal(after.image[:, 3:], sample.image[:, 3:])
    assert not notes
    assert sample.image.all(), "the caller's array is its own"


def test_a_tool_that_removes_nothing_is_noted(tmp_path: Path) -> None:
    assert defaced(head(), tool(tmp_path, ""))[1] == [NOTHING_REMOVED]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("sys.exit('no face found in ' + source)", r"must succeed; found exit code 1: no face found in …/in.nii.gz"),
        ("sys.exit(0)", "must write an image; found FileNotFoundError"),
        ("values = values[1:]", r"must keep the voxels where they are; found shape \(7, 6, 4\), was \(8, 6, 4\)"),
        ("affine[0, 3] += 5", "must keep the voxels where they are; found another affine"),
        ("values[0, 0, 0] = np.nan", "must write numbers"),
        ("open(target, 'wb').write(b'x'); sys.exit(0)", "must write an image"),
    ],
)
def test_a_tool_that_fails_is_an_error_without_paths(tmp_path: Path, change: str, said: str) -> None:
    with pytest.raises(DataError, match=said) as caught:
        defaced(head(), tool(tmp_path, change))
    assert "/tmp" not in str(caught.value)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("pydeface {in}", "--deface: the deface command says where the files go"),
        ("no-such-tool {in} {out}", "must be installed on every node; found no-such-tool"),
        ("tool '{in} {out}", "must be words; found No closing quotation"),
        ("", "says where the files go"),
    ],
)
def test_a_command_that_cannot_be_run_is_refused_at_once(tmp_path: Path, command: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        deface_words(command)
    done = CliRunner().invoke(app, ["ingest", str(tmp_path), "--inline", "--deface", command])
    assert done.exit_code == 2
    assert done.output.count("\n") == 1


def ingested(tmp_path: Path, out: str, *more: str) -> list[Any]:
    for n in range(2):
        write_nifti(tmp_path / f"in/p{n}/p{n}_t1.nii.gz", block(seed=n).astype(np.int16))
    command = [
        "ingest",
        str(tmp_path / "in"),
        "--out",
        str(tmp_path / out),
        "--inline",
        "--channels",
        "t1=*_t1.nii.gz",
        "--volumes",
        *more,
    ]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    store = Store(str(tmp_path / out))
    return sorted(iter_samples(store, run_files(store, "samples")), key=lambda s: s.subject_id)


def test_an_ingest_writes_defaced_images_and_says_of_the_command_no_path(tmp_path: Path) -> None:
    plain = ingested(tmp_path, "plain")
    bare = ingested(tmp_path, "bare", "--deface", tool(tmp_path, "values[:6] = 0"))
    assert len(plain) == len(bare) == 2
    for a, b in zip(plain, bare, strict=True):
        lost = (a.image != 0) & (b.image == 0)
        assert 0.4 < lost.mean() < 0.6
        assert np.array_equal(a.image[~lost], b.image[~lost])
    text = (tmp_path / "bare/manifest.json").read_text()
    assert str(tmp_path) not in text
    assert "deface" in json.loads(text)["options"]
    assert "deface" not in json.loads((tmp_path / "plain/manifest.json").read_text())["options"]
