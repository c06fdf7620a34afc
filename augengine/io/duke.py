"""A Duke-Breast-Cancer-MRI folder (either TCIA layout) goes in; one pre-contrast volume per patient comes out.

Series are found by SeriesInstanceUID and tags, so classic (UID) and descriptive folder names work alike. The
pre-contrast series is taken by the mapping table when given, else by description ("pre"), else as the earliest
of the dynamic series with equal protocol; the rule used is noted. Acquisition parameters are those of the
headers; the clinical table and the boxes only cross-check.
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import ClassVar

from augengine.errors import ConfigError
from augengine.io.dicom import Stack, find_stacks, load_stack
from augengine.io.duke_masks import breast_label, mask_files
from augengine.io.duke_tables import boxes_by_patient, clinical_by_patient, clinical_differences
from augengine.io.labels import SCHEMES
from augengine.io.sources import Entry, Listing, Scanned, Source, SourceOptions, Volume, grouped, pseudonym
from augengine.io.tables import records, table_rows
from augengine.io.walk import visible_files, visible_folders, walk
from augengine.records import Acquisition, Sample

PATIENT = re.compile(r"Breast_MRI_\d{3}")
ANNOTATION_ERRORS = ("Breast_MRI_246", "Breast_MRI_435")


class DukeReader:
    """Patients are folders named `Breast_MRI_NNN`; these public names stay as subject ids."""

    layout: ClassVar[str] = "duke"

    def __init__(self, root: Path, options: SourceOptions) -> None:
        if options.labels is not None and dict(options.labels) != SCHEMES["duke"]:
            raise ConfigError(
                "layout duke has its own labels", found=dict(options.labels), next_step="give --labels duke"
            )
        self.root, self.options = root, options
        self.mapping = pre_contrast_series(options.mapping) if options.mapping else {}
        self.clinical = clinical_by_patient(options.clinical) if options.clinical else {}
        self.boxes = boxes_by_patient(options.boxes) if options.boxes else {}
        if options.masks_root is not None and not options.masks_root.is_dir():
            raise ConfigError("no such folder of masks", where=str(options.masks_root), next_step="check --masks")

    def listing(self) -> Listing:
        """Patient folders that hold images, with their mask files."""
        masks = mask_files(self._mask_folders())
        found: dict[str, str] = {}
        for folder in patient_folders(self.root):
            if visible_files(folder, suffixes=(".dcm",)):
                where = folder.relative_to(self.root).as_posix()
                if folder.name in found:
                    raise ConfigError(
                        "a patient must have one folder of images", found=f"{found[folder.name]}, {where}",
                        where=str(self.root), next_step="ingest one copy at a time",
                    )  # fmt: skip
                found[folder.name] = where
        entries = [
            {
                "patient": patient,
                "folder": where,
                "masks": [os.path.relpath(p, self.root) for p in masks.get(patient, [])],
            }
            for patient, where in sorted(found.items())
        ]
        return Listing(entries, unused=self._outside(entries))

    def files(self, entry: Entry) -> list[str]:
        """All below the patient's folder, and the masks."""
        below = [f.path for f in walk(self.root, entry["folder"])]
        return [*below, *(mask for mask in entry["masks"] if mask not in below)]

    def scan(self, entry: Entry) -> Scanned:
        """The pre-contrast series of one patient."""
        source = self._scan(entry)
        used = set(source.files)
        rest = {file: "no pre-contrast series" for file in self.files(entry) if file not in used}
        return Scanned([source], grouped(rest))

    def _outside(self, entries: list[Entry]) -> dict[str, str]:
        """Files that belong to no patient: of the root, and of a folder of masks elsewhere."""
        folders = tuple(f"{entry['folder']}/" for entry in entries)
        masks = {mask for entry in entries for mask in entry["masks"]}
        roots = [self.root] if self.options.masks_root is None else [self.root, self.options.masks_root.resolve()]
        found: dict[str, str] = {}
        for root in roots:
            for file in walk(root):
                path = os.path.relpath(root / file.path, self.root)
                if not path.startswith(folders) and path not in masks:
                    found[path] = file.problem or "belongs to no patient with images"
        return found

    def _scan(self, entry: Entry) -> Source:
        patient, folder = entry["patient"], entry["folder"]
        found = find_stacks(self.root / folder)
        stacks = [s for s in found.stacks if not is_segmentation(s)]
        others = {s.first.patient for s in stacks} - {patient, ""}
        if others:
            # Not named: what stands in PatientID instead might be a person's.
            return Source(patient, patient, folder, error="PatientID of every file must be that of the folder")
        if found.broken:  # it might be the pre-contrast series that cannot be read
            return Source(patient, patient, folder, error=f"unreadable files in a series folder: {found.broken[0][1]}")
        stack, rule = choose_pre_contrast(stacks, self.mapping.get(patient), bool(self.mapping))
        if stack is None:
            return Source(patient, patient, folder, error=rule)
        notes = [f"pre-contrast series by {rule}", *self._cross_check(patient, stack.first.acquisition)]
        if patient in ANNOTATION_ERRORS:
            notes.append("this patient has known annotation errors")
        files = sorted({p.path.relative_to(self.root).as_posix() for p in stack.frames})
        spec = {"files": files, "stack": stack.key, "masks": entry["masks"]}
        return Source(
            patient,
            patient,
            folder,
            spec,
            stack.first.acquisition,
            stack.error,
            tuple(notes),
            participant=patient,
            public=True,
        )

    def read(self, source: Source) -> Volume:
        """Image and label; patients without masks have none."""
        spec = source.spec
        image, affine, notes = load_stack([self.root / f for f in spec["files"]], spec["stack"], False)
        label = None
        if spec["masks"]:
            label, remarks = breast_label([self.root / p for p in spec["masks"]], image.shape, affine)
            notes += remarks
        box = self.boxes.get(source.subject_id)
        if box is not None and not box.inside(image.shape):
            notes.append(f"tumour box {box} lies outside the image {image.shape}")
        sample = Sample(
            image=image[None], affine=affine, channels=("t1",), label=label,
            labels={} if label is None else SCHEMES["duke"], subject_id=source.subject_id,
            volume_id=source.volume_id, acquisition=source.acquisition,
        )  # fmt: skip
        return Volume(sample, notes)

    def _mask_folders(self) -> list[Path]:
        if self.options.masks_root is not None:
            return [self.options.masks_root]
        return [p for p in visible_folders(self.root) if re.search("mask|segmentation", p.name.lower())]

    def _cross_check(self, patient: str, acquisition: Acquisition) -> list[str]:
        if not self.clinical:
            return []
        if patient not in self.clinical:
            return ["not in the clinical table"]
        return clinical_differences(self.clinical[patient], acquisition)


def patient_folders(root: Path) -> list[Path]:
    """Folders named `Breast_MRI_NNN`, at most four levels down (a download puts manifest folders on top)."""
    found, level = [], [root]
    for _ in range(4):
        below = [p for folder in level for p in visible_folders(folder)]
        found += [p for p in below if PATIENT.fullmatch(p.name)]
        level = [p for p in below if not PATIENT.fullmatch(p.name)]
    return found


def is_segmentation(stack: Stack) -> bool:
    """True for the segmentation objects that stand among the series."""
    refused = (stack.first.refusal or "").lower()
    return "modality" in refused or "segmentation" in stack.first.description.lower()


def choose_pre_contrast(stacks: list[Stack], series: str | None, mapped: bool) -> tuple[Stack | None, str]:
    """The pre-contrast stack and the rule that found it, or None and the reason.

    Args:
        stacks: of one patient, segmentations left out.
        series: pseudonym of the SeriesInstanceUID that the mapping table names for this patient.
        mapped: a mapping table was given, and nothing else is to decide.
    """
    if not stacks:
        return None, "no MR series in this patient's folder"
    if mapped:
        chosen = [s for s in stacks if series is not None and pseudonym(s.first.series, "", "series") == series]
        rule = "mapping table"
        if not chosen:
            return None, "the mapping table must name a pre-contrast series that is in this patient's folder"
    else:
        chosen = [
            s for s in stacks if re.search(r"(?<![a-z])pre(?![a-z])", s.first.description.lower().replace("_", " "))
        ]
        rule = "series description"
    if not chosen and len(stacks) == 1:
        chosen, rule = stacks, "being the only series"
    if not chosen:
        chosen, rule = _earliest_dynamic(stacks), "temporal order"
    if not chosen:
        return None, (
            f"the pre-contrast series must be told by 'pre' in its description or by the time of two or more dynamic "
            f"series; found {len(stacks)} series without either; give --mapping"
        )
    if len(chosen) > 1:
        numbers = ", ".join(f"{s.first.series_number:g}" for s in chosen)
        return None, f"one pre-contrast series is needed; found series {numbers} by {rule}; give --mapping"
    return chosen[0], rule


def _earliest_dynamic(stacks: Iterable[Stack]) -> list[Stack]:
    """First in time of the largest set of series with one protocol: the phases of the dynamic study; or none."""
    phases: dict[tuple[object, ...], list[Stack]] = defaultdict(list)
    for stack in stacks:
        frame = stack.first
        if stack.error is None:
            a = frame.acquisition
            key = (
                len(stack.frames), frame.rows, frame.columns, frame.spacing,
                a.repetition_time_ms, a.echo_time_ms, a.flip_angle_deg,
            )  # fmt: skip
            phases[key].append(stack)
    sizes = Counter({key: len(group) for key, group in phases.items()}).most_common(2)
    if not sizes or sizes[0][1] < 2 or (len(sizes) > 1 and sizes[1][1] == sizes[0][1]):
        return []
    group = sorted(phases[sizes[0][0]], key=lambda s: (min(f.time for f in s.frames), s.first.series_number))
    return group[:1]


def pre_contrast_series(path: Path) -> dict[str, str]:
    """Patient to (pseudonym of) SeriesInstanceUID from the mapping table's `pre` rows.

    The UID is the folder part of `classic_path`; the paths themselves are never followed.
    """
    rows = records(table_rows(path))
    if not rows or not {"original_path_and_filename", "classic_path"} <= rows[0].keys():
        raise ConfigError(
            "the mapping table needs the columns original_path_and_filename and classic_path", where=str(path),
            next_step="use Breast-Cancer-MRI-filepath_filename-mapping as downloaded",
        )  # fmt: skip
    found: dict[str, str] = {}
    for row in rows:
        parts = PurePosixPath(row["original_path_and_filename"]).parts
        classic = PurePosixPath(row["classic_path"])
        if len(parts) >= 3 and parts[-2] == "pre":
            found.setdefault(parts[-3], pseudonym(classic.parent.name, "", "series"))
    return found
