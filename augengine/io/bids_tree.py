"""The files of a BIDS data set go in; images, masks, sidecars and tables come out, and why every other file is none."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from augengine.io.bids_masks import SUFFIXES, is_mask, no_mask
from augengine.io.bids_names import IMAGE_ENDINGS, BidsName, misplaced, parse, schema
from augengine.io.walk import File

DERIVED = "describes derivatives"
LOST = "a link that leads nowhere"
SUBJECT = re.compile(r"(.+?)/sub-[^/]+/(?:ses-[^/]+/)?anat/")
TABLES = ("participants", "sessions", "scans", "samples")


@dataclass
class Tree:
    """The files of a data set by what they are.

    Attributes:
        images: of the data type `anat`, whatever their suffix.
        masks: beside images and in derivatives.
        sidecars: JSON files that may apply to images.
        tables: `dseg.tsv`, which tell what codes of masks mean.
        others: suffixes of files that were made from an image and are no mask by their names.
        reasons: why a file is not used, by path; that of a sidecar holds unless a volume uses it.
        lost: links that lead nowhere, whose content was not fetched.
        deeper: a folder that holds subjects but is not the root, as `rawdata`.
    """

    images: list[BidsName] = field(default_factory=list)
    masks: list[BidsName] = field(default_factory=list)
    sidecars: list[BidsName] = field(default_factory=list)
    tables: list[BidsName] = field(default_factory=list)
    others: set[str] = field(default_factory=set)
    reasons: dict[str, str] = field(default_factory=dict)
    lost: set[str] = field(default_factory=set)
    deeper: str | None = None

    @classmethod
    def of(cls, files: Iterable[File], mask: str | None) -> Tree:
        """Sort files by their names; `mask` is the pattern of `--mask`."""
        tree = cls()
        stems: set[tuple[str, str]] = set()
        # Of two files of one name the compressed one is taken.
        for file in sorted(files, key=lambda f: (f.path.lower().endswith(".nii"), f.path)):
            if file.problem is not None:
                tree.reasons[file.path] = file.problem
            if file.problem == LOST:
                tree.lost.add(file.path)
            if file.problem in (None, LOST):
                tree._sort(file.path, mask, stems)
        tree.images.sort(key=lambda name: name.path)
        for path in [path for path, reason in tree.reasons.items() if reason == DERIVED]:
            name = parse(path)
            if name is not None and name.subject and (path.rpartition("/")[0], name.stem) not in stems:
                tree.reasons[path] = "describes a derivative that is not here"
        return tree

    def _sort(self, path: str, mask: str | None, stems: set[tuple[str, str]]) -> None:
        name, folder = parse(path), path.rpartition("/")[0]
        if not path.lower().endswith(IMAGE_ENDINGS):
            self._describing(path, name)
            return
        reason = _no_input(path, name, folder)
        inside = SUBJECT.match(path)
        if inside and not path.startswith("derivatives/"):
            self.deeper = self.deeper or inside.group(1)
        if reason is None and name is not None:
            if (folder, name.stem) in stems:
                reason = "a .nii.gz of the same name lies beside it, and was taken"
            elif is_mask(name, mask):
                self.masks.append(name)
            elif path.startswith("derivatives/") or name.suffix in SUFFIXES:
                reason = no_mask(name, mask)
                self.others.add(name.suffix)
            else:
                self.images.append(name)
            stems.add((folder, name.stem))
        if reason is not None:
            self.reasons.setdefault(path, reason)

    def _describing(self, path: str, name: BidsName | None) -> None:
        """A file that is no image: a sidecar, a table, or nothing to us."""
        ending = path.rpartition(".")[2].lower()
        derived = path.startswith("derivatives/")
        if path == "participants.tsv":
            reason = "a table of participants; --subject-column and --site-column read it"
        elif name is not None and name.suffix in TABLES:
            reason = "a table of BIDS; none of its columns is read" if ending == "tsv" else "describes a table"
        elif name is not None and ending == "json" and not derived:
            self.sidecars.append(name)
            reason = "a sidecar of no image that is used"
        elif name is not None and ending == "tsv" and name.suffix == "dseg":
            self.tables.append(name)
            reason = "a table of label codes; --labels states them"
        elif ending in ("json", "tsv"):
            reason = DERIVED if derived else "describes the data set"
        else:
            reason = "no image"
        self.reasons.setdefault(path, reason)


def _no_input(path: str, name: BidsName | None, folder: str) -> str | None:
    """Why a NIfTI file can neither be an image nor a mask, by its place and its name."""
    top, datatype = path.partition("/")[0], folder.rpartition("/")[2]
    if top != "derivatives" and (not top.startswith("sub-") or not folder):
        return "outside of the folders of subjects" if folder else "outside of any folder"
    if name is None or not name.subject:
        return "its name is no BIDS name (sub-LABEL_…_SUFFIX)"
    if misplaced(name):
        return "its name and its folder state different subjects or sessions"
    if top != "derivatives" and datatype != "anat":
        known = datatype in schema().datatypes
        return f"of data type {datatype}, which is no anatomy" if known else "in no folder of a data type"
    return None
