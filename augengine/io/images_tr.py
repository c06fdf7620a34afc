"""What the layouts with `imagesTr` and `labelsTr` share: cases by their files, names by `dataset.json`.

`imagesTs` are the data set's own test images: they go to the split `test` whole, with the labels of `labelsTs` where
there are any.
"""

from __future__ import annotations

import os
import re
from abc import abstractmethod
from collections import defaultdict
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from pydantic import ValidationError

from augengine.errors import ConfigError
from augengine.io import nifti, nrrd
from augengine.io.dataset_json import NAME, DatasetJson
from augengine.io.files import FileReader
from augengine.io.pairing import stem
from augengine.io.sources import Entry, Listing, SourceOptions
from augengine.io.walk import visible_files, visible_folders, walk

FOLDERS = {"imagesTr": "labelsTr", "imagesTs": "labelsTs"}
IGNORED = "the label 'ignore' marks voxels that nobody annotated; it is kept as a label like the others"
SUFFIXES = (*nifti.SUFFIXES, *nrrd.SUFFIXES)


@dataclass
class Case:
    """Names of the files of one case: by channel, its labels (one, if all is well), and why it cannot be used."""

    channels: dict[str, list[str]]
    labels: list[str] = field(default_factory=list)
    error: str | None = None


class ImagesTrReader(FileReader):
    """What both layouts share."""

    suffixes = SUFFIXES

    def __init__(self, root: Path, options: SourceOptions) -> None:
        self.base = _base(root)
        self.stated = DatasetJson.read(self.base)
        labels = options.labels
        if labels is None and self.stated.regions:
            raise ConfigError(
                "labels of dataset.json are regions, which overlap: the codes of the label files must be stated",
                where=str(self.base / NAME),
                next_step="give --labels name=code,...",
            )
        if labels is None and self.stated.labels:
            labels = dict(self.stated.labels)
        try:
            options = SourceOptions(**{**dict(options), "labels": labels})
        except ValidationError as error:
            raise ConfigError(
                "labels of dataset.json must be codes of 1 to 255",
                where=str(self.base / NAME),
                found=str(error.errors()[0]["msg"]),
                next_step="give --labels name=code,...",
            ) from None
        if self.stated.ending is not None and self.stated.ending not in self.suffixes:
            raise ConfigError(
                f"files must be NIfTI or NRRD ({', '.join(self.suffixes)})",
                found=self.stated.ending,
                where=str(self.base / NAME),
                next_step="convert the data set",
            )
        super().__init__(root, options)
        self.channels = self._channels()

    def _channels(self) -> dict[str, int]:
        """Channel name to number, as stated by flags, or by dataset.json."""
        found: dict[str, int] = {}
        for name, text in self.options.channels.items():
            number = re.fullmatch(r"\*?_?(\d{1,4})(\..*)?", text)
            if number is None:
                raise ConfigError(
                    f"channels of layout {self.layout} are given by their numbers",
                    found=f"{name}={text}",
                    where="--channels",
                    next_step=f"for example {name}=0000",
                )
            found[name] = int(number.group(1))
        return found or dict(self.stated.channels)

    def entries(self) -> list[Entry]:
        """Cases, training images first."""
        return list(self.listing().entries)

    def listing(self) -> Listing:
        """Cases, dataset.json, and every file that no case takes."""
        top = "" if self.base == self.root else self.base.relative_to(self.root).as_posix() + "/"
        folders: dict[str, list[str]] = defaultdict(list)
        for path in visible_files(self.root, suffixes=self.suffixes):
            folder, _, name = path.removeprefix(top).rpartition("/")
            folders[folder].append(name)
        entries = self._own(top) if self.stated.own else []
        for images, labels in FOLDERS.items():
            if images in folders and not self.stated.own:
                cases = self.cases(folders[images], folders.get(labels, []))
                entries += [_entry(top, images, name, case) for name, case in sorted(cases.items())]
        entries += self._missing(entries, top)
        if not any(entry["masked"] for entry in entries) and self.stated.labels == self.options.labels:
            self.options = self.options.model_copy(update={"labels": None})  # nobody stated them, and no file has any
        self.require_labels(entries)
        if "ignore" in (self.stated.labels or {}) and self.options.labels == self.stated.labels:
            for entry in entries:
                entry["notes"] = [*entry.get("notes", ()), *([IGNORED] if entry["mask"] else [])]
        taken = {file for entry in entries for file in self.files(entry)}
        shared = [top + NAME] if (self.base / NAME).is_file() else []
        rest = {f.path: f.problem or self._reason(f.path, top) for f in walk(self.root)}
        return Listing(entries, shared, {p: why for p, why in rest.items() if p not in taken and p not in shared})

    @abstractmethod
    def cases(self, images: list[str], labels: list[str]) -> dict[str, Case]:
        """Cases by name, of the files in a folder of images and in its folder of labels."""

    def labels_of(self, case: str, labels: list[str]) -> list[str]:
        """Label files of a case, those that `--mask` asks for."""
        pattern = self.options.mask
        return [n for n in labels if stem(n) == case and (pattern is None or fnmatchcase(n, pattern))]

    def _own(self, top: str) -> list[Entry]:
        """Cases whose files dataset.json names one by one."""
        found: list[Entry] = []
        for case, (images, label) in sorted(self.stated.own.items()):
            paths = [os.path.normpath(os.path.join(top, file)) for file in [*images, *([label] if label else [])]]
            inside = [p for p in paths if not p.startswith("..") and not os.path.isabs(p)]
            error = None if inside == paths else "files of dataset.json must lie below the folder of the data set"
            numbers = {number: name for name, number in (self.channels or {"image": 0}).items()}
            named = {numbers[n]: p for n, p in enumerate(paths[: len(images)]) if n in numbers}
            if error is None and set(named) != set(numbers.values()):
                error = "every channel must have its file; missing: " + ", ".join(set(numbers.values()) - set(named))
            lost = [p for p in inside if not (self.root / p).is_file()]
            error = error or ("files that dataset.json names are missing" if lost else None)
            there = {c: p for c, p in named.items() if p in inside and p not in lost}
            mask = paths[-1] if label and paths[-1] in inside and paths[-1] not in lost else None
            found.append(
                {"name": case, "entry": case, "channels": there, "mask": mask, "masked": bool(label), "error": error}
            )
        return found

    def _missing(self, entries: list[Entry], top: str) -> list[Entry]:
        """Cases that dataset.json lists and that have no file; cases that it does not list get a note."""
        names = {entry["name"] for entry in entries}
        listed = {_case(path, names) for path in (*(self.stated.training or ()), *(self.stated.test or ()))}
        for entry in entries:
            if listed and entry["name"] not in listed:
                entry["notes"] = ["not in the lists of dataset.json"]
        error = "dataset.json lists this case, but it has no file"
        return [
            {"name": case, "entry": f"{top}{case}", "channels": {}, "mask": None, "masked": False, "error": error}
            for case in sorted(listed - names)
        ]

    def _reason(self, path: str, top: str) -> str:
        folder = path.removeprefix(top).rpartition("/")[0]
        if path.lower().endswith(self.suffixes):
            if folder in FOLDERS.values():
                return "not the label that --mask asks for" if self.options.mask else "a label of no image"
            return "a channel that is not asked for" if folder in FOLDERS else "lies beside the folders of the layout"
        return super().unused(path)


def _entry(top: str, images: str, name: str, case: Case) -> Entry:
    labels = f"{top}{FOLDERS[images]}/"
    twice = [place for place, files in (*case.channels.items(), ("the label", case.labels)) if len(files) > 1]
    error = case.error
    if twice:
        error = f"a file stands there twice, e.g. as .nii and .nii.gz: {', '.join(twice)}; leave one out"
    spare = [f"{top}{images}/{n}" for files in case.channels.values() if len(files) > 1 for n in files]
    spare += [labels + n for n in case.labels] if len(case.labels) > 1 else []
    return {
        "name": name,
        "entry": f"{top}{images}/{name}",
        "channels": {c: f"{top}{images}/{files[0]}" for c, files in case.channels.items() if len(files) == 1},
        "mask": labels + case.labels[0] if len(case.labels) == 1 else None,
        "masked": bool(case.labels),
        "spare": spare,
        "error": error,
        "split": "test" if images == "imagesTs" else None,
    }


def _base(root: Path) -> Path:
    """The one folder with `imagesTr`, at most two levels down."""
    level = [root]
    for _ in range(3):
        found = [folder for folder in level if (folder / "imagesTr").is_dir()]
        if len(found) > 1:
            raise ConfigError(
                "one data set with imagesTr can be ingested at a time",
                found=", ".join(f.name for f in found[:6]),
                where=str(root),
                next_step="state the folder of one of them",
            )
        if found:
            return found[0]
        level = [below for folder in level for below in visible_folders(folder)]
    return root


def _case(path: str, names: set[str]) -> str:
    """Name of a case, of a path in a list of dataset.json; nnU-Net's lists may hold the number of a channel."""
    name = stem(path.replace("\\", "/").rpartition("/")[2])
    short = re.sub(r"_\d{4}$", "", name)
    return short if name not in names and short in names else name
