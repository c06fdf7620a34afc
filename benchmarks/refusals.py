"""Every refusal of the documented commands, provoked on phantoms: what was said, by which exit code, after how long.

    python benchmarks/refusals.py [--only TEXT] [--data FOLDER]

Each case is a command of its own, as a user would start it. Seconds hold from the start of Python to the exit; where
a command ends otherwise than expected, this script ends with 1.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from _record import record

from augengine.diffusion.build import build
from augengine.diffusion.checkpoint import save_model
from augengine.io.store import Store
from augengine.load import load_mixture
from augengine.phantom.brain_cohort import BrainCohort
from augengine.phantom.cohort import Cohort
from augengine.pipeline.augment import augment
from augengine.pipeline.ingest import ingest
from augengine.pipeline.phantom import shard_cohort, write_cohort
from augengine.pipeline.units import INLINE
from augengine.prepare import Preparation
from augengine.train.config import read_recipe
from augengine.train.model import model_spec
from augengine.train.rows import dataset_facts

ROOT = Path(__file__).parents[1]
AUGENGINE = (sys.executable, "-c", "from augengine.cli import main; main()")
JOBS = {
    name: (sys.executable, str(ROOT / f"jobs/{name}.py"))
    for name in (
        "augment_duke",
        "augment_brats",
        "train",
        "evaluate",
        "ensembles",
    )
}
MISTAKE, TOO_MANY = 2, 3
MOMENTS = ("flags", "files", "cluster", "headers", "metadata", "stage", "exit code 3")
BUSY, TOO_BUSY = 5, "Ray must start within half a minute"
"""How often a command is tried that another load on the machine kept from starting Ray."""


@dataclass(frozen=True)
class Case:
    """One refusal: which command refuses what, at which moment of docs/refusals.md, and how it is provoked."""

    command: str
    refused: str
    moment: str
    argv: tuple[str, ...]
    says: str
    code: int = MISTAKE
    environment: dict[str, str] = field(default_factory=dict)


def main() -> None:
    """Set the phantoms up, run all cases, and write what they took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="cases whose text holds this")
    parser.add_argument("--data", help="folder for phantoms and models, kept for the next time")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as empty:
        here = Path(asked.data or empty).absolute()
        prepare(here)
        baseline = run((*AUGENGINE, "--help"), {})[1]
        figures, wrong = [], 0
        chosen = sorted(cases(here), key=lambda case: MOMENTS.index(case.moment))
        for case in chosen:
            if asked.only not in f"{case.command}: {case.refused}":
                continue
            code, seconds, cpu, line = run(case.argv, case.environment)
            good = code == case.code and re.search(case.says, line) is not None
            wrong += not good
            print(
                f"{'' if good else 'WRONG '}{case.command}: {case.refused}: {code}, {seconds:.1f} s, {line}", flush=True
            )
            figures.append(
                {
                    "command": case.command,
                    "refused": case.refused,
                    "moment": case.moment,
                    "exit_code": code,
                    "seconds": round(seconds, 1),
                    "cpu_seconds": round(cpu, 1),
                    "line": line.replace(str(here), "…"),
                }
            )
            if not asked.only:  # after every case, so that one that is stopped leaves the others
                told = {"python_loads_seconds": round(baseline, 1), "cases": len(chosen), "refusals": figures}
                record("refusals", told)
    sys.exit(wrong > 0)


def run(argv: tuple[str, ...], environment: dict[str, str]) -> tuple[int, float, float, str]:
    """Exit code, seconds, seconds of computation in the command's own process, and the line that it ended with."""
    names = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    for _ in range(BUSY):
        code, seconds, cpu, line = run_once(argv, names | environment)
        if TOO_BUSY not in line:
            break
    return code, seconds, cpu, line


def run_once(argv: tuple[str, ...], environment: dict[str, str]) -> tuple[int, float, float, str]:
    """As `run`, whatever the command says."""
    start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        argv,
        env={**environment, "PYTHONPATH": str(ROOT), "COLUMNS": "200"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    seconds, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    lines = [line.strip("│ ") for line in (done.stdout + done.stderr).splitlines() if line.strip("│╭╮╰╯─ ")]
    told = [line for line in lines if line.startswith(("error:", "Error:"))] or lines[-1:]
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return done.returncode, seconds, cpu, told[-1] if told else ""


def prepare(here: Path) -> None:
    """Phantoms in folders and shards, models with random weights, and runs; what is there stays."""
    here.mkdir(parents=True, exist_ok=True)
    (here / "nothing").mkdir(exist_ok=True)
    write_policies(here)
    duke, rows, slices = f"{here}/duke", f"{here}/rows", Preparation(size=32)
    breasts = Cohort(subjects=16, matrix=32, slices=8)
    brains = BrainCohort(subjects=16, matrix=32, slices=8, labels="tissue")
    other = slices.model_copy(update={"percentiles": (5.0, 95.0)})
    steps: dict[str, Callable[[], object]] = {
        "duke": lambda: write_cohort(breasts, duke, "duke-classic", actors=INLINE),
        "rows": lambda: ingest(duke, rows, layout="duke", preparation=slices, actors=INLINE),
        "other_ranges": lambda: ingest(duke, f"{here}/other_ranges", layout="duke", preparation=other, actors=INLINE),
        "brains": lambda: shard_cohort(brains, f"{here}/brains", Preparation(), actors=INLINE),
        "volumes": lambda: shard_cohort(brains, f"{here}/volumes", Preparation(slices=False), actors=INLINE),
        "model": lambda: drawn(
            "cddgm_small",
            rows,
            f"{here}/model",
            "network.channels=[8, 16]",
            "network.head_channels=8",
            "network.norm_groups=4",
        ),
        "segmenter": lambda: drawn("unet_duke_small", rows, f"{here}/segmenter", "network.channels=[4, 8]"),
        "augmented": lambda: augmented(here, "sound"),
        "of_test": lambda: augmented(here, "of_test"),
    }
    for name, step in steps.items():
        if not (here / f"{name}.done").exists():
            step()
            (here / f"{name}.done").touch()
            print(f"made {name}", flush=True)


def drawn(name: str, rows: str, out: str, *settings: str) -> None:
    """A run's folder with random weights of a small recipe, as training on these rows would leave it."""
    recipe = read_recipe(f"{name}", settings)
    spec = model_spec(recipe, dataset_facts(rows, recipe.data.rows("train")), {})
    save_model(Store(f"{out}/checkpoint"), spec, build(spec).state_dict())
    Store(out).write_json("run.json", {"recipe_digest": recipe.digest, "content": None})


def augmented(here: Path, policy: str) -> None:
    """A finished run of a policy."""
    mixture = load_mixture(str(here / f"{policy}.yaml"))
    augment(mixture, f"{here}/rows", f"{here}/{policy}_run/augmented", {"": f"{here}/model/checkpoint"}, actors=INLINE)


def write_policies(here: Path) -> None:
    """A sound policy, and what is wrong in others; recipes alike."""
    policy = (ROOT / "augengine/policies/duke_acquisition.yaml").read_text()
    gates = policy[policy.index("gates:") : policy.index("output:")]
    sound = policy.replace(gates, "gates: [{name: changed, min: 0.0}]\n\n")
    target = "where: {manufacturer: GE MEDICAL SYSTEMS}"
    recipe = (ROOT / "augengine/recipes/cddgm_small.yaml").read_text()
    files = {
        "sound.yaml": sound,
        "of_test.yaml": sound.replace("split: train", "split: test"),
        "misspelt.yaml": sound.replace("edit: acquisition", "edit: aquisition"),
        "method.yaml": sound.replace("strength: 1.0", "strength: 2.0"),
        "nobody.yaml": sound.replace("where: {manufacturer: SIEMENS}", "where: {manufacturer: PHILIPS}"),
        "no_target.yaml": sound.replace("from: duke_protocols", "from: samples").replace(
            target, "where: {manufacturer: PHILIPS}"
        ),
        "referee.yaml": sound.replace(
            "{name: changed, min: 0.0}",
            f"{{name: referee_dice, min: 0.5, options: {{model: {{ref: {here}/gone, sha256: null}}, lesion: [fat]}}}}",
        ),
        "too_strict.yaml": sound.replace("min: 0.0", "min: 1000.0"),
        "tracked.yaml": recipe + "trackers: [mlflow]\n",
        "misspelt_recipe.yaml": recipe.replace("warmup_steps", "warmup_stepz"),
        "best.yaml": recipe.replace("steps: 6000", "best_checkpoint: {}\nsteps: 6000"),
        "participants.tsv": "participant_id\tsite\nnobody\tBonn\n",
    }
    for name, text in files.items():
        (here / name).write_text(text)


def cases(here: Path) -> Iterator[Case]:
    """All of them, command after command."""
    yield from augmenting(here)
    yield from training(here)
    yield from evaluating(here)
    yield from the_others(here)


def augmenting(here: Path) -> Iterator[Case]:
    """Of `augment`."""
    model = ("--checkpoint", f"{here}/model/checkpoint")

    def case(
        refused: str,
        moment: str,
        says: str,
        *flags: str,
        data: str = "rows",
        job: str = "augment_duke",
        policy: str | None = "sound.yaml",
        **changes: Any,
    ) -> Case:
        given = () if policy is None else ("--policy", policy if "/" in policy else f"{here}/{policy}")
        out = () if "--out" in flags else ("--out", f"{here}/new")
        argv = (*JOBS[job], "--data", f"{here}/{data}", *given, *out, *flags)
        return Case("augment", refused, moment, argv, says, **changes)

    yield case("unknown flag", "flags", "No such option", "--polcy", "x")
    yield case("no such --data", "flags", "no such file or folder", data="gone")
    yield case("mistake in the policy", "files", r"misspelt\.yaml:\d+.*did you mean", *model, policy="misspelt.yaml")
    yield case("value out of range in the policy", "files", r"method\.yaml:\d+", *model, policy="method.yaml")
    yield case("mistake in the recipe", "files", r"yaml:\d+.*warmup_stepz", "--recipe", f"{here}/misspelt_recipe.yaml")
    yield case(
        "unknown role in --checkpoint", "files", "role|model", "--checkpoint", f"painter={here}/model/checkpoint"
    )
    yield case("missing checkpoint", "files", "no model.json", "--checkpoint", f"{here}/gone")
    yield case("checkpoint of another kind", "files", "segmenter", "--checkpoint", f"{here}/segmenter/checkpoint")
    yield case(
        "recipe of another kind than the roles",
        "files",
        "recipe",
        data="brains",
        job="augment_brats",
        policy="augengine/policies/brats_tumor_removal.yaml",
    )
    yield case(
        "recipe that needs parts",
        "files",
        "--part|trained model",
        "--recipe",
        "augengine/recipes/pcf_dit_small.yaml",
        data="brains",
        job="augment_brats",
        policy="augengine/policies/brats_tumor_removal.yaml",
    )
    yield case("gate's referee is missing", "files", "gone", *model, policy="referee.yaml")
    yield case("batch that does not divide among --workers", "files", "divide evenly", "--workers", "3")
    yield case("tracker that is not installed", "files", "mlflow", "--recipe", f"{here}/tracked.yaml")
    yield case(
        "no Ray answers at RAY_ADDRESS", "cluster", "RAY_ADDRESS", *model, environment={"RAY_ADDRESS": "127.0.0.1:9"}
    )
    yield case("more GPUs than there are", "cluster", "GPU", *model, "--gpus-per-actor", "1")
    yield case("more actors than CPUs hold", "cluster", "CPU", *model, "--actors", "64", "--cpus-per-actor", "4")
    yield case("layout that is not clear", "headers", "volume|layout", *model, data="nothing")
    yield case("folder without volumes", "headers", "no subject of layout", *model, "--layout", "duke", data="nothing")
    yield case("channels other than the model's", "metadata", "channels", *model, data="brains")
    yield case("volumes for a model of slices", "metadata", "slices|channels", *model, data="volumes")
    yield case("other intensity ranges than the model's", "metadata", "percentile", *model, data="other_ranges")
    yield case(
        "labels that the recipe names and the data lack",
        "metadata",
        "label",
        "--recipe",
        "augengine/recipes/seg_m3_small.yaml",
        policy="augengine/policies/brats_tumor_removal.yaml",
        job="augment_brats",
    )
    yield case("select that takes no row", "metadata", "takes no row.*nearest", *model, policy="nobody.yaml")
    yield case("targets that no scan meets", "metadata", "PHILIPS", *model, policy="no_target.yaml")
    yield case(
        "--out of another policy",
        "stage",
        "another|other",
        *model,
        "--out",
        f"{here}/sound_run",
        policy="too_strict.yaml",
    )
    yield case(
        "more rows rejected than allowed", "exit code 3", "reject", *model, policy="too_strict.yaml", code=TOO_MANY
    )


def training(here: Path) -> Iterator[Case]:
    """Of `train`."""

    def case(
        refused: str, moment: str, says: str, recipe: str, *flags: str, data: str = "rows", **changes: Any
    ) -> Case:
        path = recipe if recipe.startswith(str(here)) else f"augengine/recipes/{recipe}.yaml"
        out = () if "--out" in flags else ("--out", f"{here}/new_model")
        argv = (*JOBS["train"], path, "--data", f"{here}/{data}", *out, *flags)
        return Case("train", refused, moment, argv, says, **changes)

    yield case("mistake in the recipe", "files", r"yaml:\d+.*warmup_stepz", f"{here}/misspelt_recipe.yaml")
    yield case("mistake in --set", "files", "stepz", "cddgm_small", "--set", "stepz=1")
    yield case(
        "pretrained weights that are missing",
        "files",
        "no config.json",
        "pcf_vae_paper",
        "--set",
        f"pretrained={here}/gone",
    )
    yield case("no steps and no pretrained weights", "files", "pretrained", "pcf_vae_paper")
    yield case("batch that does not divide among --workers", "files", "divide evenly", "cddgm_small", "--workers", "3")
    yield case(
        "no Ray answers at RAY_ADDRESS",
        "cluster",
        "RAY_ADDRESS",
        "cddgm_small",
        environment={"RAY_ADDRESS": "127.0.0.1:9"},
    )
    yield case("no shards", "metadata", "nothing", "cddgm_small", data="nothing")
    yield case("labels that the data lack", "metadata", "label", "seg_m3_small")
    yield case("missing part", "files", "autoencoder", "pcf_dit_small", data="brains")
    yield case(
        "part of another kind",
        "metadata",
        "kind autoencoder",
        "pcf_dit_small",
        "--part",
        f"autoencoder={here}/segmenter/checkpoint",
        data="brains",
    )
    yield case("another run in --out", "metadata", "another recipe", "cddgm_small", "--out", f"{here}/segmenter")
    yield case("GPUs that are not there", "metadata", "GPU", "cddgm_small", "--gpu")
    yield case(
        "workers that CPUs do not hold",
        "metadata",
        "CPU",
        "cddgm_small",
        "--workers",
        "64",
        "--set",
        "optimiser.batch_size=64",
    )


def evaluating(here: Path) -> Iterator[Case]:
    """Of `evaluate`."""
    rows = ("--data", f"{here}/rows")

    def case(refused: str, moment: str, says: str, *flags: str, **changes: Any) -> Case:
        argv = (*JOBS["evaluate"], "--out", f"{here}/evaluated", "--seeds", "1", "--steps", "1", *flags)
        return Case("evaluate", refused, moment, argv, says, **changes)

    yield case("unknown protocol", "flags", "did you mean", *rows, "--protocol", "dukestrict")
    yield case("unknown arm", "flags", "did you mean", *rows, "--arms", "reel")
    yield case("unknown segmenter", "flags", "did you mean", *rows, "--segmenter", "unets")
    yield case("fewer than two --site", "flags", "two different", *rows, "--site", "Bonn")
    yield case("arm without its rows", "flags", "counterfactual|rows", *rows, "--arms", "counterfactual")
    yield case("mistake in a recipe", "files", "warmup_stepz", *rows, "--recipe", f"unet={here}/misspelt_recipe.yaml")
    yield case(
        "recipes that the segmenter does not take",
        "files",
        "takes recipes",
        *rows,
        "--segmenter",
        "dmcie",
        "--arms",
        "real",
    )
    yield case(
        "parts that nobody trains",
        "files",
        "is built on",
        *rows,
        "--segmenter",
        "pcf",
        "--arms",
        "real",
        "--recipe",
        "counterfactual=augengine/recipes/pcf_dit.yaml,prompter=augengine/recipes/unet3d.yaml",
    )
    yield case(
        "a subject id in two --data",
        "metadata",
        "stands in one data set",
        *rows,
        "--data",
        f"{here}/other_ranges",
        "--arms",
        "real",
    )
    yield case(
        "subject that --participants does not name",
        "metadata",
        "of every subject",
        *rows,
        "--participants",
        f"{here}/participants.tsv",
        "--arms",
        "real",
    )
    yield case(
        "a cell without labelled rows",
        "metadata",
        "no labelled rows",
        *rows,
        "--site",
        "Bonn",
        "--site",
        "Turin",
        "--arms",
        "real",
    )
    yield case(
        "labels that the protocol's classes need",
        "metadata",
        "label|enhancing",
        *rows,
        "--protocol",
        "brats_paper",
        "--arms",
        "real",
    )
    yield case(
        "augmented rows of test subjects",
        "metadata",
        "subject",
        *rows,
        "--augmented",
        f"{here}/of_test_run/augmented",
        "--protocol",
        "duke_transductive",
        "--arms",
        "real,counterfactual",
    )
    yield case(
        "a domain without augmented rows",
        "metadata",
        "rows",
        *rows,
        "--augmented",
        f"{here}/sound_run/augmented",
        "--protocol",
        "duke_transductive",
        "--arms",
        "real,counterfactual",
    )


def the_others(here: Path) -> Iterator[Case]:
    """Of `measure`, `sweep`, `pseudo-label`, `plan` and `jobs/ensembles.py`."""
    rows, made = f"{here}/rows", f"{here}/sound_run/augmented"
    model, segmenter = f"{here}/model/checkpoint", f"{here}/segmenter/checkpoint"

    def case(command: str, refused: str, moment: str, says: str, *argv: str, **changes: Any) -> Case:
        program = JOBS.get(command, (*AUGENGINE, command))
        out = () if command in ("plan", "ensembles") else ("--out", f"{here}/new_{command}")
        return Case(command, refused, moment, (*program, *argv, *out), says, **changes)

    yield case("measure", "two runs of one name", "flags", "name of its own", rows, made, made)
    yield case("measure", "unknown split", "flags", "split", rows, made, "--split", "tests")
    yield case("measure", "unknown extractor", "flags", "extractor", rows, made, "--extractor", "radiomic")
    yield case(
        "measure",
        "extractor's weights are missing",
        "files",
        "gone",
        rows,
        made,
        "--extractor",
        f"resnet50={here}/gone",
    )
    yield case("measure", "referee of another kind", "files", "segmenter", rows, made, "--referee", model)
    yield case("measure", "referee is missing", "files", "no model.json", rows, made, "--referee", f"{here}/gone")
    yield case("measure", "folder without rows", "metadata", "nothing", rows, f"{here}/nothing")
    sweep = (f"{here}/sound.yaml", rows)
    yield case("sweep", "--vary without values", "flags", "give key=A,B", *sweep, "--vary", "sampler.steps")
    yield case(
        "sweep", "setting that the policy does not take", "files", "stepz", *sweep, "--vary", "sampler.stepz=1,2"
    )
    yield case("sweep", "value out of range", "files", "steps", *sweep, "--vary", "sampler.steps=0,2")
    yield case(
        "sweep",
        "missing checkpoint",
        "files",
        "no model.json",
        *sweep,
        "--vary",
        "sampler.steps=1,2",
        "--checkpoint",
        f"{here}/gone",
    )
    yield case(
        "sweep",
        "predictor of another kind",
        "files",
        "acquisition.predictor",
        *sweep,
        "--vary",
        "sampler.steps=1,2",
        "--checkpoint",
        model,
        "--predictor",
        segmenter,
    )
    yield case(
        "sweep",
        "select that takes no row",
        "metadata",
        "takes no row",
        f"{here}/nobody.yaml",
        rows,
        "--vary",
        "sampler.steps=1,2",
        "--checkpoint",
        model,
    )
    yield case("pseudo-label", "missing segmenter", "files", "no model.json", rows, "--segmenter", f"{here}/gone")
    yield case("pseudo-label", "model of another kind", "files", "segmenter", rows, "--segmenter", model)
    yield case(
        "pseudo-label",
        "channels other than the segmenter's",
        "metadata",
        "channels",
        f"{here}/brains",
        "--segmenter",
        segmenter,
    )
    yield case(
        "plan", "rows that state no site", "metadata", "state theirs", f"{here}/sound.yaml", rows, "--site", "Bonn"
    )
    yield case(
        "ensembles", "one size", "flags", "two numbers or more", f"{here}/evaluated", "--data", rows, "--samples", "5"
    )
    yield case(
        "ensembles", "folder without an evaluation", "files", "experiment.json", f"{here}/nothing", "--data", rows
    )


if __name__ == "__main__":
    main()
