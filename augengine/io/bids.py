"""A BIDS data set goes in; anatomical volumes with acquisition from JSON sidecars come out.

Every image of `sub-*/[ses-*/]anat` is a volume of its own, and its entities stand in the volume's id. With channels
(`t1=T1w,t1ce=ce-gadolinium_T1w`) the images of one session are stacked. Masks lie beside the image or anywhere below
`derivatives`, and belong to the image whose entities they have. Every other file is named with a reason.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from augengine.errors import ConfigError, DataError
from augengine.io.bids_channels import PARTS, Channels, no_anatomy
from augengine.io.bids_masks import NO_MASKS, Found, match, several, stated_codes
from augengine.io.bids_names import IMAGE_ENDINGS, BidsName, parse
from augengine.io.bids_sidecars import SidecarIndex, acquisition, no_magnitude, read_sidecars
from augengine.io.bids_tree import LOST, Tree
from augengine.io.files import FileReader
from augengine.io.philips import display_factor
from augengine.io.sources import (
    Entry,
    Listing,
    Scanned,
    Source,
    SourceOptions,
    pseudonym,
    shared_acquisition,
    subject_name,
)
from augengine.io.walk import walk
from augengine.records import Acquisition

LABEL_DIGITS = 12
"""Hex digits that stand for a label; its subject's many make the id."""
FETCH = f"{LOST}: fetch its content, for example with `datalad get`"


@dataclass(frozen=True)
class Draft:
    """A volume before its mask and its sidecars are looked for.

    Attributes:
        subject: without `sub-`.
        tail: what follows the subject in the volume's id.
        place: for messages on the console.
        images: by channel.
        notes, error: as they will stand in the `Source`.
    """

    subject: str
    tail: str
    place: str
    images: Mapping[str, BidsName]
    notes: Sequence[str] = ()
    error: str | None = None


@dataclass
class Drafts:
    """Volumes, and why images are in none of them."""

    volumes: list[Draft] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)


class BidsReader(FileReader):
    """Sessions of one subject share its id, so that they never part between splits."""

    layout = "bids"

    def entries(self) -> list[Entry]:
        """One per volume."""
        return list(self.listing().entries)

    def listing(self) -> Listing:
        """One entry per volume, from names alone."""
        tree = Tree.of(walk(self.root), self.options.mask)
        if not tree.images and tree.deeper:
            raise ConfigError(
                "a BIDS data set has its subjects right below its root",
                found=f"{tree.deeper}/sub-*",
                next_step=f"ingest {self.root / tree.deeper}",
            )
        drafts = self._stacked(tree) if self.options.channels else _single(tree)
        if not drafts.volumes:
            reasons = {**tree.reasons, **drafts.reasons}
            kinds = Counter(why for path, why in reasons.items() if path.lower().endswith(IMAGE_ENDINGS))
            raise DataError(
                "a BIDS data set must hold an anatomical image",
                where=str(self.root),
                found="; ".join(f"{n} {why}" for why, n in kinds.most_common(4)) or "no image",
                next_step="check the path; --channels name=SUFFIX takes other suffixes of anat",
            )
        with_images = {n: list(draft.images.values()) for n, draft in enumerate(drafts.volumes) if draft.images}
        found = match(tree.masks, with_images)
        self._check_masks(tree, found)
        sidecars = SidecarIndex(tree.sidecars, tree.images)
        entries = [_entry(draft, found, n, sidecars, tree) for n, draft in enumerate(drafts.volumes)]
        times = Counter(sidecar for entry in entries for sidecar in entry["used"])
        taken = {file for entry in entries for file in self.files(entry)}
        doubtful = {m.path: "one of several masks of one image" for ms in found.masks.values() for m in ms}
        reasons = {**tree.reasons, **drafts.reasons, **doubtful, **found.reasons}
        unused = {path: reason for path, reason in reasons.items() if path not in taken}
        return Listing(entries, [path for path, n in times.items() if n > 1], unused)

    def files(self, entry: Entry) -> list[str]:
        """Images, mask and sidecars."""
        return [*super().files(entry), *entry["used"]]

    def scan(self, entry: Entry) -> Scanned:
        """Read the sidecars; one that cannot be read rules the volume out."""
        error, notes, parts, factors = entry["error"], list(entry["notes"]), [], {}
        types = set()
        several_channels = len(entry["channels"]) > 1
        if self.options.labels and not entry["mask"] and error is None:
            notes.append("no mask was found")
        for channel, levels in entry["sidecars"].items():
            try:
                values, remarks = read_sidecars(self.root, levels, entry["lost"])
                factor, scaling = display_factor(values)
            except DataError as problem:
                error = error or str(problem)
                continue
            types.add(str(values.get("MRAcquisitionType")).strip().upper())
            stated, more = acquisition(values)
            more += [scaling] if scaling else []
            if factor != 1:
                factors[channel] = factor
            parts.append(stated)
            notes += [f"{channel}: {note}" if several_channels else note for note in [*remarks, *more]]
            kind = no_magnitude(values)
            if kind is not None and channel not in entry["parts"]:
                error = error or f"an image must be a magnitude; its sidecar states {kind} (ImageType)"
        subject = subject_name(entry["name"], self.options)
        spec = {"channels": entry["channels"], "mask": entry["mask"], "sidecars": entry["used"]}
        source = Source(
            volume_id=subject + _labels_hidden(entry["volume"], self.options),
            subject_id=subject,
            entry=entry["entry"],
            spec=spec | ({"factors": factors} if factors else {}),
            acquisition=shared_acquisition(parts) if parts else Acquisition(),
            error=error,
            notes=tuple(dict.fromkeys(notes)),
            participant=entry["name"],
            slice_by_slice="2D" in types,
        )
        return Scanned([source])

    def _stacked(self, tree: Tree) -> Drafts:
        """A volume per session that holds a stated channel."""
        channels, drafts = Channels(self.options.channels), Drafts()
        sessions: dict[tuple[str, str], list[BidsName]] = defaultdict(list)
        for image in tree.images:
            sessions[image.subject, image.entities.get("ses", "")].append(image)
        for (subject, session), images in sessions.items():
            choice, reasons = channels.choose(images)
            drafts.reasons |= reasons
            if choice is not None:
                tail = f"_ses-{session}" if session else ""
                place = images[0].path.rpartition("/")[0]
                drafts.volumes.append(Draft(subject, tail, place, choice.images, choice.notes, choice.error))
        if tree.images and not drafts.volumes:
            raise ConfigError(
                "--channels must match an image",
                found=", ".join(self.options.channels.values()),
                next_step=f"suffixes in this data set: {', '.join(sorted({i.suffix for i in tree.images}))}",
            )
        return drafts

    def _check_masks(self, tree: Tree, found: Found) -> None:
        """Stated labels must be found, and found masks must have stated labels."""
        options = self.options
        if options.mask == NO_MASKS:
            if options.labels:
                raise ConfigError("labels need masks", found="--mask none", next_step="leave --labels or --mask out")
            return
        if options.mask and not tree.masks:
            raise ConfigError("--mask must match a file", found=options.mask, next_step="check the pattern")
        masked = next((masks[0] for masks in found.masks.values()), None)
        if masked is None and (options.mask or options.labels):
            others = ", ".join(sorted(tree.others)[:6])
            raise ConfigError(
                "masks or labels are stated, and no mask belongs to an image",
                found=f"{len(tree.masks)} masks",
                next_step=(f"choose with --mask PATTERN (suffixes: {others}), " if others else "")
                + "check the masks' entities, or leave --labels and --mask out",
            )
        if masked is not None and not options.labels:
            codes = stated_codes(masked, tree.tables, self.root)
            raise ConfigError(
                "this data set has masks: the meaning of their codes must be stated",
                where=masked.path,
                next_step=(
                    f"its dseg.tsv says --labels {codes}" if codes else "give --labels name=code,... or --labels SCHEME"
                )
                + ", or --mask none to ingest images only",
            )


def _labels_hidden(tail: str, options: SourceOptions) -> str:
    """A tail of an id in which pseudonyms stand for labels, unless ids are public: `ses-20190317` is a date.

    Suffixes and numbers of up to three digits stay.
    """
    if options.public_ids:
        return tail
    parts = []
    for part in tail.split("_"):
        key, dash, label = part.partition("-")
        number = label.isdecimal() and len(label) <= 3
        if dash and not number:
            label = pseudonym(label, options.pseudonym_key).removeprefix("sub-")[:LABEL_DIGITS]
        parts.append(key + dash + label)
    return "_".join(parts)


def _single(tree: Tree) -> Drafts:
    """A volume per image, with the suffix as its channel."""
    drafts = Drafts()
    for image in tree.images:
        reason = no_anatomy(image)
        if reason is None:
            drafts.volumes.append(Draft(image.subject, f"_{image.tail}", image.path, {image.suffix: image}))
        else:
            drafts.reasons[image.path] = reason
    return drafts


def _entry(draft: Draft, found: Found, n: int, sidecars: SidecarIndex, tree: Tree) -> Entry:
    """All that `scan` and `read` need, as JSON."""
    masks = found.masks.get(n, ())
    mask = masks[0].path if len(masks) == 1 else None
    files = {channel: image.path for channel, image in draft.images.items()}
    levels, remarks = {}, []
    for channel, image in draft.images.items():
        levels[channel], notes = sidecars.levels(image)
        remarks += notes
    paths = dict.fromkeys(path for each in levels.values() for level in each for path in level)
    error = draft.error or (several(masks) if len(masks) > 1 else None)
    if any(file in tree.lost for file in files.values()):
        error = error or f"an image is {FETCH}"
    if mask in tree.lost:
        error = error or f"the mask is {FETCH}"
    return {
        "name": f"sub-{draft.subject}",
        "entry": draft.place,
        "volume": draft.tail,
        "channels": files,
        "mask": mask,
        "sidecars": levels,
        "used": [path for path in paths if path not in tree.lost],
        "lost": [path for path in paths if path in tree.lost],
        "parts": [c for c, file in files.items() if (name := parse(file)) and name.entities.get("part") in PARTS],
        "notes": [*draft.notes, *(found.notes.get(n, ()) if mask else ()), *remarks],
        "error": error,
    }
