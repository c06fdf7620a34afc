"""`augengine schema`: shipped policies, recipes and protocols fit their schemas, and what readers refuse does not."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from typer.testing import CliRunner

from augengine.bundled import POLICIES, PROTOCOLS, RECIPES, names
from augengine.cli import app
from augengine.edits import EDITS
from augengine.file_schemas import SCHEMAS
from augengine.gates import MEASURES
from augengine.yaml_config import Document


def data(name: str, folder: Path | None = None) -> dict[str, Any]:
    folder = folder or (POLICIES if name in names(POLICIES) else RECIPES)
    return Document.read(folder / f"{name}.yaml").data


def fits(kind: str, values: dict[str, Any]) -> bool:
    return bool(VALIDATORS[kind].is_valid(values))


VALIDATORS = {kind: jsonschema.Draft202012Validator(make()) for kind, make in SCHEMAS.items()}


@pytest.mark.parametrize(("kind", "folder"), [("policy", POLICIES), ("recipe", RECIPES), ("protocol", PROTOCOLS)])
def test_shipped_files_fit(kind: str, folder: Any) -> None:
    jsonschema.Draft202012Validator.check_schema(VALIDATORS[kind].schema)
    wrong = {name: [e.message for e in VALIDATORS[kind].iter_errors(data(name, folder))][:2] for name in names(folder)}
    assert {name: said for name, said in wrong.items() if said} == {}


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("duke_acquisition", lambda d: d.update(gatez=[])),
        ("duke_acquisition", lambda d: d.update(edit="aquisition")),
        ("duke_acquisition", lambda d: d["params"].update(texure=0.1)),
        ("duke_acquisition", lambda d: d.update(edit="tumor_removal")),
        ("duke_acquisition", lambda d: d["gates"][0].update(name="structure")),
        ("duke_acquisition", lambda d: d["gates"][0].update(options={"nothing": 1})),
        ("duke_acquisition", lambda d: d["output"].update(per_input=0)),
        ("duke_acquisition", lambda d: d.pop("params")),
        ("brats_relocation_acquisition", lambda d: d["edits"].pop()),
        ("brats_relocation_acquisition", lambda d: d["edits"][0].update(edit="nothing")),
        ("brats_mix", lambda d: d["mix"][0].update(share=2)),
        ("cddgm_small", lambda d: d.update(stepz=3)),
        ("cddgm_small", lambda d: d["network"].update(body="nothing")),
        ("cddgm_small", lambda d: d["optimiser"].update(learning_rat=1)),
    ],
)
def test_mistakes_do_not_fit(name: str, change: Any) -> None:
    kind = "policy" if name in names(POLICIES) else "recipe"
    values = copy.deepcopy(data(name))
    assert fits(kind, values)
    change(values)
    assert not fits(kind, values)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(domain={}),
        lambda d: d.update(key="manufactuer"),
        lambda d: d["domains"].update(Philips=[]) or d["cells"][0].pop("test"),
        lambda d: d["domains"].update(weak=[{"at_least": 1}]),
        lambda d: d.update(metrics=["dise"]),
        lambda d: d.update(generator_sees="everything"),
        lambda d: d.pop("classes"),
    ],
)
def test_mistakes_of_a_protocol_do_not_fit(change: Any) -> None:
    values = copy.deepcopy(data("duke_strict", PROTOCOLS))
    assert fits("protocol", values)
    change(values)
    assert not fits("protocol", values)


def test_every_edit_and_gate_is_offered_to_an_editor() -> None:
    text = json.dumps(VALIDATORS["policy"].schema)
    for name in (*EDITS, *MEASURES):
        assert f'"const": "{name}"' in text, name


def test_the_command_prints_it_and_knows_near_names() -> None:
    result = CliRunner().invoke(app, ["schema", "policy"])
    assert json.loads(result.output) == VALIDATORS["policy"].schema
    result = CliRunner().invoke(app, ["schema", "polcy"])
    assert (result.exit_code, "did you mean 'policy'" in result.output) == (2, True)
