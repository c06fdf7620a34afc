"""The page on PyTorch: its snippets run as they stand, and the first has five lines."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from augmented_rows import write_model, write_run
from builders import lesion_sample, tiny_spec, write_samples

from augengine.records import Provenance, Sample
from augengine.selection import folds_of

PAGE = (Path(__file__).parents[2] / "docs" / "torch.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
TRAINED = {1: "train", 2: "train", 3: "train", 4: "val"}
SUBJECTS = {**TRAINED, 5: "test"}


def rows(subject: int) -> list[Sample]:
    """Four slices with lesion."""
    return [lesion_sample(subject, at_mm=(-20.0, 4.0 * n), slice_index=n, split=SUBJECTS[subject]) for n in range(4)]


def made(subjects: list[int], sha256: str) -> list[Sample]:
    """One augmented row for each of their slices."""
    found = []
    for sample in (row for subject in subjects for row in rows(subject)):
        provenance = Provenance(
            output_id=f"made-{sha256[:4]}-{sample.sample_id}",
            parent_id=sample.sample_id,
            policy="removal",
            policy_digest="d",
            edit="tumor_removal",
            plan={"replicate": 0},
            models={"generator": sha256},
        )
        found.append(sample.replace(provenance=provenance, split="train"))
    return found


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Where the folders that the page names are."""
    write_samples(tmp_path / "data/brain", [row for subject in SUBJECTS for row in rows(subject)])
    folds = folds_of({f"L{s:03d}" for s in TRAINED}, 2)
    held_out = {"removal": {4}} | {f"fold_{n}": {int(s[1:]) for s in fold} for n, fold in enumerate(folds)}
    for name, subjects in held_out.items():
        seen = sorted(set(TRAINED) - subjects)
        model = write_model(tmp_path / "models" / name, tiny_spec("counterfactual", channels=("t1", "flair")), seen)
        run = made(seen, model.sha256)
        write_run(tmp_path / "runs" / name, run, str(tmp_path / "models" / name), model.sha256)
    return tmp_path


def below(home: Path, snippet: str) -> str:
    """The snippet with absolute paths, since workers of Ray have a folder of their own."""
    return re.sub(r'"(data|runs)/', rf'"{home}/\1/', snippet)


@pytest.mark.parametrize(
    "snippet",
    [pytest.param(text, marks=pytest.mark.slow if "import ray" in text else ()) for text in SNIPPETS],
    ids=range(len(SNIPPETS)),
)
def test_every_snippet_runs(snippet: str, home: Path, request: pytest.FixtureRequest) -> None:
    for library in ("torchio", "torchdata"):
        if f"import {library}" in snippet or f"from {library}" in snippet:
            pytest.importorskip(library, reason=f"{library} is not installed")
    if "import ray" in snippet:
        request.getfixturevalue("ray_session")
    names: dict[str, object] = {}
    exec(compile(below(home, snippet), "docs/torch.md", "exec"), names)
    if "loader" in names:
        assert len(list(names["loader"])) > 0  # type: ignore[call-overload]


def test_the_first_takes_five_lines_and_shows_real_and_augmented_rows(home: Path) -> None:
    lines = [line for line in SNIPPETS[0].splitlines() if line.strip()]
    assert len(lines) <= 5
    assert max(map(len, lines)) <= 88
    seen: list[dict[str, torch.Tensor]] = []
    snippet = SNIPPETS[0].replace("    image, label", "    seen.append(batch); image, label")
    exec(below(home, snippet), {"seen": seen})
    synthetic = [flag for batch in seen for flag in batch["synthetic"].tolist()]
    assert sorted(synthetic) == [False] * 12 + [True] * 12
