"""Mask-ablated training: what a painter is not shown, and which pixels it learns from."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from training_cases import LABELS, batch_of, objective_of, recipe, spec_of

from augengine.errors import ConfigError
from augengine.train.data import Batch
from augengine.train.objectives.ablation import ablate, blobs, holes
from augengine.train.objectives.base import Objective
from augengine.train.objectives.examples import Example, example, lesion_mask
from augengine.train.sections import MaskRecipe

LESION_PLANES, GREY = [0, 2], 1  # of labels core, grey, rim
ALWAYS = {"ablation": "unknown", "probability": 1.0}


def painter(case: str = "m3", **changes: object) -> Objective:
    return objective_of(case, **{"loss": {}, **changes})


def shown(trained: Objective, batch: Batch | None = None, seed: int = 0) -> Example:
    return example(trained, batch or batch_of(), torch.Generator().manual_seed(seed))


def lesion_of(trained: Objective) -> Tensor:
    return lesion_mask(trained, torch.from_numpy(batch_of().tissue))


def painted(batch: Batch, where: Tensor, value: float) -> Batch:
    """The batch with `value` added to the image where (B, *) says so; tissue stays."""
    return replace(batch, images=batch.images + value * where[:, None].numpy().astype(np.float32))


def test_paper_hides_the_lesions_label_and_still_learns_from_its_pixels() -> None:
    trained = painter("m3_paper", mask={"ablation": "paper", "probability": 1.0})
    found, plain = shown(trained), shown(trained.eval())
    assert found.conditioning.planes.shape[1] == len(LABELS)
    assert plain.conditioning.planes[:3, LESION_PLANES].flatten(2).any(2).all()
    assert not found.conditioning.planes[:, LESION_PLANES].any()
    assert torch.equal(found.conditioning.planes[:, GREY], plain.conditioning.planes[:, GREY])
    assert found.weight is None
    assert torch.equal(found.content, torch.from_numpy(batch_of().images))
    assert costs(trained.train(), lesion_of(trained)) != costs(trained, torch.zeros_like(lesion_of(trained)))


def test_unknown_marks_lesion_and_hole_and_drops_the_lesions_pixels_only() -> None:
    trained = painter(mask=ALWAYS)
    lesion = lesion_of(trained)
    found = shown(trained)
    planes, unknown = found.conditioning.planes[:, :-1], found.conditioning.planes[:, -1].bool()
    assert planes.shape[1] == len(LABELS)
    assert (lesion <= unknown).all()
    assert (unknown & ~lesion).flatten(1).any(1).all(), "every row hides some healthy tissue"
    assert not planes.movedim(1, -1)[unknown].any(), "what is unknown has no label"
    labelled = torch.from_numpy(batch_of().tissue) > 0
    assert torch.equal(planes.any(1), labelled & ~unknown)
    assert torch.equal(found.weight[:, 0] == 0, lesion)
    assert set(found.weight.unique().tolist()) == {0.0, 1.0}


def costs(trained: Objective, where: Tensor) -> float:
    """Loss after the target changed at `where`; the untrained network's last layer is zero, whatever it sees."""
    with torch.no_grad():
        return float(trained(painted(batch_of(), where, 2.0), 5, 0)["total"])


def test_the_loss_does_not_see_the_lesion_but_sees_holes_and_the_rest() -> None:
    trained = painter(mask=ALWAYS)
    lesion = lesion_of(trained)
    unknown = shown(trained, seed=5).conditioning.planes[:, -1].bool()
    hole, rest = unknown & ~lesion, ~unknown & ~lesion
    plain = costs(trained, torch.zeros_like(lesion))
    assert costs(trained, lesion) == plain
    assert costs(trained, hole) > plain
    assert costs(trained, rest) > plain
    assert costs(painter(mask={**ALWAYS, "probability": 0.0}), lesion) > plain


def test_a_weight_on_the_lesion_goes_where_it_is_not_ablated() -> None:
    found = shown(painter(mask=ALWAYS, loss={"lesion_weight": 2.0}))
    lesion = lesion_of(painter())
    assert not found.weight[:, 0][lesion].any()
    assert (found.weight[:, 0][~lesion] == 1).all()
    found = shown(painter(mask={**ALWAYS, "probability": 0.0}, loss={"lesion_weight": 2.0}))
    assert torch.equal(found.weight[:, 0], 1 + 2 * lesion.float())


@pytest.mark.parametrize("ablation", ["paper", "unknown"])
@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_the_share_of_ablated_rows_is_the_probability(ablation: str, probability: float) -> None:
    lesion = torch.zeros(2000, 8, 8, dtype=torch.bool)
    lesion[:, 2:4, 2:4] = True
    recipe = MaskRecipe(ablation=ablation, probability=probability)  # type: ignore[arg-type]
    found = ablate(
        lesion.to(torch.int8), lesion, torch.ones_like(lesion), LABELS, recipe, torch.Generator().manual_seed(0)
    )
    hidden, unknown = found.hidden, found.unknown
    rows = hidden.flatten(1).any(1)
    assert float(rows.float().mean()) == pytest.approx(probability, abs=0.04)
    assert torch.equal(hidden & lesion, lesion & rows[:, None, None]), "all of a lesion or nothing"
    assert torch.equal(unknown, hidden if ablation == "unknown" else torch.zeros_like(hidden))


def test_the_image_around_the_hole_is_shown_whatever_its_labels() -> None:
    mask = {**ALWAYS, "surroundings": True}
    found, lesion = shown(painter(mask=mask)), lesion_of(painter())
    planes, image = found.conditioning.planes, torch.from_numpy(batch_of().images)
    unknown, clean, around = planes[:, [3]].bool(), planes[:, [4]], planes[:, [5]].bool()
    assert torch.equal(around, ~unknown)
    assert torch.equal(clean, image * ~unknown)
    assert torch.equal(found.weight[:, 0] == 0, lesion)

    several = [shown(painter(mask={**mask, "probability": 0.0}), seed=n) for n in range(40)]
    planes = torch.stack([e.conditioning.planes for e in several])
    assert not planes[:, :, 3].any()
    around, named = planes[:, :, 5].bool(), torch.from_numpy(batch_of().tissue > 0)
    nothing = ~around.flatten(2).any(2)
    unnamed = (around == ~named).flatten(2).all(2)
    assert 0.15 < float(nothing.float().mean()) < 0.35
    assert 0.15 < float(unnamed.float().mean()) < 0.35
    assert (around & named).flatten(2).any(2)[~nothing & ~unnamed].all(), "the rest shows tissue"
    assert not (around & lesion).any(), "a lesion is never handed to its painter"
    assert torch.equal(planes[:, :, 4], image[:, 0] * planes[:, :, 5])
    labels = shown(painter().eval()).conditioning.planes[:, :3]
    assert all(torch.equal(e.conditioning.planes[:, :3], labels) for e in several), "the labels stay"
    assert all(e.weight is None for e in several)


def test_neighbouring_slices_come_before_what_surrounds_the_hole_as_in_sampling() -> None:
    batch = batch_of()
    batch = replace(batch, context=np.concatenate([batch.images + 1, batch.images + 2], axis=1))
    trained = painter(mask={**ALWAYS, "surroundings": True}, data={"context": [-1, 1], "lesion": ["core", "rim"]})
    planes = shown(trained, batch).conditioning.planes
    assert torch.equal(planes[:, 4:6], torch.from_numpy(batch.context))
    around = planes[:, [7]]
    assert torch.equal(planes[:, [6]], torch.from_numpy(batch.images) * around)
    assert torch.equal(around, 1 - planes[:, [3]])


@pytest.mark.parametrize("option", [{"surroundings": True}, {"margin": 1}, {"hosts": {"rim": ("grey",)}}])
def test_a_paper_s_ablation_knows_no_region(option: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="set ablation unknown"):
        MaskRecipe(ablation="paper", **option)


def test_evaluation_shows_the_whole_map() -> None:
    trained = painter(mask=ALWAYS).eval()
    planes = shown(trained).conditioning.planes
    assert not planes[:, -1].any()
    tissue = torch.from_numpy(batch_of().tissue)
    assert torch.equal(planes[:, :-1], torch.stack([tissue == n for n in (1, 2, 3)], dim=1).float())
    assert shown(trained).weight is None


def test_healthy_tissue_is_hidden_where_another_row_has_its_lesion() -> None:
    lesion = torch.zeros(4, 16, 16, dtype=torch.bool)
    lesion[0, 2:5, 3:6] = lesion[1, 8:12, 8:12] = True
    lesion[3, 9:11, 9:11] = True  # inside the lesion of row 1
    found = borrowed(lesion)
    assert torch.equal(found[0], lesion[1])
    assert torch.equal(found[2], lesion[3])
    assert torch.equal(found[3], lesion[0])
    assert found[1].any(), "the next lesion lies within the row's own"
    assert borrowed(lesion[2:3]).any(), "no row has a lesion"
    one = borrowed(lesion[:1])
    assert (one & ~lesion[:1]).any(), "a row's own lesion teaches nothing"
    among = borrowed(lesion[[3, 1]])
    assert torch.equal(among[0], lesion[1] & ~lesion[3])
    assert not torch.equal(among[1], lesion[3]), "a lesion within the row's own leaves nothing healthy"


def borrowed(lesion: Tensor, tissue: Tensor | None = None, body: Tensor | None = None, **changes: object) -> Tensor:
    recipe = MaskRecipe.model_validate({"ablation": "unknown", "blob": (0.1, 0.2), **changes})
    tissue = lesion.to(torch.int8) if tissue is None else tissue
    body = torch.ones_like(lesion) if body is None else body
    return holes(tissue, lesion, body, LABELS, recipe, torch.Generator().manual_seed(0))


def test_a_part_that_grows_in_some_tissue_only_is_borrowed_where_the_row_has_it() -> None:
    core, grey, rim = 1, 2, 3
    tissue = torch.zeros(2, 16, 16, dtype=torch.int8)
    tissue[0, 2:10, 2:10], tissue[0, 5:7, 5:7] = rim, core
    tissue[1, :, :6] = grey
    found = borrowed(torch.isin(tissue, torch.tensor([core, rim])), tissue, hosts={"rim": ["grey"]})
    expected = tissue[0] == core
    expected[2:10, 2:6] = True
    assert torch.equal(found[1], expected), "the core lies anywhere, the rim in grey matter"


def test_a_lesion_that_finds_no_host_in_its_place_is_moved_onto_some() -> None:
    grey, rim = 2, 3
    tissue = torch.zeros(2, 16, 16, dtype=torch.int8)
    tissue[0, 2:5, 2:5] = rim
    tissue[1, 8:15, 8:15] = grey
    found = borrowed(tissue == rim, tissue, hosts={"rim": ["grey"]})[1]
    assert found.any()
    assert (found <= (tissue[1] == grey)).all()
    rows, columns = (found.any(axis).sum() for axis in (1, 0))
    assert (rows, columns) <= (3, 3), "in its own size"


def test_no_hole_lies_in_air() -> None:
    """Half of the field of view is air; the lesion is lent to it, and the row without any gets an ellipsoid."""
    lesion = torch.zeros(3, 16, 16, dtype=torch.bool)
    lesion[0, 2:6, 2:6] = True
    body = torch.zeros_like(lesion)
    body[:, :, 8:] = True
    for found in (borrowed(lesion, body=body), borrowed(lesion[1:], body=body[1:])):
        assert found.any()
        assert not found[..., :8].any()


def test_the_loss_does_not_see_the_soft_border_of_the_rows_own_lesion() -> None:
    trained = painter(mask={**ALWAYS, "margin": 2})
    found, lesion = shown(trained, seed=5), lesion_of(trained)
    unknown, dropped = found.conditioning.planes[:, -1].bool(), found.weight[:, 0] == 0
    assert (lesion <= dropped).all()
    assert (dropped <= unknown).all()
    assert (dropped & ~lesion).any()
    assert costs(trained, dropped) == costs(trained, torch.zeros_like(lesion))


def test_hosts_are_healthy_tissue_of_lesions_that_the_recipe_names() -> None:
    with pytest.raises(ValueError, match=r"names labels of data\.lesion"):
        recipe("m3", mask={"ablation": "unknown", "hosts": {"grey": ["grey"]}})
    with pytest.raises(ValueError, match="a lesion is no host of another"):
        recipe("m3", mask={"ablation": "unknown", "hosts": {"rim": ["core"]}})
    with pytest.raises(ConfigError, match="unknown label 'gray'; did you mean 'grey'"):
        spec_of("m3", mask={"ablation": "unknown", "hosts": {"rim": ["gray"]}})


def test_the_region_grows_by_up_to_the_margin_and_by_half_of_it_on_average() -> None:
    lesion = torch.zeros(400, 24, 24, dtype=torch.bool)
    lesion[::2, 10:14, 10:14] = lesion[1::2, 2:4, 2:4] = True  # each row borrows the other place
    recipe = MaskRecipe(ablation="unknown", probability=1.0, margin=3)
    found = ablate(
        lesion.to(torch.int8), lesion, torch.ones_like(lesion), LABELS, recipe, torch.Generator().manual_seed(0)
    )
    grown = found.unknown[:, 7:17, 12].sum(1)
    assert set(grown.tolist()) == {4, 6, 8, 10}
    assert float(grown.float().mean()) == pytest.approx(4 + 3, abs=0.3)
    soft = torch.zeros_like(lesion)
    soft[::2, 7:17, 7:17] = soft[1::2, :7, :7] = True
    assert torch.equal(found.untaught, found.unknown & soft), "the soft border of a row's own lesion teaches nothing"
    assert (found.unknown & ~soft).flatten(1).any(1).all()


@pytest.mark.parametrize("size", [(40, 40), (40, 20), (16, 16, 24)])
def test_blobs_have_the_stated_radii_and_differ_between_rows(size: tuple[int, ...]) -> None:
    found = blobs(torch.zeros(300, *size, dtype=torch.bool), (0.1, 0.2), torch.Generator().manual_seed(1))
    assert found.dtype == torch.bool
    for axis, length in enumerate(size):
        others = [a for a in range(1, len(size) + 1) if a != axis + 1]
        extents = found.amax(others).sum(1) / length  # diameters, as shares of the field of view
        assert extents.min() > 0.2 - 2 / length - 1e-6
        assert extents.max() <= 0.4 + 1 / length
    assert len({row.numpy().tobytes() for row in found}) > 290
    middle = found.float().mean(0)
    assert middle[tuple(n // 2 for n in size)] > 3 * middle[(0,) * len(size)]


def test_every_other_kind_of_painter_sees_what_its_name_says() -> None:
    assert shown(painter("m1")).conditioning.planes is None
    assert torch.equal(shown(painter("m2")).conditioning.planes, shown(painter("m2").eval()).conditioning.planes)
