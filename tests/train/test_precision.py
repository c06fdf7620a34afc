"""Mixed precision: what each name computes in, clipping after unscaling, and steps that overflow."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor, nn

from augengine.errors import RunError
from augengine.train.precision import Precision, multiplies_bfloat16

CPU = torch.device("cpu")


def network() -> nn.Linear:
    layer = nn.Linear(4, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.5, -0.25, 1.0, 2.0]]))
    return layer


def sgd(layer: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(layer.parameters(), lr=1.0)


def loss(precision: Precision, layer: nn.Module, factor: float = 1.0) -> Tensor:
    with precision.autocast():
        out: Tensor = layer(torch.ones(2, 4)).float().mean() * factor
    return out


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float16"])
def test_products_are_in_the_named_precision_and_weights_in_float32(name: str) -> None:
    precision, layer = Precision(name, CPU), network()
    with precision.autocast():
        assert layer(torch.ones(2, 4)).dtype == getattr(torch, name)
    assert layer.weight.dtype == torch.float32


def test_auto_follows_the_hardware() -> None:
    wanted = torch.bfloat16 if multiplies_bfloat16(CPU) else torch.float32
    assert Precision("auto", CPU).dtype == wanted


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float16"])
def test_norm_and_clipping_see_unscaled_gradients(name: str) -> None:
    # The gradient is 1/2 everywhere: its norm is 1, and clipping to 1/2 halves a step of rate 1.
    precision, layer = Precision(name, CPU), network()
    optimiser, before = sgd(layer), layer.weight.detach().clone()
    precision.backward(loss(precision, layer, 0.5))
    assert precision.step(optimiser, layer.parameters(), clip_norm=0.5) == pytest.approx(1.0)
    assert torch.allclose(before - layer.weight, torch.full((1, 4), 0.25), atol=1e-5)
    assert layer.weight.grad is None
    for _ in range(2):
        precision.backward(loss(precision, layer, 0.25))
    assert precision.step(optimiser, layer.parameters(), clip_norm=10.0) == pytest.approx(1.0)
    assert precision.skipped == 0


@pytest.mark.parametrize("fused", [False, True])
def test_a_step_that_overflows_float16_is_skipped_and_counted(fused: bool) -> None:
    precision, layer = Precision("float16", CPU), network()
    optimiser = torch.optim.AdamW(layer.parameters(), fused=fused)
    before, scale = layer.weight.detach().clone(), precision.state_dict()["scale"]
    precision.backward(loss(precision, layer, 1e6))
    assert not torch.isfinite(torch.tensor(precision.step(optimiser, layer.parameters(), clip_norm=1.0)))
    assert torch.equal(layer.weight, before)
    assert precision.skipped == 1
    assert precision.state_dict()["scale"] == scale / 2
    while precision.skipped < 10 and torch.equal(layer.weight, before):
        precision.backward(loss(precision, layer))
        precision.step(optimiser, layer.parameters(), clip_norm=1.0)
    assert not torch.equal(layer.weight, before), "training must go on once the scale has fallen"
    assert torch.isfinite(layer.weight).all()


def train_on_nan(precision: Precision, layer: nn.Module, steps: int) -> None:
    for _ in range(steps):
        precision.backward(loss(precision, layer, float("nan")))
        precision.step(sgd(layer), layer.parameters(), clip_norm=1.0)


@pytest.mark.parametrize(("name", "steps"), [("float32", 1), ("bfloat16", 1), ("float16", 50)])
def test_gradients_that_never_become_finite_end_the_run(name: str, steps: int) -> None:
    precision, layer = Precision(name, CPU), network()
    before = layer.weight.detach().clone()
    with pytest.raises(RunError, match="finite"):
        train_on_nan(precision, layer, steps)
    assert torch.equal(layer.weight, before)


def test_state_survives_json() -> None:
    precision, layer = Precision("float16", CPU), network()
    precision.backward(loss(precision, layer, 1e6))
    precision.step(sgd(layer), layer.parameters(), clip_norm=1.0)
    numbers = json.loads(json.dumps(precision.state_dict()))
    resumed = Precision("float16", CPU)
    resumed.load_state_dict(numbers)
    assert resumed.state_dict() == numbers == {"skipped": 1, "scale": 32768.0, "growth_tracker": 0}
    plain = Precision("float32", CPU)
    plain.load_state_dict(numbers)
    assert plain.state_dict() == {"skipped": 1}
