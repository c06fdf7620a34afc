"""Evaluation protocols, YAML files: who trains on what, who is tested on what, and what a generator may have seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from augengine.bundled import protocol_file
from augengine.downstream.classes import exclude_each_other
from augengine.downstream.domains import KEYS, SHORT, Range, Value, check_values, column_of, domain_value, told
from augengine.errors import ConfigError
from augengine.rng import digest
from augengine.yaml_config import Document, Strict, unknown_name, unset

Metric = Literal["dice", "hd95_mm", "accuracy", "lesion_dice", "lesion_hd95_mm", "false_positive_lesions"]
BACKGROUND = "background"


class Cell(Strict):
    """One pair of training and test domain."""

    train: str
    test: str

    def __str__(self) -> str:
        return f"{self.train} → {self.test}"


class Splits(Strict):
    """Which splits of the shards serve for what; `elsewhere` are tested on in a domain that was not trained on."""

    train: tuple[str, ...] = ("train",)
    val: tuple[str, ...] = ("val",)
    test: tuple[str, ...] = ("test",)
    elsewhere: tuple[str, ...] = ("test",)

    @model_validator(mode="after")
    def _disjoint(self) -> Splits:
        if set(self.train) & {*self.val, *self.test}:
            raise ValueError("nothing is validated or tested on the splits that train")
        return self


def _empty(value: object) -> bool:
    """For keys that came later: where nobody sets them, digests stay what they were."""
    return not value


class Protocol(Strict):
    """An evaluation protocol.

    Attributes:
        key: what a domain is made of: `manufacturer`, `site`, `field_strength`, any other column of a row of texts or
            whole numbers, `acquisition.FIELD`, or `none` (every row is of `all`).
        domains: short name to the values of `key`: texts, or numbers and ranges of numbers. A domain may be the union
            of others.
        cells: pairs of training and test domain, in the order of the tables.
        reference: training domains that are trained on real rows alone, for comparison.
        splits: as they stand in the shards.
        classes: what is segmented and measured: name to the labels whose union it is. They stand in the order of their
            names, whatever the file's, since stored class maps and plans (JSON) know them by their place.
        generator_sees: what may have trained a generator whose rows augment a domain. `train_domain`: that domain
            alone (strict: the other manufacturer is held out, images and all); `target_images`: also the images, never
            the labels, of the other domain's training subjects; `unlabelled`: subjects without labels, of any domain.
        metrics: measured per patient.
        arms: compared where the command line names none; none: those whose rows there are.
        lesion: labels whose union is the lesion; for arms that paste lesions, and for `contrast_channel`.
        contrast_channel: the channel in which the lesion's brightness is compared with its surroundings'; test patients
            are then told by thirds of that ratio, too.
        largest_component: of each class that was predicted, only the largest connected part counts.
    """

    version: Literal[1] = 1
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    key: str = Field(json_schema_extra={"enum": list(KEYS)})
    domains: dict[str, tuple[Value, ...]] = Field(min_length=1)
    cells: tuple[Cell, ...] = Field(min_length=1)
    reference: tuple[str, ...] = ()
    splits: Splits = Splits()
    classes: dict[str, tuple[str, ...]] = Field(min_length=1, max_length=8)
    generator_sees: Literal["train_domain", "target_images", "unlabelled"]
    metrics: tuple[Metric, ...] = Field(default=("dice", "hd95_mm", "accuracy"), min_length=1)
    arms: tuple[str, ...] = Field(default=(), exclude_if=_empty)
    lesion: tuple[str, ...] = Field(default=(), exclude_if=_empty)
    contrast_channel: str | None = Field(default=None, exclude_if=unset)
    largest_component: bool = Field(default=False, exclude_if=_empty)

    @field_validator("key")
    @classmethod
    def _key(cls, value: str) -> str:
        if value not in KEYS:
            raise ValueError(str(unknown_name("key of domains", value, KEYS, None)))
        return value

    @field_validator("classes")
    @classmethod
    def _ordered(cls, value: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        return dict(sorted(value.items()))

    @model_validator(mode="after")
    def _known(self) -> Protocol:
        named = {name for cell in self.cells for name in (cell.train, cell.test)} | set(self.reference)
        if named - set(self.domains):
            raise ValueError(f"cells name unknown domains: {', '.join(sorted(named - set(self.domains)))}")
        if empty := [name for name, values in (*self.domains.items(), *self.classes.items()) if not values]:
            raise ValueError(f"a domain has values and a class has labels: {empty[0]} has none")
        check_values(self.key, [value for values in self.domains.values() for value in values])
        if self.contrast_channel is not None and not self.lesion:
            raise ValueError("contrast_channel needs the labels of the lesion: add lesion: [LABEL, …]")
        return self

    @property
    def digest(self) -> str:
        """Identity of everything in it."""
        return digest(self.model_dump(mode="json"))

    @property
    def by_manufacturer(self) -> bool:
        """True if domains are manufacturers."""
        return SHORT.get(self.key, self.key) == SHORT["manufacturer"]

    @property
    def column(self) -> str | None:
        """The column of a shard that tells a row's domain, if any does."""
        return column_of(self.key)

    def values(self, domain: str) -> tuple[str, ...]:
        """What rows of a domain have as `value`."""
        return tuple(told(value) for value in self.domains[domain])

    @property
    def train_domains(self) -> tuple[str, ...]:
        """Domains that are trained on, in the order of the cells."""
        return tuple(dict.fromkeys(cell.train for cell in self.cells))

    @property
    def exclusive(self) -> bool:
        """True if no label lies in two classes, so that the background is a class, too."""
        return exclude_each_other(self.classes)

    @property
    def validates_on_test(self) -> bool:
        """True where validation and test subjects are the same, as in the papers."""
        return bool(set(self.splits.val) & set(self.splits.test))

    def tests(self, cell: Cell) -> set[tuple[str, str]]:
        """(domain value, split) of the rows that a cell is tested on."""
        own = set(self.values(cell.train))
        return {
            (value, split)
            for value in self.values(cell.test)
            for split in (self.splits.test if value in own else self.splits.elsewhere)
        }

    def shifted(self, cell: Cell) -> bool:
        """True if the cell is tested on nothing that it was trained on."""
        return not set(self.values(cell.train)) & set(self.values(cell.test))

    def held_out_manufacturers(self, train: str) -> tuple[str, ...]:
        """Whose scans no generator of a training domain may have seen; none if the protocol holds nobody out."""
        others = {value for domain in self.domains for value in self.values(domain)} - set(self.values(train))
        strict = self.generator_sees == "train_domain" and self.by_manufacturer
        return tuple(sorted(others)) if strict else ()

    def value(self, row: Mapping[str, Any]) -> str:
        """The domain value of a shard's row; all spellings of a manufacturer are one, and so are numbers of a range."""
        ranges = (value for values in self.domains.values() for value in values if isinstance(value, Range))
        return domain_value(self.key, row, tuple(ranges))


def protocol(text: str | Path) -> Protocol:
    """The protocol in a YAML file, or of a name that ships with augengine.

    Raises:
        ConfigError: no such file, or mistakes in it, with `file:line`.
    """
    return Document.read(protocol_file(text)).validate(Protocol)


def by_site(asked: Protocol, sites: Sequence[str]) -> Protocol:
    """The protocol with sites for domains: each trains and is tested on itself and on every other one.

    Raises:
        ConfigError: fewer than two sites, or one twice.
    """
    if len(sites) < 2 or len(set(sites)) < len(sites):
        raise ConfigError("a comparison of sites needs two different ones", found=", ".join(sites), where="--site")
    cells = [Cell(train=train, test=test) for train in sites for test in sites]
    changes = {
        "key": "site",
        "domains": {site: (site,) for site in sites},
        "cells": tuple(cells),
        "reference": (),
        "name": f"{asked.name}_by_site",
    }
    return Protocol.model_validate(asked.model_dump() | changes)


def other_domain(asked: Protocol, train: str) -> str:
    """The domain that rows of `train` are to be carried to.

    Raises:
        ConfigError: there is none, or more than one.
    """
    others = [name for name in asked.domains if not set(asked.values(name)) & set(asked.values(train))]
    if len(others) != 1:
        raise ConfigError(
            "a direction needs one other domain",
            found=f"{train} of {', '.join(asked.domains)}",
            where=asked.name,
            next_step="choose a protocol with two domains",
        )
    return others[0]
