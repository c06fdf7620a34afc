"""The main job as README submits it to a running head with a token: both forms, mistakes, `ray job stop`."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from builders import slice_sample, write_checkpoint, write_samples
from ray_head import ROOT, Head, ray_head

from augengine.errors import RunError
from augengine.pipeline.address import check_answers

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with ray_head("--num-gpus=1") as found:  # nobody computes on it
        yield found


@pytest.fixture(scope="module")
def flags(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("job")
    data = write_samples(folder / "data", [slice_sample(s, i) for s in range(4) for i in range(2)])
    policy = yaml.safe_load((ROOT / "augengine/policies/duke_acquisition.yaml").read_text())
    policy["gates"] = [{"name": "changed", "min": 0.0}]
    (folder / "policy.yaml").write_text(yaml.safe_dump(policy))
    return [
        "--data",
        data,
        "--checkpoint",
        write_checkpoint(folder / "model"),
        "--policy",
        f"{folder}/policy.yaml",
        "--out",
        f"{folder}/run",
    ]


@pytest.mark.parametrize("place", ["address", "client"])
@pytest.mark.parametrize(
    ("mode", "token", "says"),
    [
        (None, "right", "no token in what this machine sends (RAY_AUTH_MODE is not set)"),
        ("disabled", "right", "no token in what this machine sends (RAY_AUTH_MODE is disabled)"),
        ("token", "none", "no token in what this machine sends;"),
        ("token", "wrong", "another token than the head's;"),
        ("token", "not text", "a token that cannot be sent"),
    ],
)
def test_a_token_that_the_head_refuses_is_one_line_at_once(
    head: Head, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, place: str, mode: str | None, token: str, says: str
) -> None:
    """Ray itself repeats a line for half a minute, and says then that it cannot connect."""
    right = head.token_path.read_text()
    texts = {"right": right, "wrong": right[::-1], "not text": "tok\u00e9n\n2"}
    path = tmp_path / "token"
    if token in texts:
        path.write_text(texts[token])
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(path))
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    if mode:
        monkeypatch.setenv("RAY_AUTH_MODE", mode)
    began = time.monotonic()
    with pytest.raises(RunError, match="this Ray cluster asks for its token") as error:
        check_answers(getattr(head, place))
    assert time.monotonic() - began < 5
    line = str(error.value)
    assert f"RAY_ADDRESS={getattr(head, place)}: " in line
    assert says in line
    assert "export RAY_AUTH_MODE=token, with the head's ~/.ray/auth_token" in line
    assert "\n" not in line
    assert texts.get(token, right).strip() not in line


@pytest.mark.parametrize("place", ["address", "client"])
@pytest.mark.parametrize("by", ["RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "HOME"])
def test_the_head_s_own_token_is_taken_however_it_is_given(
    head: Head, monkeypatch: pytest.MonkeyPatch, place: str, by: str
) -> None:
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    texts = {"RAY_AUTH_TOKEN": head.token_path.read_text(), "HOME": head.env["HOME"]}
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv(by, texts.get(by, str(head.token_path)))
    check_answers(getattr(head, place))


def test_both_forms_run_and_the_second_makes_nothing_again(head: Head, flags: list[str]) -> None:
    first = head.submit("--", "jobs/augment_duke.py", *flags)
    assert "units made 1, already committed 0" in first.stdout, first.stdout
    assert first.returncode == 0
    second = head.submit("--working-dir", ".", "--", "python", "jobs/augment_duke.py", *flags)
    assert "units made 0, already committed 1" in second.stdout, second.stdout
    assert second.returncode == 0


def test_a_checkpoint_that_is_not_shipped_is_named_so(head: Head, flags: list[str]) -> None:
    flags = list(flags)
    flags[flags.index("--checkpoint") + 1] = "runs/model/checkpoint"
    done = head.submit("--working-dir", ".", "--", "python", "jobs/augment_duke.py", *flags)
    assert "runs/model/checkpoint is not in it: give an absolute path" in done.stdout, done.stdout
    assert "failed with exit code 2" in done.stdout  # the job's own; the submitter's is 1
    assert done.returncode == 1


def test_a_job_that_is_stopped_says_so_and_ends_cleanly(head: Head, tmp_path: Path) -> None:
    head.submit("--no-wait", "--submission-id", "stopped", "--", "jobs/augment_duke.py", "--out", str(tmp_path / "run"))
    until = time.monotonic() + 120
    while not re.search(r"phantom, Duke layout: [1-9]", log := head.ray("job", "logs", "stopped").stdout):
        assert time.monotonic() < until, log
        time.sleep(2)
    assert "was stopped" in head.ray("job", "stop", "stopped").stdout
    log = head.ray("job", "logs", "stopped").stdout
    assert "stopped by signal 15; what was committed is kept" in log, log
    assert "***" not in log, log  # Ray's stack from C++
    assert "Traceback" not in log, log


def test_actors_are_as_many_as_the_one_gpu_allows_and_two_are_refused_at_once(head: Head) -> None:
    done = head.submit("--", "augengine", "doctor", "--gpus-per-actor", "1")
    assert "actors of 0.5 CPU and 1 GPU: 1" in done.stdout, done.stdout
    done = head.submit("--", "augengine", "doctor", "--gpus-per-actor", "1", "--actors", "2")
    assert "2 actors need 0.5 CPU and 1 GPU each; found 2 CPUs and 1 GPUs on 1 node, room for 1" in done.stdout
    assert "failed with exit code 2" in done.stdout
