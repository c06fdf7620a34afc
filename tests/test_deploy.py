"""What is under deploy/ fits the package: versions, commands and flags, files that are copied, metrics that exist."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml

from augengine.cli import COMMANDS, loaded
from augengine.pipeline import ray_metrics

ROOT = Path(__file__).parents[1]
JOB = yaml.safe_load((ROOT / "deploy/kuberay/rayjob.yaml").read_text())
DOCKERFILE = (ROOT / "deploy/Dockerfile").read_text()
SERIES = {
    f"ray_{ray_metrics.ROWS}_total",
    f"ray_{ray_metrics.REJECTS}_total",
    f"ray_{ray_metrics.SECONDS}_bucket",
}


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if "==" in line)


def test_the_job_runs_the_pinned_ray_and_a_command_with_its_flags() -> None:
    assert JOB["spec"]["rayClusterSpec"]["rayVersion"] == pins()["ray"]
    program, command, *words = shlex.split(JOB["spec"]["entrypoint"])
    assert program == "augengine"
    assert command in COMMANDS
    known = {option for parameter in loaded(command).params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known


def containers(part: Any) -> Iterator[dict[str, Any]]:
    if isinstance(part, dict):
        yield from part.get("containers", ())
        for value in part.values():
            yield from containers(value)
    elif isinstance(part, list):
        for value in part:
            yield from containers(value)


def test_every_container_runs_one_image_within_limits_and_ray_has_shared_memory() -> None:
    found = list(containers(JOB))
    assert {one["name"] for one in found} == {"submitter", "ray-head", "ray-worker"}
    assert len({one["image"] for one in found}) == 1
    assert all({"requests", "limits"} <= one["resources"].keys() for one in found)
    for one in found:
        if one["name"] != "submitter":
            assert one["volumeMounts"] == [{"mountPath": "/dev/shm", "name": "shm"}]
            assert {"containerPort": 8080, "name": "metrics"} in one["ports"]


def test_the_image_copies_what_there_is_and_nothing_that_the_context_leaves_out() -> None:
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = [name for line in re.findall(r"^COPY (.+)$", DOCKERFILE, re.MULTILINE) for name in line.split()[:-1]]
    assert copied
    for name in copied:
        assert (ROOT / name).exists(), name
        assert any(fnmatch(name.removeprefix("./"), pattern) for pattern in kept), name
    first = DOCKERFILE.index("torch")
    assert first < DOCKERFILE.index('".[hf]"'), "PyTorch is installed first"


@pytest.mark.slow
def test_the_steps_of_the_image_find_what_they_read_and_build_the_package(tmp_path: Path) -> None:
    """One by one, in a folder that holds what was copied before each: the constraints, and at the end the package."""
    context, image = tmp_path / "context", tmp_path / "image"
    image.mkdir()
    _send_context(context)
    built = False
    for step, words in re.findall(r"^(COPY|RUN) (.+)$", DOCKERFILE, re.MULTILINE):
        if step == "COPY":
            *names, target = words.split()
            assert target in ("./", f"./{names[0]}"), "a folder keeps its name"
            for name in names:
                source = context / name
                (shutil.copytree if source.is_dir() else shutil.copy)(source, image / name)
        elif words.startswith("pip install"):
            argv = shlex.split(words)
            assert (image / argv[argv.index("--constraint") + 1]).is_file(), words
            if '".[hf]"' in words:
                build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
                subprocess.run([*build, ".", "-w", str(tmp_path)], cwd=image, check=True, capture_output=True)
                built = True
    assert built
    (wheel,) = tmp_path.glob("augengine-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    assert {
        "augengine/cli.py",
        "augengine/policies/duke_acquisition.yaml",
        "augengine/report/page/template.html",
    } <= held


def _send_context(target: Path) -> None:
    """What a builder is sent: files of the checkout that `.dockerignore` keeps."""
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line]
    assert lines[0] == "*", "everything is left out but for what follows"
    for name in (line[1:] for line in lines if line.startswith("!")):
        target.mkdir(exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, target / name)


def test_the_dashboard_asks_for_metrics_that_there_are() -> None:
    text = (ROOT / "deploy/grafana/augengine.json").read_text()
    asked = set(re.findall(r"ray_augengine_\w+", text))
    assert asked == SERIES
    panels = json.loads(text)["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) == 4
