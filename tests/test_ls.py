"""`augengine ls` and the page on shards: a data set's rows are what its manifest lists, whatever else lies there."""

import json
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from builders import slice_sample, write_samples
from typer.testing import CliRunner

from augengine.cli import app
from augengine.io.dataset import dataset_files, finish
from augengine.io.parts import write_part
from augengine.io.shards import to_bytes, to_table
from augengine.io.store import Store

PAGE = Path(__file__).parents[1] / "docs/shards.md"


@pytest.fixture
def run(tmp_path: Path) -> Store:
    """Five accepted rows; beside them a rejected one, an orphan, and a file of another tool."""
    store = Store(tmp_path / "runs/duke_phantom/augmented")
    accepted = [write_part(store, "accepted", "u1", to_table([slice_sample(n) for n in range(5)]))]
    rejected = [write_part(store, "rejected", "u1", to_table([slice_sample(9)]))]
    finish(store, {"counts": {"accepted": 5}}, {"accepted": accepted, "rejected": rejected})
    store.write("accepted/part-u2-000000000000.parquet", to_bytes(to_table([slice_sample(7)])))
    store.write("accepted/notes.parquet", b"x")
    return store


def listed(*words: str) -> list[str]:
    done = CliRunner().invoke(app, ["ls", *words])
    assert done.exit_code == 0, done.output
    return done.output.splitlines()


def test_the_files_of_the_rows_and_no_others(run: Store) -> None:
    (file,) = listed(run.uri)
    assert file == run.uri_of(dataset_files(run)[0])
    assert pq.read_table(file).num_rows == 5
    (rejected,) = listed(run.uri, "--kind", "rejected")
    assert pq.read_table(rejected)["sample_id"].to_pylist() == [slice_sample(9).sample_id]
    found = json.loads("\n".join(listed(run.uri, "--json")))
    assert (found["kind"], [f["rows"] for f in found["files"]]) == ("accepted", [5])
    assert {"name", "uri", "sha256", "bytes"} < set(found["files"][0])


def test_what_is_no_data_set_is_refused_in_one_line(run: Store, tmp_path: Path) -> None:
    for words, said in (([run.uri, "--kind", "faild"], "no files of kind 'faild'"), ([str(tmp_path)], "a data set is")):
        done = CliRunner().invoke(app, ["ls", *words])
        assert done.exit_code == 2
        assert said in done.output + (done.stderr if done.stderr_bytes else "")


def test_the_snippet_of_the_page_reads_these_rows_alone(run: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(run.uri).parents[2])
    code = re.search(r"```python\n(.*?)```", PAGE.read_text(), re.S)
    assert code is not None
    seen: list[np.ndarray] = []
    exec(code.group(1) + "    seen.append(image)\n", {"seen": seen})
    assert len(seen) == 5
    assert seen[0].shape == slice_sample(0).image.shape


def test_a_plain_folder_written_by_hand_is_a_data_set(tmp_path: Path) -> None:
    assert len(listed(write_samples(tmp_path, [slice_sample(1), slice_sample(2)], per_file=1))) == 2
