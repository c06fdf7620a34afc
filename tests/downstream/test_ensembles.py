"""Ensembles of several sizes: their beginnings are the smaller ones, and the plateau follows from patients' scores."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from training_cases import NESTED, recipe, samples_of, write_rows

from augengine.diffusion.painting import Sampling
from augengine.downstream.ensemble_tables import FIGURES, PLOT, TABLE, write_by_size
from augengine.downstream.ensembles import BySize, by_size, plateau
from augengine.downstream.experiment import Experiment
from augengine.downstream.protocols import Protocol, protocol
from augengine.downstream.results import PLAN, Row, measure
from augengine.downstream.run import run
from augengine.downstream.segmenters.ldm_seg import LdmSeg
from augengine.errors import ConfigError, DataError, RunError
from augengine.io.store import Store
from augengine.metrics.intervals import Interval
from augengine.metrics.statistics import seed_means
from augengine.pipeline.units import INLINE, Progress

PROTOCOL = Protocol.model_validate(protocol("phantom_brats").model_dump() | {"name": "tiny", "classes": NESTED})
SIZES = [1, 2, 4]
SLOW = {"batch_size": 4, "learning_rate": 1e-3}


@contextmanager
def silent(name: str) -> Iterator[Progress]:
    yield lambda done, total, counts: None


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Experiment]:
    """An evaluation with ensembles of four."""
    folder = tmp_path_factory.mktemp("ensembles")
    rows = [
        row.replace(subject_id=f"{split}-{row.subject_id}", volume_id=f"{split}-{row.subject_id}", split=split)
        for split in ("train", "val", "test")
        for row in samples_of()
    ]
    roles = {"autoencoder": "label_autoencoder", "prior": "label_ldm", "control": "label_segmenter"}
    experiment = Experiment(
        PROTOCOL,
        write_rows(folder / "rows", rows),
        str(folder / "out"),
        seeds=2,
        steps=1,
        segmenter="ldm_seg",
        recipes={role: recipe(case, optimiser=SLOW) for role, case in roles.items()},
    )
    with pytest.MonkeyPatch.context() as patch:
        defaults = LdmSeg.load.__func__.__kwdefaults__  # type: ignore[attr-defined]
        patch.setitem(defaults, "samples", SIZES[-1])
        patch.setitem(defaults, "sampling", Sampling(solver="ddim", steps=2))
        run(experiment, silent, actors=INLINE)
        yield experiment


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session")
def test_the_largest_ensemble_scores_what_the_evaluation_did(evaluated: Experiment) -> None:
    found = by_size(evaluated.out, evaluated.data, [4, 2, 1, 2], actors=INLINE)
    assert [f.samples for f in found if (f.metric, f.of) == ("dice", "whole")] == SIZES
    scores = measure(evaluated.out, actors=INLINE)[Row("all → all", "real", evaluated.ratio)]
    for figure in found:
        by_seed = scores[figure.metric, figure.of]
        if figure.samples == SIZES[-1]:
            assert figure.value.estimate == pytest.approx(np.mean(list(seed_means(by_seed).values())))
            assert figure.to_largest.estimate == 0
        assert figure.value.subjects == len(seed_means(by_seed))
    gaps = [abs(f.to_largest.estimate) for f in found if f.samples == 1]
    assert max(gaps) > 0, "ensembles that all say the same would prove nothing"

    told = write_by_size(found, PROTOCOL, 0.005, evaluated.out)
    store = Store(evaluated.out)
    values = json.loads(store.read(FIGURES))
    assert (values["metric"], values["of"], values["plateau"]) == ("lesion_dice", "mean", told)
    assert set(told) == {"all → all"}
    assert len(values["figures"]) == len(found)
    lines = store.read(TABLE).decode().splitlines()
    assert [line.split("|")[1].strip() for line in lines if line.startswith("|")] == ["Samples", "---", "1", "2", "4"]
    assert store.read(PLOT).startswith(b"\x89PNG")
    again = by_size(evaluated.out, evaluated.data, SIZES, actors=INLINE)
    assert again == found


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session")
def test_smaller_ensembles_are_the_beginning_of_larger_ones(evaluated: Experiment) -> None:
    folder = next(Path(evaluated.out, "segmenters").glob("*/segmenter.json")).parent
    images = np.stack([row.image for row in samples_of()])
    together = LdmSeg.load(str(folder)).predict_by_size(images, SIZES)
    for n in SIZES:
        np.testing.assert_array_equal(together[n], LdmSeg.load(str(folder), samples=n).predict(images))


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session")
def test_what_cannot_be_compared_is_refused(evaluated: Experiment, tmp_path: Path) -> None:
    for sizes in ([3], [3, 3], [0, 3]):
        with pytest.raises(ConfigError, match="two numbers or more, from 1 on"):
            by_size(evaluated.out, evaluated.data, sizes, actors=INLINE)
    with pytest.raises(RunError, match=r"experiment\.json"):
        by_size(str(tmp_path), evaluated.data, SIZES, actors=INLINE)
    others = [row.replace(subject_id=f"other-{n}", split="test") for n, row in enumerate(samples_of())]
    with pytest.raises(DataError, match="that the evaluation tested on"):
        by_size(evaluated.out, write_rows(tmp_path / "other", others), SIZES, actors=INLINE)
    plan = json.loads(Store(evaluated.out).read(PLAN))
    Store(tmp_path).write_json(PLAN, plan | {"segmenter": "unet"})
    with pytest.raises(ConfigError, match=r"ldm_seg draws samples; found unet"):
        by_size(str(tmp_path), evaluated.data, SIZES, actors=INLINE)


def sized(samples: int, high: float) -> BySize:
    interval = Interval(0.0, -high, high, 0.95, 5, 10)
    return BySize("all → all", samples, "dice", "mean", interval, interval)


@pytest.mark.parametrize(
    ("highs", "expected"),
    [((0.2, 0.1, 0.004, 0.0), 20), ((0.004, 0.1, 0.004, 0.0), 20), ((0.2, 0.1, 0.05, 0.0), 40), ((0.0,) * 4, 1)],
)
def test_the_plateau_begins_where_nothing_is_left_to_gain(highs: tuple[float, ...], expected: int) -> None:
    assert plateau([sized(n, high) for n, high in zip((1, 10, 20, 40), highs, strict=True)], 0.005) == expected
