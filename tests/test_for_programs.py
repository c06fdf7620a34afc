"""Commands in scripts: one JSON object on standard output, silence on demand, and Ray's messages on demand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from builders import slice_sample, write_samples

from augengine.cli import COMMANDS, loaded
from augengine.errors import RunError
from augengine.pipeline.cluster import without_lines
from augengine.report.console import console, stage, table
from augengine.told import forget, plain, tell, told


def augengine(*words: str) -> subprocess.CompletedProcess[str]:
    code = "from augengine.cli import main; main()"
    return subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)


@pytest.fixture
def data(tmp_path: Path) -> str:
    return write_samples(tmp_path / "data", [slice_sample(n) for n in range(1, 5)])


def test_every_command_has_the_flags_for_scripts() -> None:
    for name in COMMANDS:
        options = {option for parameter in loaded(name).params for option in parameter.opts}
        assert {"--json", "--quiet", "-q", "--ray-messages"} <= options, name


def test_json_is_all_of_standard_output(data: str) -> None:
    done = augengine("plan", "lesion_insertion_drawn", data, "--json")
    found = json.loads(done.stdout)
    assert (done.returncode, found["exit_code"]) == (0, 0)
    assert found["policy"] == "lesion-insertion-drawn"
    assert found["plans"][data]["rows"] == 4
    assert "rows in the data" in done.stderr, "the table is for people"


def test_a_mistake_is_told_as_json_in_its_parts(tmp_path: Path) -> None:
    done = augengine("plan", "lesion_insertion_drawn", str(tmp_path / "nowhere"), "--json")
    found = json.loads(done.stdout)
    assert (done.returncode, found["exit_code"]) == (2, 2)
    assert found["error"]["where"] == str(tmp_path / "nowhere")
    assert found["error"]["next_step"].startswith("give the folder")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("words", [("phantom", "brain-shards", "--matrix", "nope"), ("report",), ("nonsense",)])
def test_mistakes_in_the_flags_are_told_as_json_too(words: tuple[str, ...]) -> None:
    done = augengine(*words, "--json")
    found = json.loads(done.stdout)
    assert (done.returncode, found["exit_code"]) == (2, 2)
    assert found["error"]["rule"] == "the flags of a command are those of its --help"
    assert done.stderr


def test_quiet_leaves_results_and_errors(data: str) -> None:
    done = augengine("plan", "lesion_insertion_drawn", data, "-q")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    listed = augengine("ls", data, "-q")
    assert listed.stdout.strip().endswith(".parquet")
    assert augengine("plan", "lesion_insertion_drawn", f"{data}x", "-q").stderr.startswith("error: ")


def test_ls_keeps_its_own_json(data: str) -> None:
    assert [part["rows"] for part in json.loads(augengine("ls", data, "--json").stdout)] == [4]


def test_outcomes_of_what_is_no_run_are_refused(data: str) -> None:
    done = augengine("ls", data, "--outcome", "accepted", "--json")
    assert (done.returncode, done.stdout) == (2, "")
    assert "outcomes are those of a run of augment; found a data set of samples" in done.stderr


def test_values_become_json() -> None:
    @dataclass
    class Found:
        share: float
        names: frozenset[str]

    forget()
    tell(found=Found(np.float64(0.5), frozenset({"b", "a"})), count=np.int64(3), nothing=float("inf"))
    tell(count=4)
    assert json.loads(told(exit_code=0)) == {
        "exit_code": 0,
        "found": {"share": 0.5, "names": ["a", "b"]},
        "count": 4,
        "nothing": None,
    }
    assert plain(Path("a")) == "a"
    assert plain(RunError("rule", found=3).to_dict()) == {
        "rule": "rule",
        "found": "3",
        "where": None,
        "next_step": None,
    }
    forget()


def test_only_the_lines_that_are_named_are_left_out(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyError), without_lines(b"level is set"):  # noqa: PT012
        os.write(2, b"an error\nlevel is set to 3\n")
        os.write(2, b"another\n")
        raise KeyError
    os.write(2, b"later\n")
    assert capfd.readouterr().err == "an error\nanother\nlater\n"


def test_square_brackets_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    console.print("--set data.balance=[tumour]")
    table("runs/[a]", ["[b]"], [["[c]"]])
    with stage("[d]") as report:
        report(1, 1, {"[e]": 1})
    said = capsys.readouterr().out
    assert "data.balance=[tumour]" in said
    assert all(f"[{letter}]" in said for letter in "abcde")
