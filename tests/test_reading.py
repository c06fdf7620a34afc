"""What the docs say about reading, and `augengine ls`: the listed rows and no others, whatever lies beside them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from builders import slice_sample
from object_store import BUCKET
from typer.testing import CliRunner

from augengine.cli import app
from augengine.io.dataset import dataset_files, finish, listed_files
from augengine.io.parts import Part, write_part
from augengine.io.shards import iter_samples, to_table
from augengine.io.store import Store

ROOT = Path(__file__).resolve().parents[1]
ACCEPTED, REJECTED = 5, 3


@pytest.fixture
def augmented(base: Store) -> Store:
    """A finished run of 5 accepted rows in two files, with everything beside it that is no data."""
    store = base.folder("runs/duke_phantom/augmented")
    tables = [to_table([slice_sample(s, n) for n in range(count)]) for s, count in ((1, 3), (2, 2), (3, REJECTED))]
    files: dict[str, list[Part]] = {
        "accepted": [write_part(store, "accepted", f"u{n}", table) for n, table in enumerate(tables[:2])],
        "rejected": [write_part(store, "rejected", "u0", tables[2])],
        "failed": [],
    }
    counts = {kind: sum(part.rows or 0 for part in parts) for kind, parts in files.items()}
    finish(store, {"counts": counts}, files)
    write_part(store, "accepted", "u0", tables[1])  # an orphan
    store.write("accepted/.tmp-part-u1-0123456789ab.parquet-1-01234567", b"half a file")
    store.write("accepted/broken.parquet", b"half a file")
    write_part(store.folder("v2"), "accepted", "u0", tables[0])
    return store


def invoke(*args: str, **environment: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(args), env={"COLUMNS": "200", **environment})
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


@pytest.mark.parametrize("storage", ["local"])
def test_the_snippets_of_the_docs_read_the_accepted_rows(augmented: Store, tmp_path: Path, storage: str) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/shards.md").read_text(), re.DOTALL)
    assert len(blocks) == 4
    said = "print(json.dumps([len(files), len(frame), len(table), count, len(rows), list(image.shape), names]))\n"
    environment = {**os.environ, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", "\n".join([*blocks, said])],
        cwd=tmp_path / "out",
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    expected = [2, *[ACCEPTED] * 4, [1, 32, 32], {"fat": 1}]
    assert json.loads(done.stdout.splitlines()[-1]) == expected
    chosen = Store(str(tmp_path / "out/runs/chosen"))
    assert len(list(iter_samples(chosen, dataset_files(chosen)))) == ACCEPTED


@pytest.mark.parametrize("storage", ["local"])
def test_ls_prints_the_listed_files_and_no_others(augmented: Store, storage: str) -> None:
    files = listed_files(augmented)
    paths = {kind: [augmented.uri_of(part.name) for part in parts] for kind, parts in files.items()}
    assert all(Path(path).is_absolute() and Path(path).exists() for path in paths["accepted"])
    assert invoke("ls", augmented.uri) == (0, "\n".join(paths["accepted"]) + "\n")
    assert invoke("ls", augmented.uri, "--folder", "rejected", "--check") == (0, paths["rejected"][0] + "\n")
    assert invoke("ls", augmented.uri, "--folder", "failed") == (0, "")
    code, text = invoke("ls", augmented.uri, "--json")
    assert (code, [(f["path"], f["rows"]) for f in json.loads(text)]) == (
        0,
        [(p, n) for p, n in zip(paths["accepted"], (3, 2), strict=True)],
    )
    assert {len(f["sha256"]) for f in json.loads(text)} == {64}
    assert invoke("ls", augmented.uri, "--folder", "acepted")[0] == 2
    assert "did you mean 'accepted'?" in invoke("ls", augmented.uri, "--folder", "acepted")[1]
    code, text = invoke("ls", f"{augmented.uri}/accepted")
    assert (code, f"give the whole data set, {augmented.uri}" in text) == (2, True)
    augmented.write(files["accepted"][1].name, augmented.read(files["accepted"][0].name))
    assert invoke("ls", augmented.uri)[0] == 0
    code, text = invoke("ls", augmented.uri, "--check")
    assert (code, "a listed file has the sha256" in text, "Traceback" in text) == (2, True, False)


@pytest.mark.parametrize("storage", ["s3"])
def test_a_command_takes_its_options_from_the_environment(
    augmented: Store, s3_options: dict[str, Any], storage: str
) -> None:
    start = "import sys; from augengine.commands.ls import ls_command as ls; ls(sys.argv[1], None, False, True)"
    script = [sys.executable, "-c", start, augmented.uri]
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "FSSPEC_"))} | {"PYTHONPATH": str(ROOT)}
    own = {
        "AWS_ACCESS_KEY_ID": "test-key",
        "AWS_SECRET_ACCESS_KEY": "test-secret",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": s3_options["endpoint_url"],
    }
    for given in ({"FSSPEC_S3": json.dumps(s3_options)}, own):
        done = subprocess.run(script, env={**plain, **given}, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines() == [augmented.uri_of(part.name) for part in listed_files(augmented)["accepted"]]
        assert done.stdout.startswith(f"s3://{BUCKET}/")
