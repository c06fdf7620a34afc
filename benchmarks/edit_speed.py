"""Rows per CPU-second of the acquisition edit by method, interleaved in one run on one thread.

    python benchmarks/edit_speed.py

`structure` at the sizes and steps of the demo and of the Duke policy, `local_contrast` on the same slices. Weights are
random: they do not change the time.
"""

from __future__ import annotations

import statistics
import time

import torch
from _generators import RECIPES
from _record import record

from augengine.commands.augment import DEMO_SAMPLERS
from augengine.diffusion.checkpoint import Model, untrained_model
from augengine.diffusion.conditions import Vocabulary
from augengine.diffusion.spec import ModelSpec
from augengine.load import load_policy
from augengine.phantom.cohort import Cohort
from augengine.phantom.protocols import duke_protocols
from augengine.policy.spec import Sampler
from augengine.prepare import Preparation, prepare
from augengine.records import Acquisition, Sample
from augengine.report.truth import edited
from augengine.train.config import Recipe, read_recipe

ROUNDS, ROWS = 3, 8
LABELS = ("fat", "fibroglandular")


def main() -> None:
    """Measure, print and record."""
    torch.set_num_threads(1)
    acquisitions = [p.acquisition(0.5) for p in duke_protocols()]
    duke = load_policy("duke_acquisition").steps[0].sampler
    figures = {}
    for name, recipe, size, sampler in (
        ("demo", "cddgm_small", 96, DEMO_SAMPLERS["structure"]),
        ("duke", "structure_duke", 224, duke),
    ):
        pairs = list(zip(_slices(size), acquisitions, strict=False))
        vocabulary = Vocabulary.fit(acquisitions)
        ways = {
            "structure": (_model(read_recipe(RECIPES / f"{recipe}.yaml"), vocabulary, size), sampler),
            "local_contrast": (_model(read_recipe(RECIPES / "local_contrast.yaml"), vocabulary, size), Sampler()),
        }
        figures[name] = {"size": size, "steps": sampler.steps, "guidance": sampler.guidance} | _rates(ways, pairs)
        print(name, figures[name])
    print(record("edit_speed", {"rows": ROWS, "rounds": ROUNDS, "threads": 1, **figures}))


def _slices(size: int) -> list[Sample]:
    cohort = Cohort(subjects=1, seed=3, matrix=2 * size, slices=ROWS + 2)
    return prepare(cohort.scan(0), Preparation(size=size, drop_end_slices=1))[:ROWS]


def _model(recipe: Recipe, vocabulary: Vocabulary, size: int) -> Model:
    paints = recipe.diffusion is not None
    spec = ModelSpec(
        network=recipe.network,
        diffusion=recipe.diffusion,
        vocabulary=vocabulary,
        channels=("t1",),
        labels=LABELS if paints else (),
        image_size=(size, size),
        spacing_mm=(1.5, 1.5),
    )
    return untrained_model(spec, seed=0)


def _rates(ways: dict[str, tuple[Model, Sampler]], pairs: list[tuple[Sample, Acquisition]]) -> dict[str, object]:
    seconds: dict[str, list[float]] = {method: [] for method in ways}
    for _ in range(ROUNDS + 1):  # the first warms up
        for method, (model, sampler) in ways.items():
            started = time.process_time()
            edited(model, method, sampler, pairs)
            seconds[method].append(time.process_time() - started)
    rates = {method: len(pairs) / statistics.median(found[1:]) for method, found in seconds.items()}
    return {
        "rows_per_cpu_s": {method: float(f"{rate:.3g}") for method, rate in rates.items()},
        "local_contrast_over_structure": round(rates["local_contrast"] / rates["structure"], 1),
    }


if __name__ == "__main__":
    main()
