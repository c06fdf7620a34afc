"""The flags of the main jobs: images or shards, a policy and a checkpoint in; augmented shards and pictures out."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from augengine.commands.flags import (
    CHECKPOINT_HELP,
    KEY_HELP,
    checked,
    parse_assignments,
    parse_checkpoints,
    parse_workers,
)
from augengine.edits import EDITS
from augengine.errors import ConfigError
from augengine.io.labels import parse_labels
from augengine.io.layouts import LAYOUTS
from augengine.io.pseudonym_key import pseudonym_key
from augengine.io.sources import SourceOptions
from augengine.phantom.cohort import Cohort
from augengine.pipeline.cluster import output_uri, user_errors
from augengine.pipeline.early_stop import UnacceptableRunError
from augengine.pipeline.units import Actors
from augengine.policy.spec import Sampler
from augengine.prepare import Preparation
from augengine.report.console import say
from augengine.told import tell
from augengine.workflow import Job, check_acceptable, run_on_data, run_on_phantom

DEMO_COHORT = Cohort(subjects=96, seed=17, matrix=128, slices=8, slice_spacing_mm=6, siemens_fraction=0.5)
DEMO_PREPARATION = Preparation(size=96, drop_end_slices=1)
# What the summary compares: the default method, deterministic inversion, and the paper's operating point.
DEMO_SAMPLERS = {
    "structure": Sampler(solver="ddim", steps=4, strength=1.0, guidance=1.0),
    "inversion": Sampler(solver="ddim", steps=10, strength=0.9, guidance=1.0),
    "sdedit": Sampler(solver="ddpm", steps=50, strength=0.05, guidance=3.0),
}
TOO_MANY_REJECTED = 3

DataFlag = Annotated[str | None, typer.Option(help="Folder of images (see --layout) or of ingested shards.")]
CheckpointFlag = Annotated[str | None, typer.Option(help=f"{CHECKPOINT_HELP}; without one, --recipe is trained.")]
PolicyFlag = Annotated[str, typer.Option(help="Policy or mix: a file, or a name of the package's.")]
OutFlag = Annotated[str | None, typer.Option(help="Output folder: a path or any fsspec URI.")]
RecipeFlag = Annotated[str, typer.Option(help="Training recipe, file or name, used without --checkpoint.")]
LayoutFlag = Annotated[str, typer.Option(help=f"One of {', '.join(LAYOUTS)}.")]
LabelsFlag = Annotated[str | None, typer.Option(help="Label scheme (brats2021, …) or name=code,...")]
ChannelsFlag = Annotated[str, typer.Option(help="name=PATTERN,... for NIfTI and NRRD.")]
SetFlag = Annotated[str, typer.Option("--set", help="Acquisition of images without headers: echo_time_ms=2.4,...")]
SiteFlag = Annotated[str | None, typer.Option(help="Name of the images' site, written to every row.")]
KeyFlag = Annotated[Path | None, typer.Option(help=KEY_HELP)]
SizeFlag = Annotated[int | None, typer.Option(help="Square in-plane matrix; default: the checkpoint's.")]
DropFlag = Annotated[int, typer.Option(help="Slices left out at each end of a volume.")]
WorkersFlag = Annotated[str, typer.Option(help="Training workers: N, or LEAST-MOST.")]
ActorsFlag = Annotated[int | None, typer.Option(min=1, help="Actors that work; default: as the cluster holds.")]
CpusFlag = Annotated[float, typer.Option(help="Logical CPUs of an actor; their sum must stay below the cluster's.")]
GpusFlag = Annotated[float, typer.Option(help="GPUs of an augmenting actor.")]
TimeoutFlag = Annotated[float | None, typer.Option(help="Seconds after which a unit's actor is killed; see docs.")]
VersionFlag = Annotated[
    bool, typer.Option("--new-version", help="If --out holds rows of another policy, model or source: add v2, v3, …")
]
KeepGoingFlag = Annotated[
    bool, typer.Option("--keep-going", help="Make all rows, even of a run that the first units show to fail.")
]
RetryFlag = Annotated[
    bool, typer.Option("--retry-failed", help="Try rows again that failed in a former run, and no others.")
]
SubjectsFlag = Annotated[int, typer.Option(help="Phantom subjects, without --data.")]


def augment_duke(
    data: DataFlag = None,
    checkpoint: CheckpointFlag = None,
    policy: PolicyFlag = "duke_acquisition",
    out: OutFlag = None,
    recipe: RecipeFlag = "cddgm_small",
    layout: LayoutFlag = "auto",
    labels: LabelsFlag = None,
    channels: ChannelsFlag = "",
    set_: SetFlag = "",
    site: SiteFlag = None,
    pseudonym_key_file: KeyFlag = None,
    size: SizeFlag = None,
    drop_end_slices: DropFlag = 0,
    workers: WorkersFlag = "1",
    actors: ActorsFlag = None,
    cpus_per_actor: CpusFlag = 0.5,
    gpus_per_actor: GpusFlag = 0,
    unit_timeout_s: TimeoutFlag = None,
    new_version: VersionFlag = False,
    keep_going: KeepGoingFlag = False,
    retry_failed: RetryFlag = False,
    subjects: SubjectsFlag = DEMO_COHORT.subjects,
) -> None:
    """Augment Duke-Breast-Cancer-MRI, any other breast MRI, or (without --data) the embedded phantom."""
    with exit_codes():
        spread = Actors(actors, cpus_per_actor, gpus_per_actor, unit_timeout_s=unit_timeout_s)
        if data is None:
            cohort = checked(Cohort, **{**DEMO_COHORT.model_dump(), "subjects": subjects})
            job = Job(
                output_uri(out, "duke_phantom"),
                policy,
                recipe,
                None,
                parse_checkpoints(checkpoint),
                layout="duke",
                preparation=DEMO_PREPARATION,
                workers=parse_workers(workers),
                actors=spread,
                new_version=new_version,
                keep_going=keep_going,
                retry_failed=retry_failed,
            )
            check_acceptable(run_on_phantom(job, cohort, DEMO_SAMPLERS))
        else:
            job = Job(
                output_uri(out, "duke"),
                policy,
                recipe,
                _existing(data),
                parse_checkpoints(checkpoint),
                layout,
                _options(labels, channels, set_, site, pseudonym_key_file),
                _preparation(size, drop_end_slices),
                parse_workers(workers),
                spread,
                new_version,
                keep_going,
                retry_failed,
            )
            check_acceptable(run_on_data(job))


def augment_brats(
    data: DataFlag = None,
    checkpoint: CheckpointFlag = None,
    policy: PolicyFlag = "brats_acquisition",
    out: OutFlag = None,
    recipe: RecipeFlag = "cddgm_small",
    layout: LayoutFlag = "auto",
    labels: LabelsFlag = None,
    channels: ChannelsFlag = "",
    set_: SetFlag = "",
    site: SiteFlag = None,
    pseudonym_key_file: KeyFlag = None,
    size: SizeFlag = None,
    drop_end_slices: DropFlag = 0,
    workers: WorkersFlag = "1",
    actors: ActorsFlag = None,
    cpus_per_actor: CpusFlag = 0.5,
    gpus_per_actor: GpusFlag = 0,
    unit_timeout_s: TimeoutFlag = None,
    new_version: VersionFlag = False,
    keep_going: KeepGoingFlag = False,
    retry_failed: RetryFlag = False,
) -> None:
    """Augment a BraTS folder (state its year by --labels); without --data, list the edits that can run."""
    if data is None:
        with user_errors():
            for name, edit in EDITS.items():
                models = ", ".join(f"{role} ({' or '.join(kinds)})" for role, kinds in edit.MODELS.items()) or "none"
                says = (type(edit).__doc__ or "It says nothing of itself.").strip().splitlines()[0]
                say(f"{name}: {says} Models: {models}.")
        return
    with exit_codes():
        job = Job(
            output_uri(out, "brats"),
            policy,
            recipe,
            _existing(data),
            parse_checkpoints(checkpoint),
            layout,
            _options(labels, channels, set_, site, pseudonym_key_file),
            _preparation(size, drop_end_slices),
            parse_workers(workers),
            Actors(actors, cpus_per_actor, gpus_per_actor, unit_timeout_s=unit_timeout_s),
            new_version,
            keep_going,
            retry_failed,
        )
        check_acceptable(run_on_data(job))


def _existing(data: str) -> str:
    """The data as an absolute path or a URI."""
    if "://" in data:
        return data
    if not Path(data).expanduser().exists():
        raise ConfigError("no such file or folder", found=data, where="--data", next_step="check the path")
    return str(Path(data).expanduser().absolute())


def _options(labels: str | None, channels: str, set_: str, site: str | None, key_file: Path | None) -> SourceOptions:
    codes, scheme = parse_labels(labels) if labels else (None, None)
    return checked(
        SourceOptions,
        pseudonym_key=pseudonym_key(key_file),
        labels=codes,
        scheme=scheme,
        channels=parse_assignments(channels, "--channels", "*"),
        acquisition=parse_assignments(set_, "--set"),
        site=site,
    )


def _preparation(size: int | None, drop_end_slices: int) -> Preparation:
    return checked(Preparation, size=size, drop_end_slices=drop_end_slices)


@contextmanager
def exit_codes() -> Iterator[None]:
    """Exit with 3 where more was rejected or failed than the policy allows; everything is committed all the same."""
    with user_errors():
        try:
            yield
        except UnacceptableRunError as error:
            typer.echo(f"error: {error}", err=True)
            tell(error=error.to_dict())
            sys.exit(TOO_MANY_REJECTED)
