"""What protocols promise: strict files, disjoint splits unless the paper's, held-out vendors, and whole cells."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from builders import slice_sample, write_samples
from pydantic import ValidationError

from augengine.bundled import PROTOCOLS, names
from augengine.downstream.inventory import take_inventory
from augengine.downstream.protocols import Cell, Protocol, Splits, other_domain, protocol
from augengine.errors import ConfigError
from augengine.phantom.protocols import GE, SIEMENS

DUKE = [name for name in names(PROTOCOLS) if protocol(name).by_manufacturer]


@pytest.mark.parametrize("name", DUKE)
def test_vendor_protocols_have_all_cells_of_the_paper(name: str) -> None:
    asked = protocol(name)
    assert {str(cell) for cell in asked.cells} == {
        "Both → Both",
        "GE → GE",
        "GE → Siemens",
        "Siemens → Siemens",
        "Siemens → GE",
    }
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
    with pytest.raises(ConfigError, match=r"no such configuration file; .* such as duke_strict"):
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


OWN = """\
version: 1
name: strengths
key: field_strength
domains:
  weak: [{at_least: 1, below: 2}]
  strong: [3, {at_least: 6.5, below: 7.5}]
cells:
  - {train: weak, test: strong}
classes: {fat: [fat]}
generator_sees: train_domain
metrics: [dice]
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "own.yaml"
    path.write_text(text)
    return path


def test_every_shipped_file_is_read_under_its_own_name() -> None:
    assert set(names(PROTOCOLS)) >= {
        *(f"{of}_{kind}" for of in ("duke", "phantom") for kind in ("paper", "strict", "transductive")),
        "brats_paper",
        "phantom_brats",
    }
    for name in names(PROTOCOLS):
        assert protocol(name).name == name
        assert protocol(PROTOCOLS / f"{name}.yaml") == protocol(name)


def test_a_number_is_of_the_domain_whose_range_holds_it(tmp_path: Path) -> None:
    asked = protocol(written(tmp_path, OWN))
    assert (asked.values("weak"), asked.values("strong")) == (("1 to 2",), ("3", "6.5 to 7.5"))
    found = {t: asked.value({"acquisition": {"field_strength_t": t}}) for t in (1.0, 1.494, 2.0, 3.0, 7.0, None)}
    assert found == {1.0: "1 to 2", 1.494: "1 to 2", 2.0: "2", 3.0: "3", 7.0: "6.5 to 7.5", None: "None"}
    assert asked.held_out_manufacturers("weak") == ()
    assert Protocol.model_validate(asked.model_dump(mode="json")) == asked, "as an experiment's plan keeps it"
    rows = [
        slice_sample(n).replace(acquisition=slice_sample(n).acquisition.replace(field_strength_t=t))
        for n, t in enumerate((1.5, 3.0, 2.9))
    ]
    taken = take_inventory(write_samples(tmp_path / "rows", rows), asked)
    assert {value for _, value in taken.split} == {"1 to 2", "3", "2.9"}


@pytest.mark.parametrize(
    ("key", "values", "row", "value"),
    [
        ("acquisition.model", ["Prisma"], {"acquisition": {"model": "Prisma"}}, "Prisma"),
        ("acquisition.manufacturer", [GE], {"acquisition": {"manufacturer": "GE"}}, GE),
        ("acquisition.echo_time_ms", [{"at_least": 0, "below": 3}], {"acquisition": {"echo_time_ms": 2.4}}, "0 to 3"),
        ("volume_id", ["S001-a"], {"volume_id": "S001-a"}, "S001-a"),
        ("slice_index", [7], {"slice_index": 7}, "7"),
        ("site", ["12"], {"site": "12"}, "12"),
    ],
)
def test_any_column_of_a_row_may_be_the_key(key: str, values: Any, row: Any, value: str, tmp_path: Path) -> None:
    text = yaml.safe_dump(yaml.safe_load(OWN) | {"key": key, "domains": {"weak": values, "strong": values}})
    asked = protocol(written(tmp_path, text))
    assert asked.value(row) == value == asked.values("weak")[0]


def test_a_column_that_no_metadata_held_before_is_read(tmp_path: Path) -> None:
    text = yaml.safe_dump(yaml.safe_load(OWN) | {"key": "volume_id", "domains": {"weak": ["x"], "strong": ["y"]}})
    rows = [slice_sample(1).replace(volume_id="x"), slice_sample(2).replace(volume_id="y")]
    found = take_inventory(write_samples(tmp_path / "rows", rows), protocol(written(tmp_path, text)))
    assert {value for _, value in found.split} == {"x", "y"}


@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        ("metrics:", "metric:", 11, r"unknown key 'metric'; did you mean 'metrics'\?"),
        ("key: field_strength", "key: feld_strength", 3, "did you mean 'field_strength'"),
        ("test: strong", "test: stronk", 1, "cells name unknown domains: stronk"),
        ("below: 2}", "below: 1}", 5, "a range rises: 1 is not below 1"),
        ("[3, {", "[1.5, {", 1, "no number in common: 1 to 2 and 1.5 do"),
        ("weak: [{at_least: 1, below: 2}]", "weak: [low]", 1, "named by numbers or ranges .* not by 'low'"),
        ("key: field_strength", "key: site", 1, "named by texts, numbers in quotes"),
        ("[dice]", "[dise]", 11, "found 'dise'"),
        ("classes: {fat: [fat]}", "contrast_channel: t1\nclasses: {fat: [fat]}", 1, "needs the labels of the lesion"),
        ("strong: [3, {at_least: 6.5, below: 7.5}]", "strong: []", 1, "strong has none"),
    ],
)
def test_a_mistake_is_told_in_one_line_with_its_place(old: str, new: str, line: int, says: str, tmp_path: Path) -> None:
    assert old in OWN
    path = written(tmp_path, OWN.replace(old, new))
    with pytest.raises(ConfigError, match=says) as error:
        protocol(path)
    assert f"{path}:{line}" in str(error.value)
    assert "\n" not in str(error.value)


def test_plans_of_older_experiments_are_read() -> None:
    stored = protocol("duke_strict").model_dump(mode="json")
    assert stored["domains"]["GE"] == [GE]
    del stored["version"]
    assert Protocol.model_validate(stored) == protocol("duke_strict")


def test_classes_have_one_order_whatever_the_file_s() -> None:
    """A plan is JSON with sorted keys; a map whose bits followed the file would be read under other names."""
    values = protocol("phantom_brats").model_dump(mode="json")
    turned = {**values, "classes": dict(reversed(values["classes"].items()))}
    assert list(Protocol.model_validate(turned).classes) == ["ET", "TC", "WT"]
    again = json.loads(json.dumps(values, sort_keys=True))
    assert list(Protocol.model_validate(again).classes) == list(Protocol.model_validate(turned).classes)
