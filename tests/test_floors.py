"""The house: a file imports only from lower floors or its own folder; only two folders know Ray."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from augengine.cli import COMMANDS

PACKAGE = Path(__file__).parents[1] / "augengine"
FLOORS = [
    {
        "acquisition_terms",
        "bundled",
        "body",
        "denormals",
        "records",
        "rng",
        "errors",
        "geometry",
        "yaml_config",
        "label_loss",
        "label_regrid",
        "machine",
        "told",
        "plugins",
    },
    {"io", "intensity", "lesion_scene", "masks", "prepare", "splits", "phantom", "diffusion", "policy"},
    {"edits", "gates", "leakage", "metrics", "runtime"},
    {"load", "selection"},
    {"pipeline", "train", "report", "torch"},
    {"preflight"},
    {"workflow", "export"},
    {"downstream"},
    {"file_schemas", "contracts"},
    {"commands"},
    {"cli"},
]
# The report looks at committed runs and phantoms, and training is driven by the cluster's connection.
SAME_FLOOR = {
    ("report", "pipeline"),
    ("io", "prepare"),
    ("phantom", "io"),
    ("phantom", "prepare"),
    ("prepare", "io"),
    ("diffusion", "io"),
    ("diffusion", "phantom"),
    ("train", "report"),
    ("gates", "metrics"),
    ("lesion_scene", "masks"),
}


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            if node.module == "augengine":
                found |= {f"augengine.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def room(path: Path) -> str:
    part = path.relative_to(PACKAGE).parts[0]
    return part.removesuffix(".py")


def floor(name: str) -> int:
    levels = [n for n, rooms in enumerate(FLOORS) if name in rooms]
    assert levels, f"augengine/{name} stands on no floor: add it to the list"
    return levels[0]


def test_imports_go_down() -> None:
    for path in PACKAGE.rglob("*.py"):
        if path.parent == PACKAGE and path.name == "__init__.py":
            continue
        here = room(path)
        for module in imports(path):
            if not module.startswith("augengine."):
                continue
            there = module.split(".")[1]
            if there in ("__version__", here):
                continue
            allowed = floor(there) < floor(here) or (here, there) in SAME_FLOOR or floor(there) == floor(here) == 0
            assert allowed, f"{path.relative_to(PACKAGE.parent)} imports {module}"


def test_only_pipeline_and_train_know_ray() -> None:
    for path in PACKAGE.rglob("*.py"):
        if any(m == "ray" or m.startswith("ray.") for m in imports(path)):
            assert room(path) in ("pipeline", "train"), path


# Those of segmenters are left out: they are made of MONAI's networks.
LIGHT = [
    f"augengine.commands.{target.split(':')[0]}"
    for name, (target, _) in COMMANDS.items()
    if name not in ("advise", "evaluate", "ensembles")
]


@pytest.mark.parametrize("modules", [LIGHT, ["augengine.pipeline.augment_worker"]], ids=["commands", "worker"])
def test_commands_and_actors_start_without_heavy_libraries(modules: list[str]) -> None:
    """MONAI and diffusers take longer to import than a unit of work; networks import them where they are built."""
    code = f"import sys, {', '.join(modules)}; print(*sorted({{'monai', 'diffusers'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"
