"""The dry run's estimate: exact on layers counted by hand, and at no cost on the networks of the recipes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from diffusers import DiTTransformer2DModel
from monai.networks.nets import DiffusionModelUNet
from torch import Tensor, nn

from augengine.diffusion.autoencoder import Autoencoder, AutoencoderSpec
from augengine.train.estimate import describe, estimate
from augengine.train.precision import Precision

CPU = torch.device("cpu")
FLOAT32 = Precision("float32", CPU)


def test_two_linear_layers_by_hand() -> None:
    network = nn.Sequential(nn.Linear(8, 32, bias=False), nn.SiLU(), nn.Linear(32, 4, bias=False))
    before = network[0].weight.detach().clone()
    found = estimate(network, [torch.zeros(5, 8)], rows=5, precision=FLOAT32)
    assert found.parameters == found.trainable == 8 * 32 + 32 * 4
    assert found.weight_bytes == found.gradient_bytes == found.average_bytes == 4 * found.parameters
    assert found.moment_bytes == 8 * found.parameters
    # Kept: the input, and the hidden layer before and after SiLU.
    assert found.activation_bytes == 4 * 5 * (8 + 32 + 32)
    assert found.forward_flops == 2 * (8 * 32 + 32 * 4)
    # Backwards: both weights' gradients, and the hidden layer's; none for the input.
    assert found.training_flops == found.forward_flops + 2 * (8 * 32 + 2 * 32 * 4)
    assert torch.equal(network[0].weight, before)
    assert network[0].weight.grad is None


def test_frozen_weights_need_no_gradient_moments_or_backward_pass() -> None:
    network = nn.Sequential(nn.Linear(8, 32), nn.Linear(32, 4)).requires_grad_(False)
    network[1].requires_grad_(True)
    found = estimate(network, [torch.zeros(1, 8)], rows=1, precision=FLOAT32)
    assert (found.parameters, found.trainable) == (8 * 32 + 32 + 32 * 4 + 4, 32 * 4 + 4)
    assert found.gradient_bytes == 4 * found.trainable
    assert found.training_flops == found.forward_flops + 2 * 32 * 4
    assert dict(describe(found))["parameters"] == "420, 288 frozen"


def test_workers_exchange_or_share_out() -> None:
    network = nn.Linear(8, 32)
    alone, two, sharded = (
        estimate(network, [torch.zeros(1, 8)], rows=1, precision=FLOAT32, world=world, sharded=split)
        for world, split in ((1, False), (2, False), (2, True))
    )
    assert two.total_bytes == alone.total_bytes + alone.gradient_bytes
    assert 2 * sharded.weight_bytes == alone.weight_bytes
    assert 2 * sharded.moment_bytes == alone.moment_bytes
    assert sharded.bucket_bytes == alone.bucket_bytes == 0


class Objective(nn.Module):
    """As the recipes' objectives: noise from a CPU generator, losses by name."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.table = network, torch.linspace(0, 1, 10)

    def forward(self, batch: dict[str, Tensor], seed: int, step: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        x = batch["image"]
        x[torch.rand(len(x), generator=generator) < 0.5] = 0
        if x[x > 0].sum() > 0:
            raise ValueError("preparing a batch may look at its values")
        t = torch.randint(0, 10, (len(x),), generator=generator)
        noise = torch.randn(x.shape, generator=generator)
        level = self.table[t].view(-1, 1)
        error = self.network(level * x + (1 - level) * noise) - x
        return {"total": error.square().mean(), "picture": error.detach()}


def test_objectives_run_as_they_are() -> None:
    objective = Objective(nn.Linear(8, 8))
    found = estimate(objective, [{"image": torch.zeros(6, 8)}, 1, 0], rows=6, precision=FLOAT32)
    assert found.forward_flops == 2 * 8 * 8
    assert found.training_flops == 2 * found.forward_flops
    assert found.activation_bytes >= 4 * 6 * 8


def unet(dims: int, channels: tuple[int, ...]) -> nn.Module:
    attention = tuple(n == len(channels) - 1 for n in range(len(channels)))
    return DiffusionModelUNet(
        dims,
        1,
        1,
        num_res_blocks=(1,) * len(channels),
        channels=channels,
        attention_levels=attention,
        num_head_channels=32,
    )


def dit(heads: int, layers: int) -> nn.Module:
    return DiTTransformer2DModel(
        num_attention_heads=heads,
        attention_head_dim=64,
        in_channels=4,
        num_layers=layers,
        sample_size=32,
        patch_size=2,
        num_embeds_ada_norm=1000,
    )


def index(rows: int) -> Tensor:
    return torch.zeros(rows, dtype=torch.long, device="meta")


def image(*shape: int) -> Tensor:
    return torch.zeros(shape, device="meta")


@pytest.mark.parametrize(
    ("make", "shape", "labels"),
    [
        (lambda: unet(2, (32, 64)), (1, 32, 32), 0),
        (lambda: unet(3, (32, 64)), (1, 8, 16, 8), 0),
        (lambda: dit(2, 2), (4, 32, 32), 1),
    ],
    ids=["unet 2D", "unet 3D", "dit"],
)
def test_meta_networks_scale_with_rows_and_precision(
    make: Callable[[], nn.Module], shape: tuple[int, ...], labels: int
) -> None:
    with torch.device("meta"):
        network = make()
    two, four, half = (
        estimate(network, [image(rows, *shape), *[index(rows)] * (1 + labels)], rows=rows, precision=precision)
        for rows, precision in ((2, FLOAT32), (4, FLOAT32), (4, Precision("bfloat16", CPU)))
    )
    assert two.forward_flops == four.forward_flops == half.forward_flops > 1e6
    assert 2.8 < two.training_flops / two.forward_flops < 3.2
    assert four.activation_bytes == pytest.approx(2 * two.activation_bytes, rel=0.02)
    casts = 2 * four.parameters
    assert half.activation_bytes - casts < 0.8 * four.activation_bytes
    assert all(p.device.type == "meta" and p.grad is None for p in network.parameters())


def test_paper_size_dit_b2() -> None:
    """Peebles & Xie 2023, table 1: DiT-B/2 has 130 M parameters and 23.01 Gflops, counted as multiply-adds, at 32²."""
    with torch.device("meta"):
        network = dit(12, 12)
    found = estimate(network, [image(1, 4, 32, 32), index(1), index(1)], rows=1, precision=FLOAT32)
    assert found.parameters == pytest.approx(130e6, rel=0.15)  # diffusers embeds time and class in every block
    assert found.forward_flops / 2 == pytest.approx(23.01e9, rel=0.001)


def test_saved_bytes_are_those_of_a_real_pass() -> None:
    network = unet(2, (32, 64))
    saved: dict[int, Tensor] = {}
    own = {p.untyped_storage().data_ptr() for p in network.parameters()}

    def pack(value: Tensor) -> Tensor:
        saved[value.untyped_storage().data_ptr()] = value
        return value

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        result = network(torch.zeros(2, 1, 32, 32), torch.zeros(2, dtype=torch.long))
    real = sum(v.untyped_storage().nbytes() for at, v in saved.items() if at not in own)
    inputs = [torch.zeros(2, 1, 32, 32), torch.zeros(2, dtype=torch.long)]
    assert estimate(network, inputs, rows=2, precision=FLOAT32).activation_bytes == pytest.approx(real, rel=0.01)
    assert result.requires_grad


def test_activations_that_are_computed_again_cost_another_forward_pass() -> None:
    spec = AutoencoderSpec(channels=(8, 16), latent_channels=2, res_blocks=1, norm_groups=4)
    x, precision = torch.zeros(2, 1, 16, 16), Precision("bfloat16", CPU)
    kept, again = (
        estimate(Autoencoder(spec.model_copy(update={"recompute": on}), 1, 2), [x], rows=2, precision=precision)
        for on in (False, True)
    )
    assert kept.forward_flops == again.forward_flops
    assert kept.training_flops < again.training_flops <= kept.training_flops + again.forward_flops
    assert again.activation_bytes < kept.activation_bytes / 2
