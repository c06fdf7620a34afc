"""An experiment of at most so many draws in; as many of them as an interval of a wanted half-width takes, out.

It stops by the width of intervals, which knows nothing of a gain's sign, so looking after every draw favours no arm.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from augengine.downstream.arms import baselines
from augengine.downstream.experiment import Experiment
from augengine.downstream.results import Gain, Plan, gains, measure
from augengine.downstream.run import Done, Stage, run
from augengine.downstream.tables import primary
from augengine.pipeline.units import Actors

FEWEST = 5
"""Draws before the first look: of fewer, resamples are too much alike and intervals too narrow."""


def run_until(
    experiment: Experiment, half_width: float, stage: Stage, say: Callable[[str], None], *, actors: Actors
) -> Done:
    """Run draw after draw until every comparison with an arm's nearest baseline is known to ± `half_width`.

    The interval is that over patients and draws, of the main metric, in every cell and for every number of training
    subjects. The same call again goes on where an earlier one stopped; raises as `run` does.

    Args:
        experiment: `seeds` is the largest number of draws.
        half_width: in the main metric's unit.
        say: is told after every draw how wide the widest interval is.
    """
    fewest = min(FEWEST, experiment.seeds)
    for draws in range(fewest, experiment.seeds + 1):
        done = run(replace(experiment, seeds=draws), stage, actors=actors)
        plan = Plan.read(experiment.out)
        scores = measure(experiment.out, actors=replace(actors, num_gpus=0))
        chosen = {row: found for row, found in scores.items() if row.ratio == plan.ratio}
        widest = widest_half(gains(chosen, primary(plan), plan, over_seeds=True))
        say(f"{draws} draws: the widest interval of a gain is ± {widest:.4f}, wanted ± {half_width:g}")
        if widest <= half_width:
            break
    return done


def widest_half(found: list[Gain]) -> float:
    """The largest half-width among the gains over each arm's nearest baseline; 0 without any."""
    nearest = (gain for gain in found if gain.against == baselines(gain.arm)[-1])
    return max(((i.high - i.low) / 2 for gain in nearest if (i := gain.with_seeds) is not None), default=0.0)
