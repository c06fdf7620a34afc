"""A Duke-Breast-Cancer-MRI folder (either TCIA layout) goes in; one pre-contrast volume per patient comes out.

Series are found by SeriesInstanceUID and tags, so classic (UID) and descriptive folder names work alike. How the
pre-contrast series is chosen stands in `duke_choice`; the rule used is noted. Acquisition parameters are those of the
headers; the clinical table and the boxes only cross-check.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import ClassVar

from augengine.errors import ConfigError
from augengine.io.dicom import unused_files
from augengine.io.dicom_stacks import Found, Stack, find_stacks
from augengine.io.dicom_volume import SLICE_AXIS, load_stack
from augengine.io.duke_choice import Choice, choose_pre_contrast
from augengine.io.duke_masks import MASK_FOLDER, MASK_SUFFIXES, breast_label, mask_files
from augengine.io.duke_tables import boxes_by_patient, clinical_by_patient, clinical_differences, pre_contrast_series
from augengine.io.labels import SCHEMES
from augengine.io.sources import Entry, Listing, Scanned, Source, SourceOptions, Volume, grouped
from augengine.io.walk import File, visible_files, walk
from augengine.records import Acquisition, Sample

PATIENT = re.compile(r"Breast_MRI_\d{3}")
ANNOTATION_ERRORS = ("Breast_MRI_246", "Breast_MRI_435")
NO_MASK = "no mask of this patient was found, though others have one"


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
        """Patient folders that hold images, with their mask files.

        Raises:
            ConfigError: one patient in two folders, or masks, labels or a table that fit none of the patients.
        """
        found, others = self._survey()
        masks = self._masks(others)
        entries = [
            {
                "patient": patient,
                "folder": where,
                "masks": [os.path.relpath(p, self.root) for p in masks.get(patient, [])],
                "others_have_masks": bool(masks.keys() & found.keys()),
            }
            for patient, where in sorted(found.items())
        ]
        if found:
            self._check_stated(found, masks)
        shared = self._tables()
        return Listing(entries, shared, {p: r for p, r in self._outside(entries, others).items() if p not in shared})

    def files(self, entry: Entry) -> list[str]:
        """All below the patient's folder, and the masks."""
        below = dict.fromkeys(f.path for f in walk(self.root, entry["folder"]))
        return list(below | dict.fromkeys(entry["masks"]))

    def scan(self, entry: Entry) -> Scanned:
        """The pre-contrast series of one patient."""
        found = find_stacks(self.root / entry["folder"])
        stacks = [s for s in found.stacks if s.named is None and not is_segmentation(s)]
        choice = self._choose(entry, found, stacks)
        source = self._source(entry, choice)
        reasons = self._reasons(entry, found, stacks, choice)
        used = set(source.files)
        return Scanned([source], grouped({f: reasons[f] for f in self.files(entry) if f not in used}))

    def read(self, source: Source) -> Volume:
        """Image and label; patients without masks have none."""
        spec = source.spec
        loaded = load_stack([self.root / f for f in spec["files"]], spec["frames"])
        shape, notes, label = loaded.image.shape, loaded.notes, None
        if spec["masks"]:
            paths = [self.root / p for p in spec["masks"]]
            label, remarks = breast_label(paths, shape, loaded.affine, self.options.max_label_loss)
            notes = notes + remarks
        box = self.boxes.get(source.subject_id)
        if box is not None and not box.inside(shape):
            notes = [*notes, f"tumour box {box} lies outside the image {shape}"]
        sample = Sample(
            image=loaded.image[None],
            affine=loaded.affine,
            channels=("t1",),
            label=label,
            labels={} if label is None else SCHEMES["duke"],
            subject_id=source.subject_id,
            volume_id=source.volume_id,
            acquisition=source.acquisition,
        )
        return Volume(sample, notes, loaded.outside, SLICE_AXIS)

    def _survey(self) -> tuple[dict[str, str], list[File]]:
        """Patient to the topmost folder of that name with a file that may be an image; all files that are none such.

        One walk: a full download has close to a million files.
        """
        stated = self.options.masks_root
        masks = f"{os.path.relpath(stated.resolve(), self.root)}/" if stated is not None else "../"
        found: dict[str, str] = {}
        others: list[File] = []
        for file in walk(self.root):
            parts = file.path.split("/")
            level = next((n for n, part in enumerate(parts[:-1]) if PATIENT.fullmatch(part)), None)
            no_image = level is None or file.problem or file.path.lower().endswith(MASK_SUFFIXES)
            if level is None or no_image or file.path.startswith(masks) or MASK_FOLDER.search("/".join(parts[:level])):
                others.append(file)
                continue
            patient, where = parts[level], "/".join(parts[: level + 1])
            if found.setdefault(patient, where) != where:
                raise ConfigError(
                    "a patient must have one folder of images",
                    found=f"{found[patient]}, {where}",
                    where=str(self.root),
                    next_step="ingest one copy at a time",
                )
        return found, others

    def _masks(self, others: list[File]) -> dict[str, list[Path]]:
        """Mask files by patient: of the stated folder, or of any whose name says so."""
        stated = self.options.masks_root
        if stated is not None:
            return mask_files(stated.resolve(), visible_files(stated.resolve()))
        named = [f.path for f in others if f.problem is None and MASK_FOLDER.search(f.path.rpartition("/")[0])]
        return mask_files(self.root, named)

    def _check_stated(self, patients: Collection[str], masks: Mapping[str, object]) -> None:
        """What the user states must say something about at least one patient."""
        options = self.options
        with_masks = masks.keys() & set(patients)
        if options.masks_root is not None and not with_masks:
            raise ConfigError(
                "--masks must hold a mask of one of the patients",
                found=f"none of {len(patients)}",
                where=str(options.masks_root),
                next_step="check the path; file or folder names hold Breast_MRI_NNN",
            )
        if options.labels is not None and not with_masks:
            raise ConfigError(
                "labels are stated, but none of the patients has a mask",
                where=str(self.root),
                next_step="give --masks FOLDER, or leave --labels out",
            )
        tables: dict[str, Mapping[str, object]] = {
            "mapping": self.mapping,
            "clinical": self.clinical,
            "boxes": self.boxes,
        }
        for name, table in tables.items():
            if getattr(options, name) is not None and not table.keys() & set(patients):
                raise ConfigError(
                    f"--{name} must name one of the patients",
                    found=f"none of {len(patients)}",
                    where=str(getattr(options, name)),
                    next_step="check the path",
                )

    def _tables(self) -> list[str]:
        """Tables below the root, which volumes of all patients use."""
        stated = [self.options.mapping, self.options.clinical, self.options.boxes]
        paths = [path.resolve() for path in stated if path is not None]
        return [p.relative_to(self.root).as_posix() for p in paths if p.is_relative_to(self.root)]

    def _outside(self, entries: list[Entry], others: list[File]) -> dict[str, str]:
        """Files that belong to no patient: of the root, and of a folder of masks elsewhere."""
        folders = tuple(f"{entry['folder']}/" for entry in entries)
        masks = {mask for entry in entries for mask in entry["masks"]}
        stated, files = self.options.masks_root, {f.path: f for f in others}
        if stated is not None and not stated.resolve().is_relative_to(self.root):
            files |= {os.path.relpath(stated.resolve() / f.path, self.root): f for f in walk(stated.resolve())}
        found: dict[str, str] = {}
        for path, file in files.items():
            if not path.startswith(folders) and path not in masks:
                mask = path.lower().endswith(MASK_SUFFIXES)
                nobody = "a mask of no patient with images" if mask else "belongs to no patient with images"
                found[path] = file.problem or nobody
        return found

    def _choose(self, entry: Entry, found: Found, stacks: list[Stack]) -> Choice:
        patient = entry["patient"]
        others = {s.first.patient for s in stacks} - {patient, ""}
        if others:
            # Not named: what stands in PatientID instead might be a person's.
            return Choice(None, "PatientID of every file must be that of the folder")
        if found.broken:  # it might be the pre-contrast series that cannot be read
            return Choice(None, f"unreadable files in a series folder: {found.broken[0][1]}")
        return choose_pre_contrast(stacks, self.mapping.get(patient), self.options.mapping is not None)

    def _source(self, entry: Entry, choice: Choice) -> Source:
        patient, stack = entry["patient"], choice.stack
        if stack is None:
            return Source(patient, patient, entry["folder"], error=choice.rule, participant=patient, public=True)
        acquisition, remarks = stack.acquisition()
        notes = [f"pre-contrast series by {choice.rule}", *choice.notes, *stack.notes, *remarks]
        notes += self._cross_check(patient, acquisition)
        if patient in ANNOTATION_ERRORS:
            notes.append("this patient has known annotation errors")
        if not entry["masks"] and entry["others_have_masks"]:
            notes.append(NO_MASK)
        files = [p.relative_to(self.root).as_posix() for p in stack.files]
        spec = {"files": files, "frames": stack.indices, "masks": entry["masks"]}
        return Source(
            patient,
            patient,
            entry["folder"],
            spec,
            acquisition,
            stack.error,
            tuple(notes),
            participant=patient,
            public=True,
            slice_by_slice=stack.slice_by_slice,
        )

    def _reasons(self, entry: Entry, found: Found, stacks: list[Stack], choice: Choice) -> dict[str, str]:
        """Why each file of the patient might be left alone."""
        reasons = {f.path: f.problem for f in walk(self.root, entry["folder"]) if f.problem}
        reasons |= {p.relative_to(self.root).as_posix(): why for p, why in unused_files(found).items()}
        reasons |= {p.relative_to(self.root).as_posix(): "it cannot be read" for p, _ in found.broken}
        reasons |= dict.fromkeys(entry["masks"], "a mask of a patient whose pre-contrast series was not found")
        for stack in found.stacks:
            if stack.named is None and stack not in stacks:
                reasons |= {p.relative_to(self.root).as_posix(): "a segmentation" for p in stack.files}
        nothing = ["no series of this patient was taken"] * len(stacks)
        for stack, why in zip(stacks, choice.reasons or nothing, strict=True):
            reasons |= {p.relative_to(self.root).as_posix(): why for p in stack.files}
        return {path: why for path, why in reasons.items() if why}

    def _cross_check(self, patient: str, acquisition: Acquisition) -> list[str]:
        if not self.clinical:
            return []
        if patient not in self.clinical:
            return ["not in the clinical table"]
        return clinical_differences(self.clinical[patient], acquisition)


def is_segmentation(stack: Stack) -> bool:
    """True for segmentations that are stored as MR images among the series."""
    return "segmentation" in stack.first.description.lower()
