"""Configuration errors name the place, the value and the nearest valid name, in files and in overrides."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from augengine.errors import ConfigError
from augengine.train.config import Recipe, read_recipe
from augengine.yaml_config import Document, known_keys, unknown_name

RECIPE = """\
version: 1
name: test
kind: counterfactual
network:
  body: compact
  channels: [8, 16]
  head_channels: 8
  norm_groups: 4
diffusion: {parametrisation: x0, schedule: cosine}
data:
  lesion: [core]
optimiser: {batch_size: 4, learning_rate: 1.0e-3}
steps: 10
"""
DIT = """network:
  body: dit
  size:
    layers: 1
    heads: 1
diffusion"""


def read(tmp_path: Path, text: str, *overrides: str) -> Recipe:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return read_recipe(str(path), overrides)


def refused(tmp_path: Path, text: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text, *overrides)
    message = str(caught.value).removeprefix(f"{tmp_path}/")
    assert "\n" not in message
    assert len(message) < 250
    return message


def with_dit(text: str = DIT) -> str:
    return RECIPE[: RECIPE.index("network")] + text + RECIPE[RECIPE.index("diffusion") + len("diffusion") :]


@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        ("  channels:", "  channelz:", 6, "unknown key 'channelz'; did you mean 'channels'"),
        ("body: compact", "body: compcat", 5, "'compcat'; did you mean 'compact'"),
        ("  body: compact\n", "", 4, "'network.body' is required"),
        ("  head_channels: 8\n", "", 4, "'network.head_channels' is required"),
        ("channels: [8, 16]", "channels: [8, x]", 6, "'network.channels.1': input should be a valid integer"),
        ("channels: [8, 16]", "channels: [6, 16]", 4, "network: every entry of channels must be a multiple"),
        ("kind: counterfactual", "kind: painter\nloss: {lesion_weigth: 1}", 4, "did you mean 'lesion_weight'"),
        ("  lesion: [core]", "  fold: [0, 2]", 1, "kind counterfactual needs data.lesion"),
        ("steps: 10", "stepz: 10", 13, "unknown key 'stepz'; did you mean 'steps'"),
    ],
)
def test_a_mistake_in_the_file_names_its_line(tmp_path: Path, old: str, new: str, line: int, says: str) -> None:
    read(tmp_path, RECIPE)
    assert old in RECIPE
    message = refused(tmp_path, RECIPE.replace(old, new, 1))
    assert message.startswith(f"recipe.yaml:{line}: ")
    assert says in message


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("    layers:", "    layerz:", "recipe.yaml:7: unknown key 'layerz'; did you mean 'layers'"),
        ("layers: 1", "layers: 0", "recipe.yaml:7: 'network.size.layers': input should be greater than"),
        ("  size:\n    layers: 1\n    heads: 1", "  size: S/3", "recipe.yaml:6: 'network.size': input should be 'S/2'"),
        ("  size:", "  channels:", "recipe.yaml:6: unknown key 'channels'; valid: body, size"),  # a UNet's, not a DiT's
    ],
)
def test_a_choice_between_kinds_of_value_is_explained_by_the_one_that_was_meant(
    tmp_path: Path, old: str, new: str, says: str
) -> None:
    read(tmp_path, with_dit())
    assert says in refused(tmp_path, with_dit(DIT.replace(old, new)))


def test_overrides_change_values_sections_and_parts(tmp_path: Path) -> None:
    found = read(tmp_path, RECIPE, "steps=7", "network.channels=[8, 8]", "loss.lesion_weight=2.5", "data.fold=[1,3]")
    assert (found.steps, found.network.channels, found.loss.lesion_weight) == (7, (8, 8), 2.5)  # type: ignore[union-attr]
    assert found.data.fold == (1, 3)
    assert found.data.lesion == ("core",)
    assert read(tmp_path, RECIPE, "network={body: dit, size: B/2}").network.body == "dit"


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("steps", "an override is path.to.key=value; found steps"),
        ("steps.more=1", "an override is path.to.key=value; found steps.more=1"),
        ("network.channels.0=4", "an override is path.to.key=value"),
        ("steps=many", "override steps=many: 'steps': input should be a valid integer"),
        ("steps=", "override steps=: 'steps': input should be a valid integer"),
        ("steps=[1", "override steps:1: this is not valid YAML"),
        ("stepz=1", "unknown key 'stepz'; did you mean 'steps'"),
        ("network.channelz=[8]", "override network.channelz=[8]: unknown key 'channelz'; did you mean 'channels'"),
        ("optimiser={batch_sise: 4}", "override optimiser={batch_sise: 4}: unknown key 'batch_sise'"),
        ("netwrok.width=3", "override netwrok.width=3: unknown key 'netwrok'; did you mean 'network'"),
        ("hardware.compiel=true", "override hardware.compiel=true: unknown key 'compiel'"),
        ("data.fold=[2, 2]", "fold is [k, n] with k from 0 to n - 1"),
    ],
)
def test_a_mistake_in_an_override_names_the_override_and_not_a_line(tmp_path: Path, override: str, says: str) -> None:
    message = refused(tmp_path, RECIPE, override)
    assert says in message


def test_an_overridden_section_forgets_the_lines_of_the_one_it_replaced() -> None:
    document = Document(RECIPE, "recipe.yaml")
    document.override("network={body: dit}")
    assert document.where(["network", "channels"]) == "override network={body: dit}"
    assert document.where(["optimiser", "batch_size"]) == "recipe.yaml:12"


def test_keys_of_a_section_of_several_kinds() -> None:
    assert known_keys(Recipe, ("network", "dit")) == ["body", "size"]
    assert "encoder_channels" in known_keys(Recipe, ("network", "control"))
    assert "channels" not in known_keys(Recipe, ("network", "control"))
    assert known_keys(Recipe, ("data", "regions")) == []


def test_an_unknown_name_lists_the_valid_ones_where_none_is_near() -> None:
    assert "valid: oak, pine" in str(unknown_name("tree", "xyz", ["pine", "oak"], "here"))
    assert "valid: none" in str(unknown_name("tree", "xyz", [], "here"))


def test_lists_of_a_section_that_may_be_a_name_are_read(tmp_path: Path) -> None:
    found = read(tmp_path, RECIPE + "intensity: {percentiles: [1, 99]}\n")
    assert found.intensity is not None
    assert found.intensity.percentiles == (1.0, 99.0)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("steps: '10'", "should be a valid integer; found '10'"),
        ("version: true", "a version is a number; found True"),
        ("steps: true", "should be a valid integer; found True"),
        ("steps: 1:30", "a number is written in decimal"),
        ("steps: 010", "a number is written in decimal"),
        ("seed: .inf", "a number is written in decimal"),
        ("<<: {seed: 1}", "no merge keys"),
        ("seed: !!binary aGk=", "without YAML tags; found !!binary"),
        ("seed: !!timestamp x", "without YAML tags; found !!timestamp"),
        ("? [a]\n: 1", "a key is a text; found a list or mapping"),
        ('name: "a\\u0007b"', "no control characters; found character 0x0007"),
        ("seed: &a [*a]", "nests at most 40 deep"),
        ("seed: " + "[" * 60, "nests at most 40 deep"),
        (
            "diffusion: {parametrisation: x0, schedule: cosine, timesteps: 1099511627776}",
            "less than or equal to 100000",
        ),
        ("warp: {flip_axes: [0], scale: 1.0e+300}", "'warp.scale'"),
    ],
)
def test_what_yaml_knows_and_a_configuration_does_not(tmp_path: Path, text: str, says: str) -> None:
    key = text.split(":")[0]
    kept = "\n".join(line for line in RECIPE.splitlines() if not line.startswith(f"{key}:"))
    message = refused(tmp_path, f"{kept}\n{text}\n")
    assert says in message
    assert re.match(r"recipe\.yaml:\d+: ", message)


def test_anchors_are_taken_and_bombs_of_them_are_not(tmp_path: Path) -> None:
    read(tmp_path, RECIPE.replace("channels: [8, 16]", "channels: &c [8, 16]"))
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
    bomb += "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9))
    assert "at most 20000 values" in refused(tmp_path, RECIPE + bomb)
    assert "at most 100 aliases" in refused(tmp_path, RECIPE + f"a: &a x\nb: [{', '.join(['*a'] * 101)}]\n")
    assert read(tmp_path, RECIPE.replace("1.0e-3", "1e-3")).optimiser.learning_rate == 1e-3


@pytest.mark.parametrize(
    ("overrides", "found"),
    [
        (("steps=1", "steps=2"), "steps twice"),
        (("steps=1", " steps =1"), "steps twice"),
        (("network.width=8", "network={}"), "network.width, and then network"),
    ],
)
def test_an_override_that_another_one_would_undo_is_refused(overrides: tuple[str, ...], found: str) -> None:
    document = Document(RECIPE, "recipe.yaml")
    document.override(overrides[0])
    with pytest.raises(ConfigError, match="set a key once, and a section before its keys") as error:
        document.override(overrides[1])
    assert f"found {found}" in str(error.value)
    assert overrides[1] in str(error.value)


def test_a_section_and_then_its_keys_are_set_in_order() -> None:
    document = Document(RECIPE, "recipe.yaml")
    for override in ("network={body: dit}", "network.size=S", "network.patch=2"):
        document.override(override)
    assert document.data["network"] == {"body": "dit", "size": "S", "patch": 2}
