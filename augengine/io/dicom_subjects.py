"""PatientID, folder and study of a DICOM series go in; whose it is comes out."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from augengine.io.sources import Source

# What anonymisers write instead of a PatientID. `ANON001` and the like are pseudonyms, and tell patients apart.
_PLACEHOLDERS = re.compile(
    r"|anon|anonym|anonymous|anonymi[sz]ed?|de-?identified|removed|redacted|unknown|none|null|n/?a|nobody|no ?name|"
    r"no ?id|patient|patient ?id|id|x+|0+",
    re.IGNORECASE,
)
BY_FOLDER = "subject by folder: PatientID is empty or a placeholder"
BY_STUDY = "subject by study: PatientID is empty or a placeholder, and no folder stands for a patient"
UNKNOWN = (
    "PatientID is empty or a placeholder, and studies lie together: who is who cannot be told; "
    "give --subject PATTERN, or one folder for each patient"
)
NOBODY = (
    "PatientID and StudyInstanceUID are empty or removed, and series lie together: who is who cannot be told; "
    "give --subject PATTERN, or one folder for each patient"
)


@dataclass(frozen=True)
class Person:
    """Whose a series is.

    Attributes:
        name: the data set's own; never written.
        note: how it was found, where PatientID does not say.
        error: why it cannot be found.
    """

    name: str
    note: str | None = None
    error: str | None = None


def person(patient: str, folder: str, studies: Sequence[str], alone: bool) -> Person:
    """The patient of a series.

    Args:
        patient: PatientID.
        folder: that was scanned, relative to the root; `.` where slices lie right in the root.
        studies: the series' own StudyInstanceUID, then those of the other series below that folder without a PatientID.
        alone: it is the only folder of the data set, so that it need not stand for one patient.
    """
    if not _PLACEHOLDERS.fullmatch(patient.strip(" ^_-.")):
        return Person(patient)
    if alone and len(set(studies)) > 1:
        return Person(studies[0], error=UNKNOWN)
    if alone and not studies[0] and len(studies) > 1:
        return Person(folder, error=NOBODY)
    if folder == ".":
        return Person(studies[0] or folder, BY_STUDY)
    return Person(folder, BY_FOLDER)


def settle(sources: Sequence[Source]) -> list[Source]:
    """What only all folders together tell.

    A series whose images lie in several folders is refused: each folder alone would make a part of it a whole volume.
    One PatientID in several folders is one subject, and is noted: two sites may use one number for two people.
    """
    series: dict[str, list[Source]] = defaultdict(list)
    people: dict[str, list[Source]] = defaultdict(list)
    for source in sources:
        if "series" in source.spec:
            series[source.spec["series"]].append(source)
            people[source.subject_id].append(source)
    torn = {name for name, group in series.items() if len({*_by_folder(group).values()}) > 1}
    shared = {}
    for subject, group in people.items():
        studies = {s.spec["folder"]: s.spec["study"] for s in group}
        if len(studies) > 1 and len(set(studies.values())) > 1:
            shared[subject] = f"one PatientID in {len(studies)} folders: taken as one subject"
    return [_settled(source, torn, shared) for source in sources]


def _settled(source: Source, torn: set[str], shared: dict[str, str]) -> Source:
    if source.spec.get("series") in torn:
        why = "images of this series lie in several folders; ingest the folder above them, or put them into one"
        return replace(source, error=why)
    if source.subject_id in shared and "series" in source.spec:
        return replace(source, notes=(*source.notes, shared[source.subject_id]))
    return source


def _by_folder(group: Sequence[Source]) -> dict[str, tuple[str, ...]]:
    """What each folder holds of a series: equal where the folders are copies."""
    found: dict[str, list[str]] = defaultdict(list)
    for source in group:
        found[source.spec["folder"]].append(source.spec["content"])
    return {folder: tuple(sorted(contents)) for folder, contents in found.items()}
