"""Data sets of nnU-Net and of the Medical Segmentation Decathlon go in; labelled volumes come out.

Names of channels and labels come from `dataset.json`, unless they are stated.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from augengine.errors import ConfigError, DataError
from augengine.io import nifti, nrrd
from augengine.io.files import Image, read_image, stack_channels
from augengine.io.images_tr import SUFFIXES, Case, ImagesTrReader
from augengine.io.pairing import stem
from augengine.io.sources import Source, Volume

CHANNEL = re.compile(r"(.+)_(\d{4})")


def detect_images_tr(paths: Iterable[str]) -> str | None:
    """`nnunet` or `decathlon` by the names in `imagesTr`; None where there is no such folder."""
    stems: dict[str, set[str]] = {"imagesTr": set(), "labelsTr": set()}
    for path in paths:
        folder, _, name = path.rpartition("/")
        place = stems.get(folder.rpartition("/")[2])
        if place is not None and name.lower().endswith(SUFFIXES):
            place.add(stem(name))
    if not stems["imagesTr"]:
        return None
    numbered = {s for s in stems["imagesTr"] if CHANNEL.fullmatch(s)} - stems["labelsTr"]
    return "nnunet" if numbered else "decathlon"


class NnunetReader(ImagesTrReader):
    """`imagesTr/case_0000.nii.gz`, one file per channel, and `labelsTr/case.nii.gz`."""

    layout = "nnunet"

    def cases(self, images: list[str], labels: list[str]) -> dict[str, Case]:
        """Cases by name."""
        files: dict[str, dict[int, list[str]]] = defaultdict(lambda: defaultdict(list))
        for name in images:
            match = CHANNEL.fullmatch(stem(name))
            files[match.group(1) if match else stem(name)][int(match.group(2)) if match else 0].append(name)
        numbers = sorted({number for own in files.values() for number in own})
        if not self.channels and len(numbers) > 1:
            raise ConfigError(
                "channels need names, and dataset.json states none",
                found=", ".join(f"{n:04d}" for n in numbers),
                where=str(self.base),
                next_step="give --channels t1=0000,...",
            )
        wanted = self.channels or {"image": numbers[0] if numbers else 0}
        found = {}
        for case in {*files, *(stem(n) for n in labels)}:
            channels = {name: files.get(case, {}).get(number, []) for name, number in wanted.items()}
            missing = [name for name, own in channels.items() if not own]
            error = f"every channel must have its file; missing: {', '.join(missing)}" if missing else None
            found[case] = Case(channels, self.labels_of(case, labels), error)
        return found


class DecathlonReader(ImagesTrReader):
    """`imagesTr/case.nii.gz`, all channels in one file of four dimensions, and `labelsTr/case.nii.gz`."""

    layout = "decathlon"

    def cases(self, images: list[str], labels: list[str]) -> dict[str, Case]:
        """Cases by name."""
        files: dict[str, list[str]] = defaultdict(list)
        for name in images:
            files[stem(name)].append(name)
        found = {}
        for case in {*files, *(stem(n) for n in labels)}:
            error = None if files.get(case) else "every label must have its image"
            found[case] = Case({"image": files.get(case, [])}, self.labels_of(case, labels), error)
        return found

    def read(self, source: Source) -> Volume:
        """All channels of one file, and the mask."""
        options, spec = self.options, source.spec
        (path,) = (self.root / file for file in spec["channels"].values())
        images = split_channels(path, self.channels, every=not options.channels)
        mask = None if spec["mask"] is None else self.root / spec["mask"]
        return stack_channels(images, mask, options.labels, source, options.max_label_loss, options.mask_grid)


def split_channels(path: Path, channels: Mapping[str, int], every: bool) -> dict[str, Image]:
    """Channels by name, of a file with three dimensions or with the channels in a fourth.

    Args:
        channels: name to number; empty for a file of one channel.
        every: the file must hold just these channels.

    Raises:
        DataError: another number of channels.
    """
    if path.name.lower().endswith(nrrd.SUFFIXES) or len(nifti.open_nifti(path).image.shape) < 4:
        if len(channels) > 1:
            raise DataError("a file must hold all channels", found=f"one, not {len(channels)}", where=str(path))
        return {next(iter(channels), "image"): read_image(path)}
    file = nifti.open_nifti(path)
    data = file.values()
    names = channels or ({"image": 0} if data.shape[3] == 1 else {})
    if data.ndim != 4 or not names or max(names.values()) >= data.shape[3] or (every and len(names) != data.shape[3]):
        raise DataError(
            "the channels of a file must be those that dataset.json or --channels name",
            found=f"shape {data.shape}, names {', '.join(names) or 'none'}",
            where=str(path),
            next_step="give --channels t1=0,t2=1,...",
        )
    return {
        name: Image(nifti.squeeze(data[..., number], path), file.placed(), file.notes, file.acquired_axis)
        for name, number in names.items()
    }
