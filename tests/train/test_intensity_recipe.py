"""The scale that a model sees: asked for by the recipe, checked against the rows, recorded, and its own first step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import write_checkpoint, write_samples
from pydantic import ValidationError
from training_cases import (
    batch_of,
    drawn,
    objective_of,
    part_specs,
    recipe,
    samples_of,
    spec_of,
    survey_of,
    write_rows,
)

from augengine.diffusion.build import build
from augengine.diffusion.checkpoint import load_model, read_spec, save_model
from augengine.diffusion.conditioning import Conditioning
from augengine.diffusion.intensity_spec import NAMED, IntensityRecipe
from augengine.diffusion.spec import ModelSpec
from augengine.errors import CheckpointError, DataError
from augengine.io.store import Store
from augengine.records import IntensityRule
from augengine.train.config import Recipe
from augengine.train.model import model_spec
from augengine.train.rows import SplitRows, dataset_facts

LDM_SEG = IntensityRule((0.0, 99.5))
READERS = ("segmenter_nested", "acquisition_predictor", "label_segmenter", "error_corrector")


def test_published_scalings_have_names() -> None:
    """Paper 002, 2.5, and paper 003, 4.1, by a value below, at, between and above the percentiles."""
    x = torch.tensor([-0.5, 0.0, 0.25, 1.0, 3.0])
    assert NAMED["ldm_seg"].shown(x).tolist() == [-1, -1, -0.5, 1, 1]
    assert NAMED["ldm_seg"].percentiles == (0, 99.5)
    assert NAMED["dmcie"].shown(x).tolist() == [0, 0, 0.25, 1, 1]
    assert NAMED["dmcie"].percentiles == (1, 99)
    assert NAMED["cddgm"].shown(x).tolist() == x.tolist()
    assert IntensityRecipe(scale=(-1, 1)).shown(x).tolist() == [-2, -1, -0.5, 1, 5]
    assert recipe("label_segmenter", intensity="ldm_seg").intensity == NAMED["ldm_seg"]


def test_a_recipe_s_identity_follows_its_ranges_and_stays_without_any() -> None:
    plain = recipe("segmenter")
    assert "intensity" not in plain.model_dump(mode="json")
    digests = {plain.digest, *(recipe("segmenter", intensity=name).digest for name in NAMED)}
    assert len(digests) == 4
    asked = recipe("segmenter", intensity="dmcie")
    assert Recipe.model_validate(asked.model_dump(mode="json")) == asked


@pytest.mark.parametrize(
    ("case", "intensity", "message"),
    [
        ("segmenter", "minmax", "a section or one of cddgm, ldm_seg, dmcie"),
        ("segmenter", {"percentiles": (99, 1)}, "two rising numbers"),
        ("segmenter", {"scale": (1, -1)}, "two rising numbers"),
        ("segmenter", {"together": True}, "Extra inputs"),
        ("m1", "ldm_seg", "for models that draw no images; this is kind painter"),
        ("acquisition", {"clip": True}, "this is kind acquisition"),
        ("structure", {"foreground": "nonzero"}, "recolour tissue from 0 on"),
        ("label_prior", {"foreground": "nonzero"}, "label maps alone takes no section intensity"),
        ("label_autoencoder", {}, "label maps alone"),
    ],
)
def test_what_does_not_go_together_is_refused(case: str, intensity: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        recipe(case, intensity=intensity)


def test_the_description_states_what_the_model_was_trained_with() -> None:
    found = survey_of(intensity=IntensityRule((0.0, 99.5)))
    spec = model_spec(recipe("segmenter", intensity="ldm_seg"), found, {})
    assert (spec.intensity.rule, spec.intensity.scale, spec.intensity.clip) == (LDM_SEG, (-1, 1), True)
    assert ModelSpec.model_validate_json(spec.model_dump_json()) == spec
    nonzero = IntensityRule(foreground="nonzero")
    painter = model_spec(recipe("m1", intensity={"foreground": "nonzero"}), survey_of(intensity=nonzero), {})
    assert painter.intensity.rule == nonzero


def test_rows_on_another_scale_are_refused() -> None:
    with pytest.raises(DataError) as error:
        model_spec(recipe("segmenter"), survey_of(intensity=IntensityRule((0.0, 99.5), "nonzero")), {})
    assert str(error.value) == (
        "recipe segmenter takes rows with percentiles 10 and 99 of all voxels of each channel; found percentiles 0 and "
        "99.5 of nonzero voxels of each channel; ingest again with --percentiles 10,99 --foreground all, or change the "
        "recipe's section intensity"
    )
    model_spec(recipe("label_prior"), survey_of(intensity=LDM_SEG), {})  # sees no image


def test_parts_that_see_images_are_of_the_same_rows() -> None:
    asked, found = recipe("error_corrector", intensity="dmcie"), survey_of(intensity=IntensityRule((1.0, 99.0)))
    with pytest.raises(CheckpointError, match="must have rows with percentiles 1 and 99"):
        model_spec(asked, found, part_specs("error_corrector"))
    # A prior of label maps may have been trained beside any images.
    controlled = recipe("label_segmenter", intensity="ldm_seg")
    model_spec(controlled, survey_of(intensity=LDM_SEG), part_specs("label_segmenter"))


@pytest.mark.parametrize("case", READERS)
@pytest.mark.parametrize("dims", [2, 3])
def test_the_scale_is_the_network_s_own_first_step(case: str, dims: int) -> None:
    """With scale and clip, a network says of rows what one without says of rows that were scaled and clipped."""
    spec = spec_of(case, dims)
    scaled = spec.model_copy(update={"intensity": spec.intensity.model_copy(update={"scale": (-1, 1), "clip": True})})
    weights = drawn(spec, 5).state_dict()
    plain, own = build(spec), build(scaled)
    for network in (plain, own):
        network.load_state_dict(weights)
        network.eval()
    x = torch.from_numpy(batch_of(dims).images) * 1.7 - 0.2
    beforehand = x.clamp(0, 1) * 2 - 1
    with torch.no_grad():
        if spec.diffusion is None:
            found, expected, naive = own(x), plain(beforehand), plain(x)
        else:
            rest = torch.full((len(x), spec.condition_planes - 1, *x.shape[2:]), 1.5)  # initial masks are no image
            content = torch.randn(plain.encode(torch.zeros(len(x), spec.content_channels, *x.shape[2:])).shape)
            t_B = torch.zeros(len(x), dtype=torch.long)
            found, expected, naive = (
                network(content, t_B, Conditioning(torch.cat([image, rest], dim=1)))
                for network, image in ((own, x), (plain, beforehand), (plain, x))
            )
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(found, naive)


def test_training_and_pictures_run_on_the_scale_that_is_asked_for() -> None:
    batch = batch_of()
    losses = {}
    for name, intensity in (("plain", {}), ("scaled", {"scale": (-1, 1), "clip": True})):
        objective = objective_of("segmenter_nested", intensity=intensity)
        losses[name] = float(objective(batch, 1, 0)["total"].detach())
        assert len(objective.eval().pictures(batch, 1)) == 4
    assert losses["plain"] != losses["scaled"]


def test_a_model_from_before_ranges_were_per_channel_says_so(tmp_path: Path) -> None:
    """Its description has percentiles alone: several channels shared a range, and one channel's is today's."""
    for channels, together in ((("t1",), False), (("t1", "flair"), True)):
        folder = write_checkpoint(tmp_path / str(len(channels)), channels=channels)
        path = Path(folder, "model.json")
        values = json.loads(path.read_text())
        del values["intensity"], values["checksum"]
        path.write_text(json.dumps({**values, "percentiles": [10.0, 99.0]}))
        assert read_spec(folder).intensity.rule == IntensityRule(together=together)
        model = load_model(folder)
        if together:
            with pytest.raises(CheckpointError, match="give it the shards of schema version 1, or train another"):
                model.check(channels, IntensityRule())
        else:
            model.check(channels, IntensityRule())


def test_a_nested_part_from_before_is_read(tmp_path: Path) -> None:
    spec = spec_of("error_corrector")
    values = json.loads(save_model(Store(str(tmp_path)), spec, drawn(spec, 1).state_dict()).model_dump_json())
    for description in (values, *values["parts"].values()):
        del description["intensity"]
        description["percentiles"] = [10.0, 99.0]
    Path(tmp_path, "model.json").write_text(json.dumps(values))
    assert read_spec(str(tmp_path)) == spec.model_copy(
        update={"sha256": values["sha256"], "engine_version": values["engine_version"]}
    )


def test_the_rule_of_the_rows_is_part_of_the_data(tmp_path: Path) -> None:
    rows = [s.replace(intensity_rule=LDM_SEG) for s in samples_of()]
    assert dataset_facts(write_rows(tmp_path / "a", rows), SplitRows("train")).intensity == LDM_SEG
    mixed = [*rows[:2], *samples_of()[2:]]
    with pytest.raises(DataError, match="training rows must share one intensity_rule"):
        dataset_facts(write_samples(tmp_path / "b", mixed), SplitRows("train"))
