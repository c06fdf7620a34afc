"""`augengine`: its list of commands is true and fast, every command answers, and `ls` tells rows by outcome."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from builders import slice_sample
from report_runs import edit, write_report_run
from typer.core import TyperOption
from typer.testing import CliRunner

from augengine import __version__
from augengine.cli import COMMANDS, app, loaded
from augengine.io.dataset import write_dataset
from augengine.io.shards import to_table
from augengine.io.store import Store

VERBS = {
    "phantom",
    "ingest",
    "train",
    "plan",
    "augment",
    "measure",
    "evaluate",
    "export",
    "report",
    "explain",
    "replay",
    "calibrate",
    "check",
    "doctor",
    "ls",
    "schema",
    "pseudo-label",
    "sweep",
}


def invoke(*args: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(args), env={"COLUMNS": "300"})
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def test_all_verbs_are_there() -> None:
    assert set(COMMANDS) >= VERBS
    code, text = invoke("--help")
    assert code == 0
    assert all(f" {name} " in text for name in COMMANDS)


def test_a_flag_of_one_value_is_given_once() -> None:
    for words in (["--site", "a", "--site=b"], ["--slices", "--volumes"]):
        result = CliRunner().invoke(app, ["ingest", "x", *words])
        assert (result.exit_code, result.output.count("\n")) == (2, 1), result.output
        assert "give this flag once; found 2 times" in result.output
        assert words[0] in result.output
    code, text = invoke("train", "gone", "--data", "x", "--set", "steps=1", "--set", "seed=2", "--data", "y")
    assert (code, "once" in text) == (2, False), text


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_answers_and_its_summary_is_its_own(name: str) -> None:
    target, summary = COMMANDS[name]
    module, function = target.split(":")
    told = inspect.getdoc(getattr(import_module(f"augengine.commands.{module}"), function)) or ""
    assert " ".join(told.split("\n\n")[0].split()) == summary
    code, text = invoke(name, "--help")
    assert code == 0
    assert f"{name} [OPTIONS]" in text
    assert " ".join(summary.split()[:4]) in text


def test_a_wrong_name_and_the_version() -> None:
    code, text = invoke("reprot")
    assert (code, "Did you mean 'report'" in text) == (2, True)
    assert invoke("--version") == (0, f"augengine {__version__}\n")
    assert invoke("phantom", "--nothing")[0] == 2


def test_help_and_version_import_no_job() -> None:
    """They answer in a fraction of a second: a person asks for them often."""
    heavy = "{'torch', 'ray', 'numpy', 'pyarrow', 'matplotlib', 'augengine.commands.augment'}"
    for flag in ("--help", "--version"):
        code = (
            f"import sys; from augengine.cli import app; app(['{flag}'], standalone_mode=False);"
            f"assert not {heavy} & set(sys.modules), {heavy} & set(sys.modules)"
        )
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)


def test_a_plan_imports_nothing_that_it_does_not_use(tmp_path: Path) -> None:
    """It is asked for before every run; each of these takes a tenth to half a second."""
    rows = [slice_sample(0), slice_sample(1, label=None, labels={})]
    data = write_dataset(tmp_path, [to_table(rows)]).uri
    code = (
        "import sys; from augengine.cli import app\n"
        f"app(['plan', 'duke_acquisition_paper', {data!r}], standalone_mode=False)\n"
        "assert 'augengine.pipeline.forecast' in sys.modules\n"
        "found = {'ray', 'pandas', 'scipy.stats', 'nibabel', 'pydicom', 'openpyxl', 'matplotlib'} & set(sys.modules)\n"
        "assert not found, found"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def run(tmp_path: Path) -> str:
    sources = [slice_sample(n) for n in range(5)]
    made = [edit(s, f"row-{n}") for n, s in enumerate(sources)]
    return write_report_run(
        tmp_path, sources, accepted=made[:3], rejected=[(made[3], "a = 1,\nmust be ≥ 2"), (made[4], "b\x1b[2J")]
    )


def test_rows_of_an_outcome_with_their_reasons(run: str) -> None:
    code, text = invoke("ls", run, "--outcome", "rejected")
    assert (code, text) == (0, "row-3  a = 1, must be ≥ 2\nrow-4  b\\x1b[2J\n")  # and no row moves the cursor
    assert invoke("ls", run, "--outcome", "accepted") == (0, "row-0\nrow-1\nrow-2\n")
    assert invoke("ls", run, "--outcome", "failed") == (0, "")
    rows = json.loads(invoke("ls", run, "--outcome", "rejected", "--json")[1])
    assert rows == [
        {"id": "row-3", "source": "S003#0000", "subject": "S003", "reason": "a = 1,\nmust be ≥ 2"},
        {"id": "row-4", "source": "S004#0000", "subject": "S004", "reason": "b\x1b[2J"},
    ]
    assert json.loads(invoke("ls", run, "--outcome", "skipped", "--json")[1]) == []
    Store(run).remove("_SUCCESS.json")
    assert invoke("ls", run, "--outcome", "rejected")[1].startswith("row-3")


def test_mistakes_of_ls(run: str) -> None:
    code, text = invoke("ls", run, "--outcome", "rejcted")
    assert (code, "did you mean 'rejected'" in text) == (2, True)
    code, text = invoke("ls", run, "--outcome", "rejected", "--check")
    assert (code, "--outcome lists rows" in text) == (2, True)


@pytest.mark.parametrize("name", COMMANDS)
def test_an_empty_value_is_refused_by_every_flag_and_argument(name: str) -> None:
    """It is what a variable of the shell gives that nobody set, and would count as no flag at all."""
    parameters = loaded(name).params
    words = [str(n) for n, p in enumerate(p for p in parameters if not isinstance(p, TyperOption))]
    flags = [p.opts[0] for p in parameters if isinstance(p, TyperOption) and not p.is_flag]
    for flag in flags:
        for empty in ("", " , "):
            code, text = invoke(name, *words, flag, empty)
            assert (code, text.startswith(f"error: {flag}: a value that is given is not empty")) == (2, True), text
    for n in range(len(words)):
        code, text = invoke(name, *words[:n], "", *words[n + 1 :])
        assert (code, "a value that is given is not empty; found nothing" in text) == (2, True), text
