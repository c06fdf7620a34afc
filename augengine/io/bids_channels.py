"""A session's images and the stated channels go in; which image is which channel comes out, and why others are none.

A channel is a suffix with the entities that must match before it: `T1w`, `ce-gadolinium_T1w`. Several of them,
separated by `|`, are tried in turn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from augengine.errors import ConfigError
from augengine.io.bids_names import BidsName, parse, schema

PARTS = {"phase": "phase image", "real": "real part of an image", "imag": "imaginary part of an image"}
LOCALISERS = ("localizer", "localiser", "scout", "survey")


@dataclass(frozen=True)
class Choice:
    """The images of one volume.

    Attributes:
        images: by channel.
        notes: what was chosen without being asked for.
        error: why the volume cannot be made.
    """

    images: Mapping[str, BidsName]
    notes: Sequence[str] = ()
    error: str | None = None


def no_anatomy(name: BidsName) -> str | None:
    """Why a file of the data type `anat` is no contrast image; None for one that is."""
    if name.suffix == "defacemask":
        return "a defacing mask"
    if name.suffix == "probseg":
        return "a map of probabilities"
    if name.source is not None or "mod" in name.entities:
        return "made from another image"
    if name.suffix in schema().maps:
        return f"a quantitative map, no contrast image; --channels name={name.suffix} takes it"
    if _localiser(name.suffix, *_told_apart(name).values()):
        return "a localiser"
    if name.suffix not in schema().anatomy:
        return f"suffix {name.suffix} is none of BIDS' anatomy; --channels name={name.suffix} takes it"
    return PARTS.get(name.entities.get("part", ""))


class Channels:
    """The stated channels, checked.

    Raises:
        ConfigError: a channel that is no suffix with entities before it.
    """

    def __init__(self, channels: Mapping[str, str]) -> None:
        self.specs = dict(channels)
        self.wanted = {name: [_wanted(name, text) for text in spec.split("|")] for name, spec in channels.items()}

    def choose(self, images: Sequence[BidsName]) -> tuple[Choice | None, dict[str, str]]:
        """The volume of a session, and why its other images are not used (by path).

        The volume is None where no image is any channel.
        """
        chosen: dict[str, BidsName] = {}
        reasons = {image.path: self._reason(image) for image in images}
        notes: list[str] = []
        errors: list[str] = []
        for channel, spec in self.specs.items():
            wanted = self.wanted[channel]
            found = _best(wanted, images)
            matching = {image.path for w in wanted for image in images if _matches(image, w)}
            reasons |= dict.fromkeys(sorted(matching), f"channel '{channel}' took the image with fewer entities")
            if len(found) > 1:
                reasons |= {image.path: f"one of several images for channel '{channel}'" for image in found}
                errors.append(_several(channel, found))
            elif found:
                chosen[channel] = found[0]
                extra = [key for key in _told_apart(found[0]) if all(key not in w.entities for w in wanted)]
                if extra:
                    notes.append(f"channel '{channel}': its only image has {', '.join(extra)}, which was not asked for")
            else:
                errors.append(f"every channel must have its file; missing: {channel} ({spec})")
        if not chosen and not any(reason.startswith("one of") for reason in reasons.values()):
            return None, reasons
        if self._unasked(chosen, "run"):
            errors.append("channels of one volume must be of one run, or their runs must be stated in --channels")
        if self._unasked(chosen, "acq"):
            notes.append("channels of one volume differ in acq")
        for image in chosen.values():
            reasons.pop(image.path, None)
        return Choice(chosen, notes, "; ".join(errors) or None), reasons

    def _reason(self, image: BidsName) -> str:
        """Why an image that no channel matches is none."""
        kind = no_anatomy(image)
        asked = any(image.suffix == w.suffix for wanted in self.wanted.values() for w in wanted)
        if asked:
            return kind or f"no channel asks for these entities of suffix {image.suffix}"
        named = kind is None or "--channels" in kind
        return f"no channel asks for suffix {image.suffix}" if named else str(kind)

    def _unasked(self, chosen: Mapping[str, BidsName], key: str) -> bool:
        """True if channels differ in an entity that not all of them were stated with."""
        having = {channel: image.entities[key] for channel, image in chosen.items() if key in image.entities}
        stated = [any(key in w.entities for w in self.wanted[channel]) for channel in having]
        return len(set(having.values())) > 1 and not all(stated)


def _wanted(channel: str, text: str) -> BidsName:
    found = parse(text.strip())
    if found is None or found.source is not None or not found.suffix.isalnum():
        raise ConfigError(
            "a BIDS channel is a suffix, with entities before it that must match",
            found=f"{channel}={text}",
            where="--channels",
            next_step="for example t1=T1w, or t1ce=ce-gadolinium_T1w",
        )
    return found


def _best(wanted: Sequence[BidsName], images: Sequence[BidsName]) -> list[BidsName]:
    """Of each statement in turn the images without further entities, else all that match: the first single image."""
    attempts = []
    for statement in wanted:
        found = [image for image in images if _matches(image, statement)]
        plain = [image for image in found if not set(_told_apart(image)) - set(statement.entities)]
        attempts.append(plain or found)
    return next((a for a in attempts if len(a) == 1), next((a for a in attempts if a), []))


def _matches(image: BidsName, wanted: BidsName) -> bool:
    """Suffix and stated entities; a part of a complex image or a localiser must be asked for by its entity."""
    if image.suffix != wanted.suffix or image.source is not None or "mod" in image.entities:
        return False
    further = {key: value for key, value in _told_apart(image).items() if key not in wanted.entities}
    if further.get("part") in PARTS or _localiser(*further.values()):
        return False
    return wanted.entities.items() <= image.entities.items()


def _told_apart(image: BidsName) -> dict[str, str]:
    """Entities that tell images of one session apart; `part-mag` is the same as none."""
    rest = {key: value for key, value in image.entities.items() if key not in ("sub", "ses")}
    return {key: value for key, value in rest.items() if (key, value) != ("part", "mag")}


def _localiser(*texts: str) -> bool:
    return any(word in text.lower() for text in texts for word in LOCALISERS)


def _several(channel: str, images: Sequence[BidsName]) -> str:
    tails = [_without_session(image) for image in images]
    return (
        f"channel '{channel}' must be one image of the session; found {', '.join(tails)}; "
        f"choose with --channels, for example {channel}={tails[0]}"
    )


def _without_session(image: BidsName) -> str:
    return "_".join(part for part in image.tail.split("_") if not part.startswith("ses-"))
