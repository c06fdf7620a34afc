"""Where the target of an acquisition edit comes from: a policy's section and the data's subjects in, candidates out.

A generator paints what it saw in training. A target that states anything else is refused where that can be known: of
what the policy itself states and of the data as a whole before the first row is made, of a single row as its skip.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from augengine.acquisition_terms import same
from augengine.diffusion.conditions import PARAMETERS, Vocabulary
from augengine.edits.base import Context, Donor
from augengine.errors import CheckpointError, ConfigError, DataError
from augengine.phantom.protocols import Protocol, duke_at_hand, duke_protocols, plausible_protocols
from augengine.policy.spec import Where, check_where, matches, mismatch
from augengine.records import Acquisition, Sample
from augengine.yaml_config import Strict, unset


class Empirical(Strict):
    """Whole rows of a joint table, drawn as often as they occur, since parameters are never independent.

    `samples`: the training subjects of the data at hand; `labelled` takes those with a label map (true) or without
    (false), for protocols in which every labelled subject of the other domain is tested on. `duke_protocols`: the
    published counts of the Duke collection, for the `strict` protocol in which no target comes from the data; or, with
    `table: plausible`, the package's invented ones, which are taken, and stated, where Duke's are not at hand.
    """

    source: Literal["samples", "duke_protocols"] = Field(alias="from", default="samples")
    where: Where = Field(default_factory=dict)
    labelled: bool | None = Field(default=None, exclude_if=unset)
    table: Literal["plausible"] | None = Field(default=None, exclude_if=unset)
    _check = field_validator("where")(check_where)

    @model_validator(mode="before")
    @classmethod
    def _at_hand(cls, values: Any) -> Any:
        """Stated, so that a digest tells rows of one table from rows of the other."""
        if isinstance(values, dict) and values.get("from") == "duke_protocols" and values.get("table") is None:
            return values if duke_at_hand() else {**values, "table": "plausible"}
        return values

    @property
    def protocols(self) -> tuple[Protocol, ...]:
        """The rows that `duke_protocols` draws from."""
        return plausible_protocols() if self.table else duke_protocols()

    @model_validator(mode="after")
    def _fits(self) -> Empirical:
        if self.table is not None and self.source != "duke_protocols":
            raise ValueError("table is about protocols: from duke_protocols")
        if self.labelled is not None and self.source != "samples":
            raise ValueError("labelled is about the data's own subjects: from samples")
        return self

    def takes(self, donor: Donor) -> bool:
        """True if the donor may lend its acquisition."""
        return self.labelled in (None, donor.labelled) and matches(self.where, donor.acquisition)


class Target(Strict):
    """Where the new acquisition comes from: exactly one of the three.

    Attributes:
        empirical: a row of a joint table.
        explicit: parameters that are changed; the others stay as scanned.
        protocols: whole acquisitions by name, which the row's plan states; what a protocol leaves out is unknown.
        unseen: what becomes of a target with values that the generator never saw, which it cannot paint. `skip`: no
            such row is made. `absent`: it is painted, and filed, as if those values were not stated; the plan names
            them. `nearest`: the same, but numbers are painted, and filed, as the nearest that the generator saw.
    """

    empirical: Empirical | None = None
    explicit: list[dict[str, str | float]] | None = Field(default=None, min_length=1)
    protocols: dict[str, dict[str, str | float]] | None = Field(default=None, min_length=1, exclude_if=unset)
    unseen: Literal["skip", "absent", "nearest"] | None = Field(default=None, exclude_if=unset)

    @property
    def invented(self) -> bool:
        """True if it draws from the package's invented protocols."""
        return self.empirical is not None and self.empirical.table is not None

    @model_validator(mode="after")
    def _one(self) -> Target:
        if sum(given is not None for given in (self.empirical, self.explicit, self.protocols)) != 1:
            raise ValueError("give exactly one of 'empirical', 'explicit' and 'protocols'")
        for row in (*(self.explicit or ()), *(self.protocols or {}).values()):
            check_where(dict(row))
        return self


def known_part(target: Target, vocabulary: Vocabulary, acquisition: Acquisition) -> Acquisition | None:
    """What is painted of an acquisition that states something unseen; None if the policy leaves such rows out."""
    if target.unseen == "nearest":
        return vocabulary.nearest_part(acquisition)
    return vocabulary.seen_part(acquisition) if target.unseen == "absent" else None


def candidates(target: Target, sample: Sample, rng: np.random.Generator, context: Context) -> list[Donor]:
    """Acquisitions to choose from with equal chance; a frequent row stands there as often as it was seen."""
    if target.explicit is not None:
        return [Donor("", sample.acquisition.replace(**row)) for row in target.explicit]
    if target.protocols is not None:  # named in a donor's place
        return [Donor(name, Acquisition(**row)) for name, row in target.protocols.items()]  # type: ignore[arg-type]
    assert target.empirical is not None
    if target.empirical.source == "samples":
        donors = list(context.donors)
    else:
        quantile = float(rng.random())
        protocols = target.empirical.protocols
        rows = [Donor("", p.acquisition(quantile)) for p in protocols]
        donors = [row for row, p in zip(rows, protocols, strict=True) for _ in range(p.patients)]
    return [d for d in donors if target.empirical.takes(d)]


def check_donors(target: Target, donors: Sequence[Donor]) -> None:
    """Refuse a choice among the data's own acquisitions that none of them meets: `DataError`."""
    if target.empirical is None or target.empirical.source != "samples":
        return
    asked = target.empirical
    if not any(asked.takes(donor) for donor in donors):
        scanned = Counter(donor.acquisition for donor in donors if asked.labelled in (None, donor.labelled))
        kind = {None: "", True: " with a label map", False: " without a label map"}[asked.labelled]
        raise DataError(
            f"target.empirical takes acquisitions of the data's training subjects{kind}",
            found=mismatch(asked.where, scanned) if scanned else f"no training subject{kind}",
            next_step="mend target.empirical, or take other data",
        )


def paintable(target: Acquisition, source: Acquisition) -> Acquisition:
    """The target without what no generator is conditioned on: unknown, unless the source says the same."""
    values, own = target.to_dict(), source.to_dict()
    others = [name for name in values if name not in PARAMETERS and not same(name, values[name], own[name])]
    return target.replace(**dict.fromkeys(others))


def check_stated(target: Target, vocabulary: Vocabulary | None) -> None:
    """Refuse values of the policy itself that the generator is not conditioned on, or never saw."""
    stated = {f"explicit[{n}]": row for n, row in enumerate(target.explicit or ())}
    stated |= {f"protocols.{name}": row for name, row in (target.protocols or {}).items()}
    for name, row in stated.items():
        if others := [key for key in row if key not in PARAMETERS]:
            raise ConfigError(
                f"target.{name} states what a generator can paint: {', '.join(PARAMETERS)}",
                found=", ".join(others),
                next_step="leave it out of the target",
            )
    if vocabulary is None or target.unseen in ("absent", "nearest"):
        return
    strange = {name: vocabulary.unseen(Acquisition(**row)) for name, row in stated.items()}  # type: ignore[arg-type]
    if target.empirical and target.empirical.source == "duke_protocols":
        rows = Counter(p.acquisition(0.5) for p in target.empirical.protocols)
        chosen = [row for row in rows if matches(target.empirical.where, row)]
        if not chosen:
            raise ConfigError(
                "target.empirical takes rows of the published protocols",
                found=mismatch(target.empirical.where, rows),
                next_step="mend target.empirical.where",
            )
        if all(vocabulary.unseen(row) for row in chosen):
            strange["empirical"] = vocabulary.unseen(chosen[0])
    for name, reasons in strange.items():
        if reasons:
            raise CheckpointError(
                f"the generator never saw the values of target.{name}, and cannot paint them",
                found="; ".join(reasons.values()),
                next_step="take a generator that saw them, other values, or target.unseen: absent or nearest",
            )
