"""Promptable sampling against Gaussians, of which every conditional distribution is known."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from augengine.diffusion.promptable import Prompting, Roi, composite, inpaint, latent_mask, moves, prompted
from augengine.diffusion.samplers import Denoiser, reverse_step, row_generators
from augengine.diffusion.schedules import Schedule, posterior
from augengine.diffusion.spec import DiffusionSpec
from augengine.errors import ConfigError, DataError

COSINE = Schedule(DiffusionSpec(parametrisation="x0", schedule="cosine"))
FLOW = Schedule(DiffusionSpec(parametrisation="flow", schedule="rectified"))
LINEAR = Schedule(DiffusionSpec(parametrisation="epsilon", schedule="linear"))

RHO, KNOWN = 0.9, 1.5
TRUE_MEAN, TRUE_SD = RHO * KNOWN, (1 - RHO**2) ** 0.5


def pair_denoiser(schedule: Schedule) -> Denoiser:
    """E[x0 | x_t] of images whose last axis holds two standard normals of correlation `RHO`."""
    covariance = torch.tensor([[1, RHO], [RHO, 1]])

    def denoise(x_t: Tensor, t_B: Tensor) -> Tensor:
        a, b = (float(level.flatten()[0]) for level in schedule.signal(t_B, x_t))
        return x_t @ torch.linalg.solve(a**2 * covariance + b**2 * torch.eye(2), a * covariance)

    return denoise


def drawn(schedule: Schedule, steps: int, prompting: Prompting, solver: str = "ddpm") -> Tensor:
    """The second number of 8192 pairs whose first is `KNOWN`."""
    x0 = torch.zeros(2, 1, 4096, 2)
    x0[..., 0] = KNOWN
    edit = torch.tensor([False, True]).expand(2, 1, 4096, 2)
    timesteps, generators = schedule.timesteps(1.0, steps), row_generators([1, 2])
    out = inpaint(pair_denoiser(schedule), x0, edit, timesteps, schedule, generators, solver, prompting)
    assert torch.equal(out[..., 0], x0[..., 0])
    return out[..., 1]


@pytest.mark.parametrize("schedule", [COSINE, FLOW], ids=["cosine", "flow"])
@pytest.mark.parametrize("known", ["posterior", "repaint"])
def test_jumps_bring_the_generated_part_to_its_true_conditional(schedule: Schedule, known: str) -> None:
    without = drawn(schedule, 100, Prompting(known))  # type: ignore[arg-type]
    jumps = drawn(schedule, 100, Prompting(known, jump_length=10, resamples=10))  # type: ignore[arg-type]
    assert float(without.mean()) < TRUE_MEAN - 0.3, "RePaint's known bias towards the unconditional mean, 0"
    assert float(without.std()) > TRUE_SD + 0.08
    assert float(jumps.mean()) == pytest.approx(TRUE_MEAN, abs=0.07)
    assert float(jumps.std()) == pytest.approx(TRUE_SD, abs=0.03)


def test_composing_estimates_is_composing_steps() -> None:
    generator = torch.Generator().manual_seed(0)
    x0, x_t, noise = torch.randn(3, 2, 1, 6, 2, generator=generator, dtype=torch.float64)
    edit = torch.rand(2, 1, 6, 2, generator=generator, dtype=torch.float64).round()
    denoise, t_B, prev_B = pair_denoiser(COSINE), torch.tensor([500, 500]), torch.tensor([480, 480])

    def double(x: Tensor, t: Tensor) -> Tensor:
        return denoise(x.float(), t).double()

    parts = []
    for clean in (x0, double(x_t, t_B)):  # paper 000, algorithm 1, lines 4 and 11
        mean, variance = posterior(COSINE, clean, x_t, t_B, prev_B)
        parts.append(mean + variance.sqrt() * noise)
    wanted = (1 - edit) * parts[0] + edit * parts[1]  # line 13
    found = reverse_step(COSINE, prompted(double, x0, edit)(x_t, t_B), x_t, 500, 480, noise)
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("known", ["posterior", "repaint"])
@pytest.mark.parametrize("shape", [(2, 8, 8), (1, 4, 6, 5)])
def test_outside_the_prompt_no_bit_changes(known: str, shape: tuple[int, ...]) -> None:
    x0 = torch.randn(3, *shape, generator=torch.Generator().manual_seed(3))
    x0[:, 0, 0] = -0.0
    edit = torch.zeros(3, 1, *shape[1:])
    edit[..., 2:4, 1:4] = torch.tensor([0.25, 1.0, 0.5])
    timesteps = COSINE.timesteps(0.8, 5)
    prompting = Prompting(known, jump_length=2, resamples=2)  # type: ignore[arg-type]
    out = inpaint(lambda x, _: x.sin(), x0, edit, timesteps, COSINE, row_generators([1, 2, 3]), prompting=prompting)
    outside = (edit == 0).expand_as(x0)
    assert torch.equal(out.view(torch.int32)[outside], x0.view(torch.int32)[outside])
    assert not torch.isclose(out, x0)[~outside].any()


@pytest.mark.parametrize("solver", ["ddpm", "ddim"])
@pytest.mark.parametrize("known", ["posterior", "repaint"])
def test_a_row_does_not_depend_on_its_neighbours(solver: str, known: str) -> None:
    x0 = torch.randn(3, 1, 6, 2, generator=torch.Generator().manual_seed(4))
    edit = torch.rand(3, 1, 6, 2, generator=torch.Generator().manual_seed(5)) > 0.5
    prompting = Prompting(known, jump_length=2, resamples=2)  # type: ignore[arg-type]

    def run(rows: list[int], seeds: list[int]) -> Tensor:
        timesteps, generators = LINEAR.timesteps(1.0, 6), row_generators(seeds)
        return inpaint(pair_denoiser(LINEAR), x0[rows], edit[rows], timesteps, LINEAR, generators, solver, prompting)

    assert torch.equal(run([0, 1, 2], [7, 8, 9])[2], run([2, 0, 1], [9, 1, 2])[0])
    assert not torch.equal(run([0], [7]), run([0], [8]))


def test_partial_noising_stays_near_the_source_and_full_noise_forgets_it() -> None:
    x0 = torch.full((1, 1, 2000, 2), 3.0)
    edit = torch.ones(1, 1, 2000, 2)
    means = []
    for strength in (0.2, 1.0):
        timesteps = LINEAR.timesteps(strength, 20)
        out = inpaint(pair_denoiser(LINEAR), x0, edit, timesteps, LINEAR, row_generators([1]))
        means.append(float(out.mean()))
    assert means[0] > 1.5
    assert means[1] == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize("solver", ["dpmpp_2m", "dpmpp_2m_sde", "unipc"])
def test_solvers_with_memory_hold_the_known_part_but_cannot_jump(solver: str) -> None:
    assert 0.4 * TRUE_MEAN < float(drawn(COSINE, 20, Prompting(), solver).mean()) < TRUE_MEAN
    for prompting in (Prompting("repaint"), Prompting("posterior", 2, 2)):
        with pytest.raises(ConfigError, match="without memory"):
            drawn(COSINE, 20, prompting, solver)


def test_moves_are_those_of_repaint() -> None:
    assert list(moves(3, Prompting())) == [3, 2, 1, 0]
    assert list(moves(5, Prompting(jump_length=1, resamples=2))) == [5, 4, 5, 4, 3, 4, 3, 2, 3, 2, 1, 2, 1, 0]
    length, times, steps = 5, 4, 40
    found = list(moves(steps, Prompting("repaint", length, times)))
    assert max(found) == steps
    falls = sum(b < a for a, b in pairwise(found))
    assert falls == steps + (times - 1) * length * len(range(1, steps - length + 1, length))


def test_prompting_that_makes_no_sense_is_refused() -> None:
    for settings in ({"jump_length": 0}, {"resamples": 0}):
        with pytest.raises(ConfigError, match="at least 1"):
            Prompting(**settings)  # type: ignore[arg-type]


def field_denoiser(schedule: Schedule, size: int, radius: int) -> tuple[Denoiser, Tensor]:
    """The best denoiser, of the given radius, for a smooth stationary field; and four draws of the field."""
    frequency = torch.fft.fftfreq(size)
    power = torch.exp(-(frequency[:, None] ** 2 + frequency**2) / (2 * 0.08**2))
    power = power / power.mean()

    def denoise(x_t: Tensor, t_B: Tensor) -> Tensor:
        a, b = (float(level.flatten()[0]) for level in schedule.signal(t_B, x_t))
        response = torch.fft.fftshift(torch.fft.ifft2(a * power / (a**2 * power + b**2)).real)
        near = slice(size // 2 - radius, size // 2 + radius + 1)
        return functional.conv2d(x_t, response[None, None, near, near], padding=radius)

    white = torch.randn(4, 1, size, size, generator=torch.Generator().manual_seed(0))
    return denoise, torch.fft.ifft2(torch.fft.fft2(white) * power.sqrt()).real


@pytest.mark.parametrize("prompting", [Prompting(), Prompting("repaint", 5, 2)], ids=["posterior", "repaint"])
def test_a_region_of_interest_gives_what_the_full_frame_gives(prompting: Prompting) -> None:
    denoise, x0 = field_denoiser(COSINE, 64, radius=6)
    edit = torch.zeros(4, 1, 64, 64)
    edit[:, :, 26:38, 24:40] = 1
    timesteps, sizes, errors = COSINE.timesteps(1.0, 20), [], []

    def local(x_t: Tensor, t_B: Tensor) -> Tensor:
        sizes.append(x_t.shape[2] * x_t.shape[3])
        return denoise(x_t, t_B)

    full = inpaint(denoise, x0, edit, timesteps, COSINE, row_generators(range(4)), prompting=prompting)
    for margin in (0, 4, 8):
        roi = Roi.of(edit, margin, multiple=4)
        part = inpaint(local, x0, edit, timesteps, COSINE, row_generators(range(4)), prompting=prompting, roi=roi)
        assert torch.equal(part[edit == 0], x0[edit == 0])
        errors.append(float((part - full)[edit > 0].square().mean().sqrt()))
    assert errors[0] > 0.1, "without context the edge of the box shows"
    assert errors[1] < 0.05
    assert errors[2] < 1e-5, "a margin of the network's reach leaves nothing out"
    assert max(sizes) < 64 * 64 / 3


@pytest.mark.parametrize("multiple", [1, 4, 8])
def test_the_box_holds_every_prompt_on_the_grid(multiple: int) -> None:
    edit = torch.zeros(2, 1, 30, 64, 16)
    edit[0, 0, 27, 10, 5] = edit[1, 0, 20, 33, 9] = 0.5
    roi = Roi.of(edit, margin=3, multiple=multiple)
    assert roi.crop(edit).sum() == edit.sum()
    for found, low, high, frame in zip(roi.slices, (17, 7, 2), (30, 36, 12), (30, 64, 16), strict=True):
        assert 0 <= found.start <= low
        assert high <= found.stop <= frame
        assert (found.stop - found.start) % multiple == 0
        assert found.stop - found.start < high - low + 2 * multiple
        assert found.start % multiple == 0 or found.stop == frame


def test_cropping_and_pasting_return_the_image() -> None:
    edit = torch.zeros(1, 1, 8, 8)
    edit[..., 2, 3] = 1
    roi, x = Roi.of(edit, 1, 2), torch.randn(1, 3, 8, 8)
    assert torch.equal(roi.paste(x, roi.crop(x)), x)
    changed = roi.paste(x, roi.crop(x) + 1)
    assert int((changed != x).sum()) == roi.crop(x).numel()
    with pytest.raises(DataError, match="prompt"):
        Roi.of(torch.zeros(1, 1, 8, 8), 1, 2)


@pytest.mark.parametrize("shape", [(9, 12), (4, 9, 12)])
def test_every_edited_pixel_lies_in_a_latent_cell(shape: tuple[int, ...]) -> None:
    edit = (torch.rand(2, 1, *shape, generator=torch.Generator().manual_seed(0)) > 0.97).float() * 0.5
    cells = latent_mask(edit, 4)
    assert cells.shape[2:] == tuple(-(-n // 4) for n in shape)
    fine = cells
    for axis, n in enumerate(shape, start=2):
        fine = fine.repeat_interleave(4, axis).narrow(axis, 0, n)
    assert (fine[edit > 0] == 0.5).all()
    assert cells.mean() < 0.5


def test_composite_blends_soft_edges() -> None:
    x0, generated, edit = torch.zeros(1, 1, 3), torch.full((1, 1, 3), 8.0), torch.tensor([[[0.0, 0.25, 1.0]]])
    assert composite(x0, generated, edit).flatten().tolist() == [0.0, 2.0, 8.0]
    poisoned = torch.tensor([[[float("nan"), 8.0, 8.0]]])
    assert composite(x0, poisoned, edit)[0, 0, 0] == 0


def test_a_soft_edge_is_as_noisy_as_the_rest() -> None:
    seen: list[Tensor] = []
    x0 = torch.zeros(1, 1, 40_000, 1)

    def keep(x_t: Tensor, t_B: Tensor) -> Tensor:
        seen.append(x_t)
        return torch.zeros_like(x_t)

    edit = torch.full_like(x0, 0.5)
    inpaint(keep, x0, edit, [999, 700, 400], FLOW, row_generators([0]), prompting=Prompting("repaint"))
    drawn_sd = [float(x.std()) for x in seen[1:]]
    levels = [float(FLOW.b[t]) for t in (700, 400)]
    assert all(sd > 0.9 * level for sd, level in zip(drawn_sd, levels, strict=True))
