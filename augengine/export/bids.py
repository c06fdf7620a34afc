"""Cases in; a BIDS data set of the real images, and its derivatives with label maps and synthetic images, out.

Raw: `sub-*/anat` with one file per channel and a sidecar in seconds. `derivatives/augengine`: label maps (`dseg`) and,
with the entity `desc`, synthetic images; each names its `Sources`. A subject's volumes are told apart by `run`, slices
by `chunk`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from pydantic import Field

from augengine import __version__
from augengine.errors import ConfigError
from augengine.export.case import Case
from augengine.export.item import Item
from augengine.export.names import labels_of
from augengine.export.nifti import nifti_bytes
from augengine.export.target import About, File, Unit, by_row_group
from augengine.yaml_config import Strict, unknown_name

VERSION = "1.10.0"
DERIVATIVES = "derivatives/augengine"
SUFFIXES = {
    "t1": "T1w",
    "t1w": "T1w",
    "t1n": "T1w",
    "t1c": "ce-gadolinium_T1w",
    "t1ce": "ce-gadolinium_T1w",
    "t1gd": "ce-gadolinium_T1w",
    "t1post": "ce-gadolinium_T1w",
    "t2": "T2w",
    "t2w": "T2w",
    "flair": "FLAIR",
    "t2f": "FLAIR",
    "t2flair": "FLAIR",
    "t2star": "T2starw",
    "pd": "PDw",
}
_SECONDS = {
    "EchoTime": "echo_time_ms",
    "RepetitionTime": "repetition_time_ms",
    "InversionTime": "inversion_time_ms",
}
_PLAIN = {
    "FlipAngle": "flip_angle_deg",
    "MagneticFieldStrength": "field_strength_t",
    "SliceThickness": "slice_thickness_mm",
    "Manufacturer": "manufacturer",
    "ManufacturersModelName": "model",
    "ScanOptions": "scan_options",
}


class Bids(Strict):
    """BIDS, raw and derivatives.

    Attributes:
        suffixes: channel to BIDS suffix, where the channel's name does not say it.
    """

    name: ClassVar[str] = "bids"
    suffixes: dict[str, str] = Field(default_factory=dict)

    def check(self, cases: Sequence[Case], about: About) -> None:
        """Refuse channels of which nobody knows what they are in BIDS, and suffixes of channels that there are not."""
        for channel in self.suffixes:
            if channel not in about.channels:
                raise unknown_name("channel", channel, about.channels, "--suffixes")
        for channel in about.channels:
            self.suffix(channel)
        found = [self.suffix(channel) for channel in about.channels]
        if len(set(found)) < len(found):
            raise ConfigError(
                "every channel needs a BIDS suffix of its own",
                found=", ".join(found),
                where="--suffixes",
                next_step="for example t1=acq-plain_T1w",
            )

    def units(self, cases: Sequence[Case], about: About) -> Iterable[Unit]:
        """A row group each; `called` is the subject's label, the entities of its image, `desc`, and its source's."""
        return by_row_group(called(cases))

    def files(self, items: Iterator[Item], unit: str, about: About) -> Iterator[File]:
        """Images, label map and their sidecars."""
        for item in items:
            yield from self._case(item, about)

    def finish(self, cases: Sequence[Case], about: About, listed: Mapping[str, Sequence[str]]) -> Iterator[File]:
        """The descriptions of both data sets and the table of participants."""
        made = sum(case.synthetic for case in cases)
        common = {"BIDSVersion": VERSION, "License": about.licence or "not stated"}
        tool = {"Name": "augengine", "Version": __version__}
        yield _text(
            "dataset_description.json",
            {
                "Name": about.folder,
                "DatasetType": "raw",
                **common,
                "GeneratedBy": [{**tool, "Description": "images of an ingested data set"}],
            },
        )
        yield _text(
            f"{DERIVATIVES}/dataset_description.json",
            {
                "Name": f"{about.folder}, augmented",
                "DatasetType": "derivative",
                **common,
                "GeneratedBy": [
                    {**tool, "Description": f"label maps, and {made} synthetic images by generative policies"}
                ],
                "SourceDatasets": [{"URL": "../.."}],
                "DatasetLinks": {"raw": "../.."},
            },
        )
        yield _text(f"{DERIVATIVES}/dseg.json", {"LabelMap": {name: n for n, name in enumerate(about.labels, 1)}})
        table = "\n".join(["index\tname", "0\tbackground", *(f"{n}\t{name}" for n, name in enumerate(about.labels, 1))])
        yield File(f"{DERIVATIVES}/dseg.tsv", f"{table}\n".encode())
        yield from _participants(cases)
        yield File(".bidsignore", b"export.json\n")
        for folder in ("", f"{DERIVATIVES}/"):
            yield File(f"{folder}README.md", _readme(cases, about).encode())

    def identity(self) -> dict[str, Any]:
        """All options."""
        return self.model_dump(mode="json")

    def suffix(self, channel: str) -> str:
        """A channel's entities and suffix in BIDS."""
        found = self.suffixes.get(channel) or SUFFIXES.get(channel.lower())
        if found is None:
            raise ConfigError(
                f"nobody knows what channel '{channel}' is in BIDS",
                where="--suffixes",
                next_step=f"say it, for example {channel}=T1w",
            )
        return found

    def _case(self, item: Item, about: About) -> Iterator[File]:
        case = item.case
        subject, entities, desc, source = case.called
        folder = f"sub-{subject}/anat" if not case.synthetic else f"{DERIVATIVES}/sub-{subject}/anat"
        stem = f"sub-{subject}{entities}"
        for channel, array in zip(about.channels, item.image, strict=True):
            name = self._name(stem, desc, channel)
            yield File(f"{folder}/{name}.nii.gz", nifti_bytes(array, item.affine, case.synthetic), (case.name,))
            of = f"bids:raw:sub-{subject}/anat/{self._name(stem, '', channel)}.nii.gz" if source else None
            yield _text(f"{folder}/{name}.json", sidecar(item, of, about.licence), (case.name,))
        if item.label is None:
            return
        shown = [f"{folder}/{self._name(stem, desc, channel)}.nii.gz" for channel in about.channels]
        of_label = [
            f"bids::{name.removeprefix(DERIVATIVES + '/')}" if case.synthetic else f"bids:raw:{name}" for name in shown
        ]
        name = f"{DERIVATIVES}/sub-{subject}/anat/{stem}{_desc(desc)}_dseg"
        yield File(f"{name}.nii.gz", nifti_bytes(item.label, item.affine, case.synthetic), (case.name,))
        about_label = {
            "Description": f"labels of {case.name}",
            "Sources": of_label,
            "SpatialReference": of_label[0],
            "Synthetic": case.synthetic,
        }
        yield _text(f"{name}.json", about_label, (case.name,))

    def _name(self, stem: str, desc: str, channel: str) -> str:
        """Entities in the order that BIDS gives them."""
        *own, suffix = self.suffix(channel).split("_")
        subject, *rest = stem.split("_")
        return "_".join([subject, *own, *rest]) + f"{_desc(desc)}_{suffix}"


def called(cases: Sequence[Case]) -> list[Case]:
    """Cases with their labels: the subject's, the image's (`run`, `chunk`), `desc`, and whether the source is here."""
    subjects = labels_of(sorted({case.subject_id for case in cases}))
    volumes: dict[str, list[str]] = {}
    for subject, volume in sorted({(case.subject_id, case.volume_id) for case in cases}):
        volumes.setdefault(subject, []).append(volume)
    descs = labels_of(sorted(case.sample_id for case in cases if case.synthetic), "syn")
    here = {case.sample_id for case in cases if not case.synthetic}
    done = []
    for case in cases:
        runs = volumes[case.subject_id]
        entities = f"_run-{runs.index(case.volume_id) + 1}" if len(runs) > 1 else ""
        entities += "" if case.slice_index is None else f"_chunk-{case.slice_index:04d}"
        desc = descs[case.sample_id] if case.synthetic else ""
        source = "source" if case.parent in here else ""
        done.append(replace(case, called=(subjects[case.subject_id], entities, desc, source)))
    return done


def sidecar(item: Item, source: str | None, licence: str | None) -> dict[str, Any]:
    """What BIDS says of an image; times in seconds."""
    case = item.case
    found: dict[str, Any] = {}
    for key, name in _SECONDS.items():
        if (value := case.acquisition.get(name)) is not None:
            found[key] = round(value / 1000, 9)
    for key, name in _PLAIN.items():
        if (value := case.acquisition.get(name)) is not None:
            found[key] = value.split("\\") if key == "ScanOptions" else value
    if not case.synthetic:
        return found
    found |= {
        "Description": f"synthetic image by the policy {case.policy}",
        "Synthetic": True,
        "SkullStripped": _emptied(item),
        "Policy": case.policy,
        "PolicyDigest": case.policy_digest,
        "SourceLicence": licence or "not stated",
    }
    return {**found, "Sources": [source], "SpatialReference": source} if source else found


def _emptied(item: Item) -> bool:
    """True if what lies around the head was set to 0: a quarter of all voxels, as no scanner leaves it."""
    return bool((item.image == 0).all(0).mean() > 0.25)


def _desc(desc: str) -> str:
    return f"_desc-{desc}" if desc else ""


def _participants(cases: Sequence[Case]) -> Iterator[File]:
    rows = {case.subject_id: case for case in cases if not case.synthetic}
    subjects = labels_of(sorted({case.subject_id for case in cases}))
    lines = ["participant_id\tsplit\tsite"]
    for subject, case in sorted(rows.items(), key=lambda pair: subjects[pair[0]]):
        lines.append(f"sub-{subjects[subject]}\t{case.split or 'n/a'}\t{case.site or 'n/a'}")
    yield File("participants.tsv", ("\n".join(lines) + "\n").encode())
    yield _text(
        "participants.json",
        {"split": {"Description": "train, val or test"}, "site": {"Description": "where the images were acquired"}},
    )


def _readme(cases: Sequence[Case], about: About) -> str:
    made = sum(case.synthetic for case in cases)
    return (
        f"# {about.folder}\n\n{len(cases) - made} real images, written by augengine {__version__}. Label maps and "
        f"{made} synthetic images stand in `{DERIVATIVES}`.\n\n"
        f"Licence of the source data: {about.licence or 'not stated'}.\n"
        "`export.json` leads from every case to its row.\n"
    )


def _text(name: str, value: Any, cases: tuple[str, ...] = ()) -> File:
    return File(name, (json.dumps(value, indent=1) + "\n").encode(), cases)
