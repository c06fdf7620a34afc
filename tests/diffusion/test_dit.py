import pytest
import torch
from pydantic import ValidationError

from augengine.diffusion.dit import DiT, DiTSize, DiTSpec
from augengine.errors import ConfigError

SPEC = DiTSpec(size=DiTSize(layers=2, heads=2, head_channels=8))


def network(perturbed: bool = True, **changes: object) -> DiT:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = DiT(**{"spec": SPEC, "inputs": 3, "outputs": 2, "classes": 2, "image_size": (8, 8), **changes})
        if perturbed:
            for p in model.parameters():
                p.data += 0.05 * torch.randn(p.shape)
    return model


def batch(rows: int = 3, size: tuple[int, int] = (8, 8)) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    x = torch.randn(rows, 3, *size, generator=torch.Generator().manual_seed(1))
    return x, torch.arange(rows) * 300 + 50, torch.arange(rows) % 3


@pytest.mark.parametrize(("size", "parameters"), [("S/2", 33e6), ("B/2", 130e6)])
def test_sizes_of_the_paper(size: str, parameters: float) -> None:
    with torch.device("meta"):
        model = DiT(DiTSpec(size=size), inputs=4, outputs=8, classes=1000, image_size=(32, 32))
    assert abs(sum(p.numel() for p in model.parameters()) / parameters - 1) < 0.02


def test_blocks_are_the_identity_and_the_output_is_zero_at_the_start() -> None:
    model = network(perturbed=False)
    hidden, embedding = torch.randn(2, 16, 16), torch.randn(2, 16)
    for block in model.body.transformer_blocks:
        assert torch.equal(block(hidden, timestep=embedding), hidden)
    assert not model(*batch()).any()


def test_time_and_class_change_the_output_and_every_class_is_another() -> None:
    model = network().eval()
    x, t, _ = batch(1)
    outputs = [model(x, t + dt, torch.tensor([c])) for dt, c in ((0, 0), (0, 1), (0, 2), (400, 0))]
    for i, a in enumerate(outputs):
        for b in outputs[:i]:
            assert not torch.allclose(a, b, atol=1e-4)


def test_training_mode_drops_no_class_and_rows_do_not_meet() -> None:
    model = network().train()
    x, t, c = batch()
    together = model(x, t, c)
    assert torch.equal(together, model(x, t, c))
    alone = torch.cat([model(x[i : i + 1], t[i : i + 1], c[i : i + 1]) for i in range(len(x))])
    torch.testing.assert_close(together, alone)


def test_position_matters() -> None:
    model = network().eval()
    x, t, c = batch(1)
    moved = model(x.roll(2, dims=3), t, c).roll(-2, dims=3)
    assert not torch.allclose(moved, model(x, t, c), atol=1e-4)


def test_every_parameter_has_a_gradient() -> None:
    model = network()
    model(*batch()).square().mean().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_a_side_that_is_no_multiple_of_the_patch_is_padded_and_cropped() -> None:
    model = network(image_size=(7, 8)).eval()
    x, t, c = batch(2, (7, 8))
    c[:] = 1
    out = model(x, t, c)
    assert out.shape == (2, 2, 7, 8)
    padded = torch.cat([x, x[:, :, -1:]], dim=2)
    torch.testing.assert_close(out, network().eval()(padded, t, c)[:, :, :7])


@pytest.mark.parametrize("size", [(8, 12), (8, 8, 8)])
def test_images_that_are_not_square_are_refused(size: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="square"):
        network(image_size=size)


def test_another_size_than_trained_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"takes images of \(8, 8\)"):
        network()(*batch(2, (12, 12)))


def test_spec_survives_json_and_refuses_what_cannot_be() -> None:
    for spec in (SPEC, DiTSpec(size="S/2")):
        assert DiTSpec.model_validate_json(spec.model_dump_json()) == spec
    assert DiTSpec(size="B/2").layout.width == 768
    with pytest.raises(ValidationError, match="multiple of 4"):
        DiTSize(layers=1, heads=1, head_channels=6)
    with pytest.raises(ValidationError):
        DiTSpec(size="XL/2")
