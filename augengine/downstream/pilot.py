"""Real and augmented shards in; short trainings with several ratios of them, and what these advise, out."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import replace

from matplotlib.figure import Figure

from augengine.downstream.advice import Advice, advise
from augengine.downstream.arms import baselines
from augengine.downstream.experiment import Experiment
from augengine.downstream.inventory import take_inventory
from augengine.downstream.plots import COLOURS
from augengine.downstream.predictions import test_chunks
from augengine.downstream.results import Plan, measure
from augengine.downstream.run import Stage, run
from augengine.downstream.tables import heading, primary
from augengine.errors import ConfigError, DataError
from augengine.io.store import Store
from augengine.pipeline.units import Actors

FIRST_LOOK = 3
"""Seeds before the first look: of fewer, resamples are too much alike and intervals too narrow."""
FEWEST_PATIENTS = 5
RESULT, PLOT = "advice.json", "advice.png"


def experiment_of(experiment: Experiment, arm: str, ratios: Sequence[float]) -> Experiment:
    """The experiment with an arm at several ratios, and its baseline; ratios that the rows do not suffice for go.

    The smallest ratio must do.
    """
    first, *more = sorted(set(ratios))
    return replace(
        experiment,
        arms=(baselines(arm)[-1], arm),
        ratio=first,
        curve=tuple(more),
        curve_arms=(arm,),
        shorten_curve=True,
    )


def pilot(experiment: Experiment, least: float, stage: Stage, say: Callable[[str], None], *, actors: Actors) -> Advice:
    """Train seed after seed until the gains decide; the same call again goes on where an earlier one stopped.

    Args:
        experiment: made by `experiment_of`; `seeds` is the largest number of them.
        least: the gain in the protocol's main metric that makes augmented rows worth it.
        say: is told after every look what it advises.

    Raises:
        DataError: too few patients to decide, or rows; and all that an experiment raises.
    """
    (arm,) = experiment.curve_arms
    check_patients(experiment)
    looks = experiment.seeds - FIRST_LOOK + 1
    for seeds in range(FIRST_LOOK, experiment.seeds + 1):
        run(replace(experiment, seeds=seeds), stage, actors=actors)
        plan = Plan.read(experiment.out)
        scores = measure(experiment.out, actors=replace(actors, num_gpus=0))
        found = advise(scores, primary(plan), arm, baselines(arm)[-1], least, looks, range(seeds))
        say(f"{seeds} seeds: {found}")
        if found.verdict != "undecided":
            break
    write_advice(found, plan, experiment.out)
    return found


def check_patients(experiment: Experiment) -> None:
    """Refuse a pilot whose seeds or validation patients are too few to decide anything, before anything is trained.

    Raises:
        ConfigError: fewer seeds than the first look takes.
        DataError: fewer labelled validation patients than `FEWEST_PATIENTS`.
    """
    if experiment.seeds < FIRST_LOOK:
        raise ConfigError(f"a pilot looks at {FIRST_LOOK} seeds at least", found=experiment.seeds, where="--seeds")
    chunks = test_chunks(take_inventory(experiment.data, experiment.protocol), experiment.protocol)
    patients = {subject for chunk in chunks for subject in chunk.subjects}
    if len(patients) < FEWEST_PATIENTS:
        raise DataError(
            f"a pilot decides on {FEWEST_PATIENTS} labelled patients of split 'val' at least",
            found=len(patients),
            where=experiment.data,
            next_step="ingest with a larger share, --fractions",
        )


def write_advice(found: Advice, plan: Plan, out: str) -> list[str]:
    """Write `advice.json` and a plot into the pilot's folder; returns their paths."""
    store, buffer = Store(out), io.BytesIO()
    about = {"protocol": plan.protocol.name, "steps": plan.steps, "segmenter": plan.segmenter}
    store.write_json(RESULT, {**about, **found.to_dict()})
    _drawn(found, heading(primary(plan))).savefig(buffer, format="png", dpi=90)
    store.write(PLOT, buffer.getvalue())
    return [store.path(name) for name in (RESULT, PLOT)]


def _drawn(found: Advice, title: str) -> Figure:
    """Gain by ratio with its interval: over all cells in black, and of each cell."""
    figure = Figure(figsize=(6.5, 4), layout="constrained")
    axes = figure.subplots()
    cells = list(found.options[0].cells)
    lines = {"all": [option.gain for option in found.options]}
    if len(cells) > 1:
        lines |= {cell: [option.cells[cell] for option in found.options] for cell in cells}
    places = range(len(found.options))
    for n, (name, values) in enumerate(lines.items()):
        colour = "black" if name == "all" else COLOURS[(n - 1) % len(COLOURS)]
        at = [place + 0.06 * n for place in places]
        errors = [[v.estimate - v.low for v in values], [v.high - v.estimate for v in values]]
        axes.errorbar(at, [v.estimate for v in values], errors, fmt="o-", color=colour, capsize=3, label=name)
    axes.axhline(0, color="0.5", linewidth=1)
    axes.axhline(found.least, color="0.5", linewidth=1, linestyle=":")
    axes.set_xticks(list(places), [f"{option.ratio:g}" for option in found.options])
    axes.set_xlabel("ratio of augmented rows")
    axes.set_ylabel(f"gain in {title}")
    axes.set_title(f"{found.verdict}{'' if found.ratio is None else f' {found.ratio:g}'}; dotted: the gain asked for")
    figure.legend(loc="outside right upper", fontsize=8)
    return figure
