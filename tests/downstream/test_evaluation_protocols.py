"""What the named protocols promise: disjoint splits unless the paper's, held-out vendors, and whole cells."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from augengine.downstream.protocols import PROTOCOLS, Cell, Protocol, Splits, other_domain, protocol
from augengine.errors import ConfigError
from augengine.phantom.protocols import GE, SIEMENS

DUKE = [name for name in PROTOCOLS if "brats" not in name]


@pytest.mark.parametrize("name", DUKE)
def test_vendor_protocols_have_all_cells_of_the_paper(name: str) -> None:
    asked = protocol(name)
    assert {str(cell) for cell in asked.cells} == {
        "Both → Both", "GE → GE", "GE → Siemens", "Siemens → Siemens", "Siemens → GE",
    }  # fmt: skip
    assert [str(cell) for cell in asked.cells if asked.shifted(cell)] == ["GE → Siemens", "Siemens → GE"]
    assert other_domain(asked, "GE") == "Siemens"
    with pytest.raises(ConfigError, match="one other domain"):
        other_domain(asked, "Both")


def test_who_is_held_out_and_what_is_tested() -> None:
    strict, transductive, paper = (protocol(f"duke_{kind}") for kind in ("strict", "transductive", "paper"))
    away = Cell(train="GE", test="Siemens")
    assert (strict.held_out_manufacturers("GE"), strict.held_out_manufacturers("Siemens")) == ((SIEMENS,), (GE,))
    assert strict.held_out_manufacturers("Both") == ()
    assert transductive.held_out_manufacturers("GE") == ()
    third = {**strict.domains, "Philips": ("Philips Medical Systems",)}
    three = Protocol.model_validate(strict.model_dump() | {"domains": third})
    assert three.held_out_manufacturers("GE") == ("Philips Medical Systems", SIEMENS)
    assert three.held_out_manufacturers("Both") == ("Philips Medical Systems",)
    assert strict.tests(away) == {(SIEMENS, "test")}
    assert paper.tests(away) == {(SIEMENS, split) for split in ("train", "val", "test")}
    assert paper.tests(Cell(train="GE", test="GE")) == {(GE, "val"), (GE, "test")}
    assert paper.validates_on_test
    assert not strict.validates_on_test


def test_nothing_is_tested_on_what_trains_and_cells_name_domains() -> None:
    with pytest.raises(ValidationError, match="splits that train"):
        Splits(test=("train", "test"))
    values = protocol("duke_strict").model_dump()
    with pytest.raises(ValidationError, match="unknown domains: Philips"):
        Protocol.model_validate(values | {"cells": [{"train": "GE", "test": "Philips"}]})
    with pytest.raises(ConfigError, match="did you mean 'duke_strict'"):
        protocol("duke_strickt")


def test_classes_exclude_each_other_or_nest() -> None:
    assert protocol("duke_strict").exclusive
    assert not protocol("brats_paper").exclusive


def test_every_spelling_of_a_vendor_is_its_domain() -> None:
    asked = protocol("duke_strict")
    for text, domain in (("GE", GE), ("GE Healthcare", GE), (GE, GE), ("Siemens Healthineers", SIEMENS)):
        assert asked.value({"acquisition": {"manufacturer": text}, "site": "x"}) == domain
    assert asked.value({"acquisition": {"manufacturer": None}, "site": "x"}) == "None"
    with pytest.raises(ValidationError, match="by their normal form: SIEMENS, not Siemens"):
        Protocol.model_validate(asked.model_dump() | {"domains": {**asked.domains, "Siemens": ("Siemens",)}})
