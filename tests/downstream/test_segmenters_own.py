"""The trainer of one's own that the documentation shows: it is run as it stands there."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import slice_sample, write_samples

from augengine.downstream.segmenters import SEGMENTERS
from augengine.intensity import normalise

DOCS = Path(__file__).parents[2] / "docs" / "how-to" / "own-segmenter.md"


def test_the_documented_trainer_learns_and_predicts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("augengine.downstream.segmenters.SEGMENTERS", dict(SEGMENTERS))
    (code,) = [block for block in re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL) if "class " in block]
    namespace: dict = {}
    with torch.random.fork_rng():
        exec(code, namespace)
        mine = namespace["SEGMENTERS"]["mine"]
        rows = [slice_sample(subject) for subject in range(12)]
        shards = [write_samples(tmp_path / name, part) for name, part in {"a": rows[:6], "b": rows[6:]}.items()]
        loaded = mine.load(mine.fit(shards, 60, 0, str(tmp_path / "out"), recipes={}))
    test = slice_sample(99)
    found = loaded.predict(normalise(test)[None])
    assert found.dtype == np.float32
    inside = test.label == 1
    assert found[0, 0][inside].mean() > found[0, 0][~inside].mean() + 0.2
