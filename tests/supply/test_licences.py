"""Every dependency has a row and a licence that augengine accepts; the bill of materials names them all."""

from __future__ import annotations

import importlib.metadata as metadata
import platform
import re
import sys
from email.message import Message

import pytest

from augengine.errors import ConfigError, DataError
from supply.hashes import requirements
from supply.installed import ROOT, Package, packages, pins
from supply.licences import rows, text
from supply.sbom import bill
from supply.terms import accepted, licence


def made(name: str = "thing", **info: str | list[str]) -> Package:
    message = Message()
    for key, values in info.items():
        for value in [values] if isinstance(values, str) else values:
            message[key.replace("_", "-")] = value
    return Package(name, "1.0", False, "runtime", (), message)  # type: ignore[arg-type]


def installed_as_pinned() -> list[Package]:
    """What is installed, where that is what the table is of: other platforms and CUDA builds bring other packages."""
    if (sys.platform, platform.machine(), sys.version_info[:2]) != ("linux", "x86_64", (3, 11)):
        pytest.skip("the table is of Linux, x86-64, Python 3.11")
    if not metadata.version("torch").endswith("+cpu"):
        pytest.skip("the table is of PyTorch's CPU build")
    here = {re.sub(r"[-_.]+", "-", one.name).lower() for one in metadata.distributions()}
    for name, version in pins().items():  # what is missing is of the documentation's site, or `packages` says so
        if name in here and metadata.version(name).split("+")[0] != version:
            pytest.skip(f"{name} is not installed as pinned")
    return packages()


def test_every_pin_has_a_row_with_its_version():
    table = {re.sub(r"[-_.]+", "-", name).lower(): row for name, row in rows().items()}
    assert {name: table.get(name, ("no row",))[0] for name in pins()} == pins()


def test_every_row_has_an_accepted_licence():
    table = rows()
    assert len(table) > 100
    assert {name: terms for name, (_, terms) in table.items() if not accepted(terms)} == {}


def test_every_installed_dependency_has_its_row():
    found, table = installed_as_pinned(), rows()
    missing = {p.name: licence(p) for p in found if table.get(p.name, ("", ""))[1] != licence(p)}
    assert missing == {}, "run `make licences` and read what has changed"


def test_dependencies_of_the_project_are_pinned():
    project = (ROOT / "pyproject.toml").read_text()
    declared = re.search(r"^dependencies = \[(.*?)^\]", project, re.M | re.S)
    assert declared is not None
    names = {re.split(r"[\[>=<]", n)[0].lower() for n in re.findall(r'"([^"]+)"', declared.group(1))}
    assert names
    assert {name for name in names if name not in pins()} == set()


@pytest.mark.parametrize(
    ("expression", "good"),
    [
        ("MIT", True),
        ("GPL-3.0-only", False),
        ("MIT OR GPL-3.0-only", True),
        ("MIT AND GPL-3.0-only", False),
        ("Apache-2.0 WITH LLVM-exception AND (MIT OR GPL-2.0-only)", True),
        ("Apache-2.0 WITH other-exception", False),
        ("(MIT OR BSD-3-Clause) AND CC-BY-NC-4.0", False),
        ("(MIT", False),
        ("MIT MIT", False),
        ("unknown: MIT", False),
        ("", False),
    ],
)
def test_accepted(expression, good):
    assert accepted(expression) is good


def test_a_licence_is_read_from_what_the_metadata_has():
    assert licence(made(License_Expression="MIT AND Zlib")) == "MIT AND Zlib"
    assert licence(made(License="Apache License 2.0")) == "Apache-2.0"
    assert licence(made(Classifier="License :: OSI Approved :: MIT License")) == "MIT"
    both = ["License :: OSI Approved :: MIT License", "License :: OSI Approved :: GNU Affero General Public License v3"]
    assert not accepted(licence(made(Classifier=both)))
    assert not accepted(licence(made(License="Copyright (c) 2012 Somebody")))
    assert not accepted(licence(made(License="BSD")))


def test_a_new_dependency_shows_in_the_page():
    page = text([made("new-thing", License_Expression="GPL-3.0-only")])
    assert "| new-thing |  | GPL-3.0-only |" in page


def test_the_bill_names_every_package_and_what_it_needs():
    found = installed_as_pinned()
    document = bill(found)
    refs = {component["bom-ref"] for component in document["components"]}
    assert {c["name"] for c in document["components"]} == {p.name for p in found}
    assert len(refs) == len(found)
    assert {ref for row in document["dependencies"] for ref in row["dependsOn"]} <= refs
    torch = next(row for row in document["dependencies"] if "/torch@" in row["ref"])
    assert any("/sympy@" in ref for ref in torch["dependsOn"])
    assert document == bill(packages())


def test_a_line_that_is_no_pin_is_named(tmp_path):
    (tmp_path / "constraints.txt").write_text("numpy==2.4.6\nscipy>=1\n")
    with pytest.raises(ConfigError, match=r"constraints.txt:2: a pin reads name==version; found scipy>=1"):
        pins(tmp_path / "constraints.txt")


def test_hashed_requirements():
    def item(name, hashes):
        return {"metadata": {"name": name, "version": "1"}, "download_info": {"archive_info": {"hashes": hashes}}}

    found = requirements({"install": [item("B", {"sha256": "b1"}), item("a", {"sha256": "a1"}), item("augengine", {})]})
    assert found == "a==1 --hash=sha256:a1\nb==1 --hash=sha256:b1\n"
    with pytest.raises(DataError, match="every package has a sha256; found c"):
        requirements({"install": [item("c", {})]})
