"""Every kind of model in 2D and 3D: it learns, repeats itself bit for bit, and comes back from its checkpoint."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from training_cases import CASES, CASES_3D, SUBJECTS, batch_of, objective_of, recipe

from augengine.diffusion.autoencoding_loss import soft_dice_loss
from augengine.diffusion.checkpoint import load_model, save_model, subject_hash
from augengine.diffusion.schedules import loss_weight
from augengine.io.store import Store
from augengine.records import Acquisition
from augengine.report.image_grid import image_grid
from augengine.train.objectives import objective
from augengine.train.objectives.base import Objective
from augengine.train.objectives.examples import example, lesion_mask, out_of_fold, regions

EVERY = [(case, 2) for case in CASES] + [(case, 3) for case in CASES_3D]
# Softmax over keys that all have the same bias, or over a single class token, does not depend on these.
CANNOT_MATTER = ("to_q", "to_k", "in_proj_bias", "q_proj_weight", "k_proj_weight")
WILD_WARP = {"rotation_deg": 90, "scale": 0.5, "shift": 0.3, "flip": True}


def steps(trained: Objective, count: int) -> tuple[list[dict[str, float]], set[str]]:
    """Losses before each of `count` steps on one batch with the same random numbers, and which parameters learnt."""
    batch = batch_of(trained.spec.spatial_dims)
    moving = {name: p for name, p in trained.named_parameters() if p.requires_grad}
    optimiser = torch.optim.Adam(moving.values(), lr=4e-3)
    found, learnt = [], set()
    for _ in range(count):
        losses = trained(batch, 5, 0)
        optimiser.zero_grad()
        losses["total"].backward()
        optimiser.step()
        found.append({name: float(loss.detach()) for name, loss in losses.items()})
        learnt |= {name for name, p in moving.items() if p.grad is not None and p.grad.any()}
    return found, learnt


def total(trained: Objective, seed: int = 5) -> float:
    with torch.no_grad():
        return float(trained(batch_of(trained.spec.spatial_dims), seed, 0)["total"])


@pytest.mark.parametrize(("case", "dims"), EVERY)
def test_it_learns_and_frozen_parts_stay(case: str, dims: int) -> None:
    trained = objective_of(case, dims, condition_dropout=0.5)
    frozen = {name: p.clone() for name, p in trained.named_parameters() if not p.requires_grad}
    assert bool(frozen) == bool(trained.spec.parts)
    moving = {name: p for name, p in trained.named_parameters() if p.requires_grad}
    losses, learnt = steps(trained, 16)
    term = "reconstruction" if case.endswith("autoencoder") else "total"
    assert np.mean([step[term] for step in losses[-3:]]) < 0.8 * losses[0][term]
    # A parameter without a gradient would leave the other workers waiting.
    assert [n for n, p in moving.items() if p.grad is None] == []
    assert [n for n in moving.keys() - learnt if not any(part in n for part in CANNOT_MATTER)] == []
    for key, value in frozen.items():
        assert torch.equal(trained.get_parameter(key), value)
    for part in getattr(trained.network, "parts", nn.ModuleDict()).values():
        assert not part.training


@pytest.mark.parametrize(("case", "dims"), EVERY)
def test_it_repeats_itself_draws_pictures_and_survives_a_checkpoint(case: str, dims: int, tmp_path: Path) -> None:
    trained = objective_of(case, dims)
    steps(trained, 2)  # so that no layer is at its zero start
    if trained.spec.diffusion is not None or case.endswith("autoencoder"):
        first = total(trained)
        assert total(trained) == first != total(trained, seed=6)
    trained.eval()
    spec = save_model(Store(tmp_path), trained.spec, trained.network.state_dict())
    loaded = load_model(str(tmp_path))
    assert loaded.spec == spec
    if case.endswith("autoencoder"):
        x = torch.zeros(2, spec.content_channels, *spec.image_size)
        torch.testing.assert_close(loaded.network(x)[0], trained.network(x)[0])
    else:
        again = objective(trained.recipe, loaded.spec, loaded.network).eval()
        assert total(again) == pytest.approx(total(trained), rel=1e-6)  # alignment of the weights' memory

    rows = trained.pictures(batch_of(dims), 3)
    assert len(rows) == 4
    assert all(np.isfinite(image).all() and image.shape[1:] == spec.image_size for _, row in rows for image in row)
    assert image_grid(rows[:1]).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("case", "off", "on"),
    [
        ("acquisition", {"condition_dropout": 0.0}, {"condition_dropout": 0.99}),
        ("counterfactual", {"condition_dropout": 0.0}, {"condition_dropout": 0.99}),
        ("structure", {"structure": {"dropout": 0, "mask_dropout": 0}}, {"structure": {"dropout": 1}}),
        (
            "structure",
            {"structure": {"dropout": 0, "mask_dropout": 0}},
            {"structure": {"dropout": 0, "mask_dropout": 1}},
        ),
        (
            "m3",
            {"mask": {"ablation": "unknown", "probability": 0}},
            {"mask": {"ablation": "unknown", "probability": 1}},
        ),
        (
            "m3_paper",
            {"mask": {"ablation": "paper", "probability": 0}},
            {"mask": {"ablation": "paper", "probability": 1}},
        ),
        ("m1", {"warp": None}, {"warp": WILD_WARP}),
        ("autoencoder", {"warp": None}, {"warp": WILD_WARP}),
        ("segmenter", {"warp": None}, {"warp": WILD_WARP}),
        ("acquisition_predictor", {"warp": None}, {"warp": WILD_WARP}),
    ],
)
def test_evaluation_drops_ablates_and_warps_nothing(case: str, off: dict[str, Any], on: dict[str, Any]) -> None:
    plain, wild = objective_of(case, **off), objective_of(case, **on)
    steps(plain, 2)
    wild.load_state_dict(plain.state_dict())
    assert total(plain) != total(wild)
    assert total(plain.eval()) == total(wild.eval())


class Constant(nn.Module):
    """A denoiser that is off by `error` (*) everywhere."""

    def __init__(self, truth: Tensor, error: Tensor) -> None:
        super().__init__()
        self.truth, self.error = truth, nn.Parameter(error)

    def encode(self, content: Tensor) -> Tensor:
        return content

    def forward(self, x_t: Tensor, *_: object) -> Tensor:
        return self.truth + self.error


def test_lesion_pixels_weigh_one_plus_w_in_a_closed_form() -> None:
    weight, batch = 3.0, batch_of()
    trained = objective_of("counterfactual", loss={"lesion_weight": weight}).eval()
    truth, lesion = torch.from_numpy(batch.images), lesion_mask(trained, torch.from_numpy(batch.tissue))
    error = torch.where(lesion[:, None], 0.5, 0.2)
    trained.network = Constant(truth, error)
    share = lesion.float().flatten(1).mean(1)
    expected = ((1 + weight) * share * 0.5**2 + (1 - share) * 0.2**2) / ((1 + weight) * share + 1 - share)
    assert total(trained) == pytest.approx(float(expected.mean()), rel=1e-5)


def test_min_snr_weighs_each_row_by_its_timestep() -> None:
    trained = objective_of("counterfactual", loss={"weighting": "min_snr", "min_snr_gamma": 0.7}).eval()
    trained.network = Constant(torch.from_numpy(batch_of().images), torch.full((4, 1, 16, 16), 0.3))
    generator = torch.Generator().manual_seed(5)
    t_B = torch.randint(0, 1000, (4,), generator=generator)
    weight_B = loss_weight(trained.spec.diffusion, trained.schedule, t_B, "min_snr", 0.7)
    assert len(set(weight_B.tolist())) > 1
    assert total(trained) == pytest.approx(float((0.09 * weight_B).mean()), rel=1e-5)


def test_a_row_is_corrected_from_a_segmenter_that_did_not_see_its_subject() -> None:
    trained = objective_of("error_corrector").eval()
    batch = batch_of()
    images = torch.from_numpy(batch.images)
    for n, subject in enumerate(SUBJECTS):
        unseen = [role for role, part in trained.spec.parts.items() if subject_hash(subject) not in part.subject_hashes]
        assert unseen == [f"fold_{1 - n % 2}"]
        logits = trained.network.parts[unseen[0]](images[n : n + 1])
        found = out_of_fold(trained, images, batch.subjects)[n]
        torch.testing.assert_close(found, logits[0].sigmoid())  # nested regions: one sigmoid each
    assert torch.equal(out_of_fold(trained, images, ["new"] * 4), out_of_fold(trained, images, ["S1"] * 4))


def test_initial_mask_less_error_is_the_truth() -> None:
    trained, batch = objective_of("error_corrector").eval(), batch_of()
    shown = example(trained, batch, torch.Generator())
    assert torch.equal(shown.conditioning.planes[:, :1], torch.from_numpy(batch.images))
    truth = regions(trained, torch.from_numpy(batch.tissue)).float()
    assert truth[:3].flatten(2).any(2).all()
    torch.testing.assert_close(shown.conditioning.planes[:, 1:] - shown.content, truth)


def test_classes_follow_the_lesion_and_zero_is_for_none() -> None:
    shown = example(objective_of("counterfactual"), batch_of(), torch.Generator())
    assert shown.conditioning.classes.tolist() == [2, 2, 2, 1]


def test_an_unstated_parameter_costs_nothing_even_if_no_row_states_it() -> None:
    trained = objective_of("acquisition_predictor").eval()
    silent = [Acquisition(echo_time_ms=2.0)] * 4
    with torch.no_grad():
        losses = trained(replace(batch_of(), acquisitions=silent), 0, 0)
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert float(losses["total"]) == float(losses["echo_time_ms"]) > 0
    assert float(losses["model"]) == 0


def test_a_rare_class_weighs_as_much_as_a_common_one() -> None:
    trained, batch = objective_of("acquisition_predictor").eval(), batch_of()
    trained.network = nn.Sequential(nn.Flatten(), nn.Linear(256, trained.spec.outputs))
    nn.init.zeros_(trained.network[1].weight)
    rare = [batch.acquisitions[n] for n in (0, 0, 0, 1)]
    vocabulary = trained.spec.vocabulary
    column = vocabulary.categories["manufacturer"].index("SIEMENS")
    losses = []
    for logit in (-2.0, 2.0):
        nn.init.zeros_(trained.network[1].bias)
        trained.network[1].bias.data[column] = logit
        losses.append(float(trained(replace(batch, acquisitions=rare), 0, 0)["manufacturer"].detach()))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)  # unweighted, leaning to the rare class costs more


def test_latents_have_unit_spread_after_the_last_step() -> None:
    trained = objective_of("autoencoder").eval()
    trained.finish([batch_of()])
    x = torch.from_numpy(batch_of().images)
    with torch.no_grad():
        mean, log_variance = trained.network.encode(x)
    spread = float((mean.var(unbiased=False) + log_variance.exp().mean()).sqrt())
    assert float(trained.network.scale) == pytest.approx(1 / spread, rel=1e-4)


def test_soft_dice_is_the_overlap_over_all_rows() -> None:
    truth = torch.zeros(2, 2, 10, 10)
    truth[0, 0], truth[0, 1, :5] = 1, 1  # the second row holds neither region
    assert float(soft_dice_loss(truth, truth)) == pytest.approx(0)
    found = torch.zeros_like(truth)
    found[0, 0], found[0, 1, 5:] = 0.5, 1
    expected = [(2 * 50 + 1) / (50 + 100 + 1), (0 + 1) / (50 + 50 + 1)]
    assert float(soft_dice_loss(found, truth)) == pytest.approx(1 - sum(expected) / 2)


@pytest.mark.parametrize("case", ["segmenter", "segmenter_nested"])
def test_the_right_logits_cost_a_segmenter_nothing_and_the_wrong_ones_much(case: str) -> None:
    trained, batch = objective_of(case).eval(), batch_of()
    truth = regions(trained, torch.from_numpy(batch.tissue))
    logits = torch.cat([~truth.any(1, keepdim=True), truth], dim=1) if trained.spec.exclusive else truth
    for sign, low, high in ((1, 0, 1e-3), (-1, 5, 100)):
        trained.network = Constant(sign * (logits * 40.0 - 20), torch.zeros(()))
        assert low <= total(trained) <= high


def test_recipes_of_the_cases_have_an_identity() -> None:
    assert len({recipe(case).digest for case in CASES}) == len(CASES)
