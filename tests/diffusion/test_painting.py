"""Painting with every kind of generator of anatomy: untouched outside the prompt, repeatable, and under control."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from training_cases import batch_of, spec_of

from augengine.diffusion.checkpoint import Generator, untrained
from augengine.diffusion.conditioning import Conditioning
from augengine.diffusion.denoisers import GenerativeNetwork
from augengine.diffusion.guidance import Guidance
from augengine.diffusion.painting import Sampling, counterfactual, generate, healthy, paint, unhealthy
from augengine.diffusion.promptable import Prompting
from augengine.diffusion.volume_noise import VolumeNoise
from augengine.errors import CheckpointError, ConfigError

CASES = [
    ("m1", 2),
    ("m2", 2),
    ("m3", 2),
    ("m3_surroundings", 2),
    ("counterfactual", 2),
    ("counterfactual_dit", 2),
    ("m3", 3),
    ("m3_surroundings", 3),
    ("counterfactual", 3),
]
SEEDS = [11, 12, 13, 14]
QUICK = Sampling(steps=4)


def case_of(case: str, dims: int = 2) -> tuple[Generator, Tensor, Tensor, Tensor]:
    """An untrained generator, images, tissue maps, and prompts that differ between rows."""
    batch = batch_of(dims)
    edit = torch.zeros(4, 1, *batch.tissue.shape[1:], dtype=torch.bool)
    for n in range(4):
        edit[(n, 0, *[slice(2 + n, 6 + n // 2)] * dims)] = True
    images = torch.from_numpy(batch.images)
    images[:, :, 0] = -0.0
    return untrained(spec_of(case, dims), seed=1), images, torch.from_numpy(batch.tissue), edit


def bits(x: Tensor) -> Tensor:
    return x.contiguous().view(torch.int32)


@pytest.mark.parametrize(("case", "dims"), CASES)
@pytest.mark.parametrize(
    "sampling",
    [
        QUICK,
        replace(QUICK, solver="ddim", strength=0.5, guidance=Guidance(3.0)),
        replace(QUICK, prompting=Prompting("repaint", 1, 2)),
    ],
    ids=["ddpm", "partial", "repaint"],
)
def test_no_bit_changes_outside_the_prompt_and_the_same_seeds_give_the_same_bytes(
    case: str, dims: int, sampling: Sampling
) -> None:
    generator, x, tissue, edit = case_of(case, dims)
    wanted = healthy(generator, tissue, edit)
    out = paint(generator, x, edit, wanted, SEEDS, sampling)
    assert torch.equal(bits(out)[~edit], bits(x)[~edit])
    assert ((out != x).sum() / edit.sum()) > 0.9
    assert torch.equal(bits(out), bits(paint(generator, x, edit, wanted, SEEDS, sampling)))
    if sampling.solver == "ddpm":
        other = paint(generator, x, edit, wanted, [1, *SEEDS[1:]], sampling)
        assert not torch.equal(out[0], other[0])
        torch.testing.assert_close(out[1:], other[1:], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("case", "dims"), CASES)
def test_a_row_does_not_depend_on_its_neighbours(case: str, dims: int) -> None:
    generator, x, tissue, edit = case_of(case, dims)
    whole = paint(generator, x, edit, healthy(generator, tissue, edit), SEEDS, QUICK)
    for rows in ([2], [3, 0]):
        wanted = healthy(generator, tissue[rows], edit[rows])
        part = paint(generator, x[rows], edit[rows], wanted, [SEEDS[n] for n in rows], QUICK)
        torch.testing.assert_close(part, whole[rows], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("case", ["m2", "m3", "counterfactual", "counterfactual_dit"])
def test_what_is_wanted_reaches_the_network(case: str) -> None:
    generator, x, tissue, edit = case_of(case)
    tissue[edit[:, 0]] = 1  # a lesion just where the prompt is
    well = paint(generator, x, edit, healthy(generator, tissue, edit), SEEDS, QUICK)
    ill = paint(generator, x, edit, unhealthy(generator, tissue), SEEDS, QUICK)
    assert all((well[n] - ill[n])[edit[n]].abs().max() > 1e-3 for n in range(4))
    if case.startswith("counterfactual"):
        guided = replace(QUICK, guidance=Guidance(4.0))
        strong = paint(generator, x, edit, healthy(generator, tissue, edit), SEEDS, guided)
        assert not torch.allclose(well, strong)
        free = counterfactual(generator, x, healthy(generator, tissue, edit), SEEDS, replace(QUICK, strength=0.5))
        sick = counterfactual(generator, x, unhealthy(generator, tissue), SEEDS, replace(QUICK, strength=0.5))
        assert not torch.allclose(free, sick)
        assert (free != x).float().mean() > 0.9
        again = counterfactual(
            generator, x[1:2], healthy(generator, tissue[1:2], edit[1:2]), SEEDS[1:2], replace(QUICK, strength=0.5)
        )
        torch.testing.assert_close(again, free[1:2], atol=1e-3, rtol=1e-3)


def test_healthy_hides_what_the_prompt_covers_and_says_so_if_the_model_has_the_plane() -> None:
    for case in ("m2", "m3"):
        generator, _, tissue, edit = case_of(case)
        labels = torch.stack([tissue == n for n in (1, 2, 3)], dim=1).float()
        planes = healthy(generator, tissue, edit).planes
        assert torch.equal(planes[:, :3], labels * ~edit)
        full = unhealthy(generator, tissue).planes
        assert torch.equal(full[:, :3], labels)
        if case == "m3":
            assert torch.equal(planes[:, 3:], edit.float())
            assert not full[:, 3:].any()
    generator, _, tissue, edit = case_of("counterfactual")
    assert healthy(generator, tissue, edit).classes.tolist() == [1] * 4
    assert unhealthy(generator, tissue).classes.tolist() == [2] * 4
    generator, _, tissue, edit = case_of("m1")
    assert healthy(generator, tissue, edit) == Conditioning()


def seen_by(generator: Generator) -> list[Tensor]:
    """The planes of every call of the network from now on."""
    seen: list[Tensor] = []
    generator.network.body.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[2].planes))
    return seen


@pytest.mark.parametrize("ill", [False, True])
def test_a_painter_is_shown_what_surrounds_its_prompt_and_nothing_within(ill: bool) -> None:
    generator, x, tissue, edit = case_of("m3_surroundings")
    seen = seen_by(generator)
    wanted = unhealthy(generator, tissue) if ill else healthy(generator, tissue, edit)
    out = paint(generator, x, edit, wanted, SEEDS, QUICK)
    assert all(torch.equal(planes, torch.cat([wanted.planes, x * ~edit, (~edit).float()], dim=1)) for planes in seen)
    other = paint(generator, torch.where(edit, x + 5, x), edit, wanted, SEEDS, QUICK)
    assert torch.equal(bits(out), bits(other)), "what is painted over leaks"
    seen.clear()
    counterfactual(generator, x, wanted, SEEDS, replace(QUICK, strength=0.5))
    generate(generator, wanted, SEEDS, QUICK)
    assert len(seen) >= 2 * 2
    assert not any(planes[:, -2:].any() for planes in seen), "a whole image has no surroundings"


def test_a_box_around_the_prompt_is_shown_its_own_surroundings() -> None:
    generator, x, tissue, edit = case_of("m3_surroundings")
    seen = seen_by(generator)
    paint(generator, x, edit, healthy(generator, tissue, edit), SEEDS, replace(QUICK, roi_margin=1))
    boxes = {planes.shape[2:]: planes for planes in seen[:: len(seen) // 4]}
    assert boxes.keys() == {(8, 8), (6, 6), (4, 4)}
    assert torch.equal(boxes[8, 8][0, -1], 1 - boxes[8, 8][0, 3])
    assert boxes[8, 8][0, -2][boxes[8, 8][0, -1] > 0].any()


@pytest.mark.parametrize("case", ["m1", "m3", "m3_surroundings", "counterfactual"])
def test_a_model_of_slices_in_context_is_shown_their_neighbours(case: str) -> None:
    data = {"context": [-1, 1], **({} if case == "m1" else {"lesion": ["core"]})}
    generator, (_, x, tissue, edit) = untrained(spec_of(case, data=data), seed=1), case_of(case)
    with pytest.raises(CheckpointError, match=r"neighbouring slices.*its offsets are \(-1, 1\)"):
        healthy(generator, tissue, edit)
    context = torch.cat([x.roll(1, 0), x.roll(-1, 0)], dim=1)
    wanted = healthy(generator, tissue, edit, context)
    assert torch.equal(wanted.planes[:, -2:], context)
    seen = seen_by(generator)
    out = paint(generator, x, edit, wanted, SEEDS, QUICK)
    around = [x * ~edit, (~edit).float()] if generator.spec.surroundings else []
    assert all(torch.equal(planes, torch.cat([wanted.planes, *around], dim=1)) for planes in seen)
    other = paint(generator, x, edit, healthy(generator, tissue, edit, 1 - context), SEEDS, QUICK)
    assert not torch.allclose(out, other)
    assert torch.equal(bits(out)[~edit], bits(x)[~edit])
    assert torch.equal(unhealthy(generator, tissue, context).planes[:, -2:], context)
    with pytest.raises(CheckpointError, match="only these"):
        healthy(case_of(case)[0], tissue, edit, context)


def test_other_kinds_of_generators_are_refused() -> None:
    generator = untrained(spec_of("label_prior"), seed=0)
    with pytest.raises(CheckpointError, match="counterfactual or painter is needed; found label_prior"):
        healthy(generator, torch.zeros(1, 16, 16), torch.ones(1, 1, 16, 16))


class Local(nn.Module):
    """Sees one pixel around: what it draws depends on noise and planes within that distance alone."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(2)
        self.kernel = nn.Parameter(torch.randn(1, inputs, 3, 3, generator=random) / (3 * inputs**0.5))

    def forward(self, x_t: Tensor, t_B: Tensor, conditioning: Conditioning) -> Tensor:
        seen = x_t if conditioning.planes is None else torch.cat([x_t, conditioning.planes], dim=1)
        return functional.conv2d(seen, self.kernel, padding=1).tanh()


@pytest.mark.parametrize("case", ["m3", "m3_surroundings", "counterfactual"])
def test_the_region_of_interest_gives_what_the_full_frame_gives(case: str) -> None:
    generator, x, tissue, edit = case_of(case)
    local = Generator(generator.spec, GenerativeNetwork(Local(1 + generator.spec.condition_planes), {}))
    wanted = healthy(local, tissue, edit)
    full, near, tight = (
        paint(local, x, edit, wanted, SEEDS, replace(QUICK, roi_margin=margin)) for margin in (None, 1, 0)
    )
    torch.testing.assert_close(near, full, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(tight, full, atol=1e-3)  # the network needs the pixel around
    for out in (near, tight):
        assert torch.equal(bits(out)[~edit], bits(x)[~edit])


@pytest.mark.parametrize(("case", "dims"), [("m3", 2), ("counterfactual", 3)])
def test_the_region_of_interest_fits_a_real_network(case: str, dims: int) -> None:
    generator, x, tissue, edit = case_of(case, dims)
    boxes: list[int] = []
    generator.network.body.register_forward_pre_hook(lambda _, inputs: boxes.append(inputs[0].shape[2]))
    wanted, close = healthy(generator, tissue, edit), replace(QUICK, roi_margin=1)
    out = paint(generator, x, edit, wanted, SEEDS, close)
    assert torch.equal(bits(out)[~edit], bits(x)[~edit])
    assert (out != x)[edit].float().mean() > 0.9
    # Prompts of 2:6, 3:6, 4:7 and 5:7, a pixel more, and that on a grid of 2.
    assert boxes == [8] * 4 + [6] * 4 + [6] * 4 + [4] * 4
    alone = paint(generator, x[2:3], edit[2:3], wanted.rows(slice(2, 3)), SEEDS[2:3], close)
    assert torch.equal(alone[0], out[2])
    with pytest.raises(ConfigError, match="leave out roi_margin"):
        paint(generator, x, edit, wanted, VolumeNoise(SEEDS, [0.0, 3.0, 6.0, 9.0], 5.0), close)


def test_slices_of_one_field_start_alike_and_hold_what_is_known() -> None:
    generator, x, tissue, edit = case_of("m3")
    edit = edit[:1].expand(4, -1, -1, -1).clone()
    wanted = healthy(generator, tissue[:1].expand(4, -1, -1), edit)
    same = x[:1].expand(4, -1, -1, -1).clone()
    drawn = [
        paint(generator, same, edit, wanted, VolumeNoise([5] * 4, [0.0, 1.0, 2.0, 3.0], correlation_mm), QUICK)
        for correlation_mm in (8.0, 0.0)
    ]
    jumps = [float((out[1:] - out[:-1])[edit[1:]].abs().mean()) for out in drawn]
    assert jumps[0] < 0.5 * jumps[1]
    assert all(torch.equal(bits(out)[~edit], bits(same)[~edit]) for out in drawn)


@pytest.mark.parametrize("margin", [None, 1])
def test_an_empty_prompt_changes_nothing(margin: int | None) -> None:
    generator, x, tissue, edit = case_of("m3")
    sampling = replace(QUICK, roi_margin=margin)
    out = paint(generator, x, edit & False, healthy(generator, tissue, edit), SEEDS, sampling)
    assert torch.equal(bits(out), bits(x))


@pytest.mark.parametrize(("case", "dims"), [("label_prior", 2), ("label_ldm", 2), ("label_ldm", 3), ("m1", 2)])
def test_generation_from_noise_alone_follows_the_seed_of_each_row(case: str, dims: int) -> None:
    generator = untrained(spec_of(case, dims), seed=1)
    out = generate(generator, Conditioning(), SEEDS, QUICK)
    assert out.shape == (4, generator.spec.content_channels, *generator.spec.image_size)
    assert torch.equal(out, generate(generator, Conditioning(), SEEDS, QUICK))
    torch.testing.assert_close(generate(generator, Conditioning(), SEEDS[2:], QUICK), out[2:], atol=1e-3, rtol=1e-3)
    assert (out[0] - out[1]).abs().max() > 1e-3
    size = [n + 3 for n in generator.spec.image_size]
    assert generate(generator, Conditioning(), SEEDS[:1], QUICK, size).shape[2:] == tuple(size)
