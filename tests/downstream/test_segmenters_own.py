"""The trainer of one's own that the documentation shows: it is run as it stands there."""

import re
import tomllib
from pathlib import Path

import numpy as np
import torch
from builders import slice_sample, write_samples

from augengine.intensity import normalise
from augengine.records import Sample

DOCS = Path(__file__).parents[2] / "docs" / "how-to" / "own-segmenter.md"


def row(subject: int) -> Sample:
    brain = slice_sample(subject)
    four = {"channels": ("t1", "t1c", "t2", "flair"), "intensity_range": brain.intensity_range * 4}
    return brain.replace(image=np.repeat(brain.image, 4, axis=0), label=brain.label, labels={"oedema": 1}, **four)


def test_the_documented_segmenter_learns_and_predicts(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    namespace: dict = {}
    with torch.random.fork_rng():
        exec(code, namespace)
        mine = namespace["Mine"]
        rows = [row(subject) for subject in range(12)]
        shards = [write_samples(tmp_path / name, part) for name, part in {"a": rows[:6], "b": rows[6:]}.items()]
        loaded = mine.load(mine.fit(shards, 60, 0, str(tmp_path / "out"), recipes={}))
    test = row(99)
    found = loaded.predict(normalise(test)[None])
    assert found.dtype == np.float32
    inside = test.label == 1
    assert found[0, 0][inside].mean() > found[0, 0][~inside].mean() + 0.2


def test_the_documented_package_names_it() -> None:
    (text,) = re.findall(r"```toml\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert tomllib.loads(text)["project"]["entry-points"]["augengine.segmenters"] == {"mine": "mine:Mine"}
