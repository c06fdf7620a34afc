"""A cohort in, a data set on disk or prepared samples out; the one place that knows every layout."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from augengine.errors import ConfigError, DataError
from augengine.phantom.brain_cohort import BrainCohort
from augengine.phantom.cohort import Cohort
from augengine.phantom.write_brats import write_brats_subject
from augengine.phantom.write_duke import write_duke_subject, write_mapping
from augengine.prepare import Preparation, prepare
from augengine.records import Acquisition, Sample

AnyCohort = Annotated[Cohort | BrainCohort, Field(discriminator="kind")]
Layout = Literal["duke-classic", "duke-descriptive", "brats2021", "brats2023"]
_ADAPTER: TypeAdapter[Cohort | BrainCohort] = TypeAdapter(AnyCohort)


def read_cohort(path: Path) -> Cohort | BrainCohort:
    """The cohort that `cohort.json` (or the folder that holds it) describes."""
    path = path / "cohort.json" if path.is_dir() else path
    try:
        return _ADAPTER.validate_python(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise DataError(
            "no phantom cohort here", where=str(path), next_step="a folder without cohort.json is unfinished or real"
        ) from None
    except (ValidationError, ValueError) as error:
        raise DataError("this is not a cohort description", found=str(error).splitlines()[0], where=str(path)) from None


def write(cohort: Cohort | BrainCohort, folder: Path, layout: Layout, subjects: Iterable[int] | None = None) -> None:
    """Write a cohort (or some subjects, by index) as a data set of the layout; see `write_subject` and `finish`."""
    chosen = range(cohort.subjects) if subjects is None else subjects
    finish(cohort, folder, [row for index in chosen for row in write_subject(cohort, index, folder, layout)])


def write_subject(cohort: Cohort | BrainCohort, index: int, folder: Path, layout: Layout) -> list[dict[str, str]]:
    """Write one subject; returns its rows of Duke's mapping file (none for BraTS). Subjects are independent.

    Raises:
        ConfigError: a breast cohort in a BraTS layout, or a brain cohort in a Duke layout.
    """
    if isinstance(cohort, Cohort) and layout in ("duke-classic", "duke-descriptive"):
        return write_duke_subject(cohort, index, folder, "classic" if layout == "duke-classic" else "descriptive")
    if isinstance(cohort, BrainCohort) and layout in ("brats2021", "brats2023"):
        write_brats_subject(cohort, index, folder, 2021 if layout == "brats2021" else 2023)
        return []
    raise ConfigError(
        f"a {cohort.kind} cohort has no such layout",
        found=layout,
        next_step="breast: duke-classic, duke-descriptive; brain: brats2021, brats2023",
    )


def finish(cohort: Cohort | BrainCohort, folder: Path, rows: Sequence[Mapping[str, str]]) -> None:
    """Write Duke's mapping file, if there are rows, and last `cohort.json`: without it a folder is unfinished."""
    if rows:
        write_mapping(folder, rows)
    (folder / "cohort.json").write_text(json.dumps(cohort.model_dump(), indent=1) + "\n", encoding="utf-8")


def prepared(cohort: Cohort | BrainCohort, index: int, preparation: Preparation) -> list[Sample]:
    """One subject straight to samples, ready for a shard; subjects are independent."""
    return prepare(cohort.scan(index), preparation)


def true_counterfactual(
    cohort: Cohort, sample: Sample, acquisition: Acquisition, preparation: Preparation, *, noise: bool = True
) -> Sample:
    """What `sample` (a prepared slice or volume, synthetic or not) would look like under `acquisition`.

    Raises:
        DataError: the sample is not of this cohort, or its slice is not among the prepared ones.
    """
    truths = prepare(cohort.truth(sample.subject_id, acquisition, noise=noise), preparation)
    for truth in truths:
        if truth.slice_index == sample.slice_index:
            return truth
    raise DataError("no such slice in the truth", found=sample.slice_index, where=sample.sample_id)
