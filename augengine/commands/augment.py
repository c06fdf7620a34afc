"""The flags of the main jobs: images or shards, a policy and a checkpoint in; augmented shards and pictures out."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

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
from augengine.workflow import Job, check_acceptable, holds_shards, run_on_data, run_on_phantom

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


_OF_IMAGES = (
    "--layout",
    "--labels",
    "--channels",
    "--set",
    "--site",
    "--pseudonym-key-file",
    "--size",
    "--drop-end-slices",
)
_OF_TRAINING = ("--recipe", "--workers")


@dataclass(frozen=True)
class JobFlags:
    """Flags that the main jobs have in common."""

    data: DataFlag = None
    checkpoint: CheckpointFlag = None
    out: OutFlag = None
    recipe: RecipeFlag = "cddgm_small"
    layout: LayoutFlag = "auto"
    labels: LabelsFlag = None
    channels: ChannelsFlag = ""
    set_: SetFlag = ""
    site: SiteFlag = None
    pseudonym_key_file: KeyFlag = None
    size: SizeFlag = None
    drop_end_slices: DropFlag = 0
    workers: WorkersFlag = "1"
    actors: ActorsFlag = None
    cpus_per_actor: CpusFlag = 0.5
    gpus_per_actor: GpusFlag = 0
    unit_timeout_s: TimeoutFlag = None
    new_version: VersionFlag = False
    keep_going: KeepGoingFlag = False
    retry_failed: RetryFlag = False

    def on_phantom(self, policy: str) -> Job:
        """The job on the embedded phantom. Raises `ConfigError` for flags of images."""
        if given := self._of_images():
            raise ConfigError(
                "flags that say how images are read go with --data: without it the job makes phantoms",
                found=given,
                next_step="give --data, or leave them out",
            )
        return self._job("duke_phantom", policy, layout="duke", preparation=DEMO_PREPARATION)

    def on_data(self, policy: str, data: str, name: str) -> Job:
        """The job on a folder of the user's; `name` is that of the output folder where none is given.

        Raises:
            ConfigError: flags of images for a folder that holds shards, among others.
        """
        data = _existing(data)
        if (given := self._of_images()) and holds_shards(data):
            raise ConfigError(
                "flags that say how images are read change no shards",
                found=given,
                where=data,
                next_step="leave them out, or ingest again with them",
            )
        codes, scheme = parse_labels(self.labels) if self.labels else (None, None)
        options = checked(
            SourceOptions,
            pseudonym_key=pseudonym_key(self.pseudonym_key_file),
            labels=codes,
            scheme=scheme,
            channels=parse_assignments(self.channels, "--channels", "*"),
            acquisition=parse_assignments(self.set_, "--set"),
            site=self.site,
        )
        preparation = checked(Preparation, size=self.size, drop_end_slices=self.drop_end_slices)
        return self._job(name, policy, data=data, layout=self.layout, options=options, preparation=preparation)

    def _of_images(self) -> str:
        """The flags given that only an ingest obeys."""
        return ", ".join(name for name in self.given if name in _OF_IMAGES)

    @property
    def given(self) -> list[str]:
        """The flags whose values are not the defaults."""
        found = (field.name for field in fields(self) if getattr(self, field.name) != field.default)
        return ["--" + name.strip("_").replace("_", "-") for name in found]

    def _job(self, name: str, policy: str, **of_data: Any) -> Job:
        return Job(
            output_uri(self.out, name),
            policy,
            self.recipe,
            checkpoints=parse_checkpoints(self.checkpoint),
            workers=parse_workers(self.workers),
            training_flags=tuple(name for name in self.given if name in _OF_TRAINING),
            actors=Actors(self.actors, self.cpus_per_actor, self.gpus_per_actor, unit_timeout_s=self.unit_timeout_s),
            new_version=self.new_version,
            keep_going=self.keep_going,
            retry_failed=self.retry_failed,
            **of_data,
        )


def augment_duke(
    *, policy: PolicyFlag = "duke_acquisition", flags: JobFlags, subjects: SubjectsFlag = DEMO_COHORT.subjects
) -> None:
    """Augment Duke-Breast-Cancer-MRI, any other breast MRI, or (without --data) the embedded phantom."""
    with exit_codes():
        if flags.data is None:
            cohort = checked(Cohort, **{**DEMO_COHORT.model_dump(), "subjects": subjects})
            check_acceptable(run_on_phantom(flags.on_phantom(policy), cohort, DEMO_SAMPLERS))
            return
        if subjects != DEMO_COHORT.subjects:
            raise ConfigError(
                "--subjects counts phantoms, and --data holds scans",
                found=subjects,
                next_step="leave one of them out",
            )
        check_acceptable(run_on_data(flags.on_data(policy, flags.data, "duke")))


def augment_brats(*, policy: PolicyFlag = "brats_acquisition", flags: JobFlags) -> None:
    """Augment a BraTS folder (state its year by --labels); without --data, list the edits that can run."""
    if flags.data is None:
        with user_errors():
            if flags.given:
                raise ConfigError(
                    "without --data there is nothing to augment, and the edits are listed",
                    found=", ".join(flags.given),
                    next_step="give --data, too",
                )
            for name, edit in EDITS.items():
                models = ", ".join(f"{role} ({' or '.join(kinds)})" for role, kinds in edit.MODELS.items()) or "none"
                says = (type(edit).__doc__ or "It says nothing of itself.").strip().splitlines()[0]
                say(f"{name}: {says} Models: {models}.")
        return
    with exit_codes():
        check_acceptable(run_on_data(flags.on_data(policy, flags.data, "brats")))


def _existing(data: str) -> str:
    """The data as an absolute path or a URI."""
    if "://" in data:
        return data
    if not data.strip() or not Path(data).expanduser().exists():
        raise ConfigError("no such file or folder", found=data or "nothing", where="--data", next_step="check the path")
    return str(Path(data).expanduser().absolute())


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
