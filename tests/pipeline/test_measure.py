"""Measures over folders of shards: inline and on Ray, alone and with parents."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from builders import slice_sample, write_samples

from augengine.errors import ConfigError, DataError, RunError
from augengine.metrics.extractors import load_extractor
from augengine.metrics.features import FeatureMeasure
from augengine.metrics.partial import Pair
from augengine.metrics.realism import kid
from augengine.metrics.similarity import SimilarityMeasure
from augengine.pipeline import measure as module
from augengine.pipeline.measure import measure
from augengine.pipeline.units import INLINE, Actors
from augengine.records import Provenance, Sample

RADIOMICS = {"make": load_extractor, "kind": "radiomics", "keep": 12}


def edited(parent: Sample, copy: int) -> Sample:
    """The parent with the contrast of its disc changed."""
    image = np.round(parent.image * (1.1 + 0.2 * copy))
    made = Provenance(f"{parent.sample_id}-{copy}", parent.sample_id, "p", "d", "acquisition", {})
    return parent.replace(image=image.astype(np.float32), provenance=made)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("measure")
    split = {0: "test", 1: "val"}
    sources = [slice_sample(s, i, split=split.get(s % 3, "train")) for s in range(9) for i in range(3)]
    # Neither in the order of the sources nor one shard to one, so that a parent may stand in any row group.
    made = [edited(s, c) for c in range(2) for s in sources[::-2]]
    return write_samples(folder / "data", sources, per_file=4), write_samples(folder / "out", made, per_file=5)


def canonical(state: object) -> str:
    return json.dumps(state.sums, sort_keys=True)  # type: ignore[attr-defined]


def test_a_stream_gives_what_all_rows_at_once_give(folders: tuple[str, str]) -> None:
    data, out = folders
    sources = {s.sample_id: s for s in (slice_sample(s, i) for s in range(9) for i in range(3))}
    rows = [s for c in range(2) for p in list(sources.values())[::-2] for s in [edited(p, c)]]
    at_once = SimilarityMeasure()([Pair(s, sources[s.provenance.parent_id]) for s in rows if s.provenance])
    streamed = measure(out, SimilarityMeasure, parents=data, actors=INLINE)
    assert streamed.measures == at_once.measures
    for name in streamed.measures:
        assert streamed.means(name) == pytest.approx(at_once.means(name), rel=1e-12)
    assert min(streamed.means("structure_ssim").values()) > 0.99
    assert len(streamed.means("ssim")) == 9


def test_only_the_rows_of_a_split_count(folders: tuple[str, str]) -> None:
    found = measure(folders[0], FeatureMeasure, RADIOMICS, split="test", actors=INLINE)
    assert found.subjects == {"S000", "S003", "S006"}
    assert found.rows == 9
    with pytest.raises(DataError, match="none of split nowhere"):
        measure(folders[0], FeatureMeasure, RADIOMICS, split="nowhere", actors=INLINE)


def test_two_folders_compare(folders: tuple[str, str]) -> None:
    real, made = (measure(uri, FeatureMeasure, RADIOMICS, actors=INLINE) for uri in folders)
    assert (made.rows, real.rows) == (28, 27)
    assert made.kept.shape == real.kept.shape == (12, 27)
    assert kid(made, real).extractor == "radiomics-1"


def test_parents_are_looked_for_only_where_ids_allow(folders: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    may_hold = module.RowGroup.may_hold

    def spy(self: module.RowGroup, sample_id: str) -> bool:
        found = may_hold(self, sample_id)
        assert found or not self.first_id <= sample_id <= self.last_id  # type: ignore[operator]
        asked.append(f"{found}")
        return found

    monkeypatch.setattr(module.RowGroup, "may_hold", spy)
    measure(folders[1], SimilarityMeasure, parents=folders[0], actors=INLINE)
    assert asked.count("False") > asked.count("True") > 0


def test_rows_without_parents_are_refused(folders: tuple[str, str], tmp_path: Path) -> None:
    data, out = folders
    with pytest.raises(DataError, match="no S008#0002"):
        measure(out, SimilarityMeasure, parents=write_samples(tmp_path, [slice_sample(0)]), actors=INLINE)
    with pytest.raises(DataError, match="only augmented rows"):
        measure(data, SimilarityMeasure, parents=data, actors=INLINE)


@pytest.mark.slow
def test_any_number_of_actors_gives_the_same_bits(ray_session: None, folders: tuple[str, str]) -> None:
    data, out = folders
    arms = (INLINE, Actors(1), Actors(2))
    sums = [canonical(measure(out, SimilarityMeasure, parents=data, actors=a)) for a in arms]
    assert sums[0] == sums[1] == sums[2]
    features = [measure(data, FeatureMeasure, RADIOMICS, actors=a) for a in (INLINE, Actors(2))]
    assert features[0].keys == features[1].keys
    assert features[0].kept.tobytes() == features[1].kept.tobytes()
    inline, spread = (f.gaussian() for f in features)
    assert (inline.mean.tobytes(), inline.factor.tobytes()) == (spread.mean.tobytes(), spread.factor.tobytes())


def test_what_a_measure_refuses_reaches_the_driver(ray_session: None, folders: tuple[str, str]) -> None:
    with pytest.raises(ConfigError, match="weights_path"):
        measure(folders[0], FeatureMeasure, {"make": load_extractor, "kind": "meshnet"}, actors=Actors(1))
    with pytest.raises(RunError, match="leave nothing"):
        measure(folders[0], FeatureMeasure, RADIOMICS, actors=Actors(4, num_cpus=1))
