"""Named evaluation protocols: who trains on what, who is tested on what, and what a generator may have seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field, model_validator

from augengine.acquisition_terms import manufacturer
from augengine.errors import ConfigError
from augengine.phantom.protocols import GE, SIEMENS
from augengine.rng import digest
from augengine.yaml_config import Strict, unknown_name

DomainKey = Literal["manufacturer", "site", "none"]
Metric = Literal["dice", "hd95_mm", "accuracy", "lesion_dice", "lesion_hd95_mm", "false_positive_lesions"]
BACKGROUND, ALL = "background", "all"


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


class Protocol(Strict):
    """An evaluation protocol.

    Attributes:
        key: what a domain is made of: the acquisition's manufacturer, the site, or nothing (every row is of `all`).
        domains: short name to the values of `key`; `Both` is their union.
        cells: pairs of training and test domain, in the order of the tables.
        reference: training domains that are trained on real rows alone, for comparison.
        splits: as they stand in the shards.
        classes: what is segmented and measured: name to the labels whose union it is.
        generator_sees: what may have trained a generator whose rows augment a domain. `train_domain`: that domain
            alone (strict: the other manufacturer is held out, images and all); `target_images`: also the images, never
            the labels, of the other domain's training subjects; `unlabelled`: subjects without labels, of any domain.
        metrics: measured per patient.
    """

    name: str
    key: DomainKey
    domains: dict[str, tuple[str, ...]] = Field(min_length=1)
    cells: tuple[Cell, ...] = Field(min_length=1)
    reference: tuple[str, ...] = ()
    splits: Splits = Splits()
    classes: dict[str, tuple[str, ...]] = Field(min_length=1, max_length=8)
    generator_sees: Literal["train_domain", "target_images", "unlabelled"]
    metrics: tuple[Metric, ...] = ("dice", "hd95_mm", "accuracy")

    @model_validator(mode="after")
    def _known(self) -> Protocol:
        named = {name for cell in self.cells for name in (cell.train, cell.test)} | set(self.reference)
        if named - set(self.domains):
            raise ValueError(f"cells name unknown domains: {', '.join(sorted(named - set(self.domains)))}")
        for value in (v for values in self.domains.values() for v in values if self.key == "manufacturer"):
            if manufacturer(value) != value:
                raise ValueError(f"domains name manufacturers by their normal form: {manufacturer(value)}, not {value}")
        return self

    @property
    def digest(self) -> str:
        """Identity of everything in it."""
        return digest(self.model_dump(mode="json"))

    @property
    def train_domains(self) -> tuple[str, ...]:
        """Domains that are trained on, in the order of the cells."""
        return tuple(dict.fromkeys(cell.train for cell in self.cells))

    @property
    def exclusive(self) -> bool:
        """True if no label lies in two classes, so that the background is a class, too."""
        labels = [label for of_class in self.classes.values() for label in of_class]
        return len(labels) == len(set(labels))

    @property
    def validates_on_test(self) -> bool:
        """True where validation and test subjects are the same, as in the papers."""
        return bool(set(self.splits.val) & set(self.splits.test))

    def tests(self, cell: Cell) -> set[tuple[str, str]]:
        """(domain value, split) of the rows that a cell is tested on."""
        own = set(self.domains[cell.train])
        return {
            (value, split)
            for value in self.domains[cell.test]
            for split in (self.splits.test if value in own else self.splits.elsewhere)
        }

    def shifted(self, cell: Cell) -> bool:
        """True if the cell is tested on nothing that it was trained on."""
        return not set(self.domains[cell.train]) & set(self.domains[cell.test])

    def held_out_manufacturers(self, train: str) -> tuple[str, ...]:
        """Whose scans no generator of a training domain may have seen; none if the protocol holds nobody out."""
        others = {v for values in self.domains.values() for v in values} - set(self.domains[train])
        strict = self.generator_sees == "train_domain" and self.key == "manufacturer"
        return tuple(sorted(others)) if strict else ()

    def value(self, row: Mapping[str, Any]) -> str:
        """The domain value of a shard's row; all spellings of a manufacturer are one."""
        if self.key == "none":
            return ALL
        stated = row["site"] if self.key == "site" else row["acquisition"]["manufacturer"]
        return manufacturer(stated) if self.key == "manufacturer" and stated else str(stated)


def _cells(*pairs: str) -> tuple[Cell, ...]:
    return tuple(Cell(train=train, test=test) for train, test in (pair.split(">") for pair in pairs))


_TISSUES = {"fat": ("fat",), "fibroglandular": ("fibroglandular",)}
_TUMOUR = {"ET": ("enhancing",), "TC": ("enhancing", "necrosis"), "WT": ("enhancing", "necrosis", "oedema")}
_VENDORS: dict[str, Any] = {
    "key": "manufacturer",
    "domains": {"GE": (GE,), "Siemens": (SIEMENS,), "Both": (GE, SIEMENS)},
    "cells": _cells("Both>Both", "GE>GE", "GE>Siemens", "Siemens>Siemens", "Siemens>GE"),
    "reference": ("Both",),
    "classes": _TISSUES,
}
_PAPER_SPLITS = Splits(val=("val", "test"), test=("val", "test"), elsewhere=("train", "val", "test"))
_BRATS: dict[str, Any] = {
    "key": "none",
    "cells": _cells("all>all"),
    "splits": Splits(val=("val", "test"), test=("val", "test")),
    "classes": _TUMOUR,
    "generator_sees": "train_domain",
    "metrics": ("dice", "hd95_mm", "lesion_dice", "lesion_hd95_mm", "false_positive_lesions"),
}


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        # Paper 004, 3.1.3: validation subjects are the ID test, all labelled subjects of the other vendor the OOD test,
        # and the generator was trained on patients without masks.
        Protocol(name="duke_paper", generator_sees="unlabelled", splits=_PAPER_SPLITS, **_VENDORS),
        Protocol(name="duke_strict", generator_sees="train_domain", **_VENDORS),
        Protocol(name="duke_transductive", generator_sees="target_images", **_VENDORS),
        # Paper 002, 3.2: one data set, no second domain.
        Protocol(name="brats_paper", domains={ALL: (ALL,)}, **_BRATS),
        Protocol(name="phantom_paper", generator_sees="unlabelled", splits=_PAPER_SPLITS, **_VENDORS),
        Protocol(name="phantom_strict", generator_sees="train_domain", **_VENDORS),
        Protocol(name="phantom_transductive", generator_sees="target_images", **_VENDORS),
        Protocol(name="phantom_brats", domains={ALL: (ALL,)}, **_BRATS),
    )
}


def protocol(name: str) -> Protocol:
    """The protocol of that name; a `ConfigError` names the nearest where there is none."""
    if name not in PROTOCOLS:
        raise unknown_name("protocol", name, list(PROTOCOLS), "--protocol")
    return PROTOCOLS[name]


def by_site(asked: Protocol, sites: Sequence[str]) -> Protocol:
    """The protocol with sites for domains: each trains and is tested on itself and on every other one.

    Raises:
        ConfigError: fewer than two sites, or one twice.
    """
    if len(sites) < 2 or len(set(sites)) < len(sites):
        raise ConfigError("a comparison of sites needs two different ones", found=", ".join(sites), where="--site")
    cells = [Cell(train=train, test=test) for train in sites for test in sites]
    changes = {
        "key": "site", "domains": {site: (site,) for site in sites}, "cells": tuple(cells), "reference": (),
        "name": f"{asked.name}_by_site",
    }  # fmt: skip
    return Protocol.model_validate(asked.model_dump() | changes)


def other_domain(asked: Protocol, train: str) -> str:
    """The domain that rows of `train` are to be carried to.

    Raises:
        ConfigError: there is none, or more than one.
    """
    others = [name for name in asked.domains if not set(asked.domains[name]) & set(asked.domains[train])]
    if len(others) != 1:
        raise ConfigError(
            "a direction needs one other domain", found=f"{train} of {', '.join(asked.domains)}",
            where=asked.name, next_step="choose a protocol with two domains",
        )  # fmt: skip
    return others[0]
