"""A network and the shapes of one batch in; parameters, memory and arithmetic of a training step out, before training.

The network runs forwards and backwards on fake tensors, which have shapes but no memory: one of paper size, best
built under `torch.device("meta")`, is estimated in a second or two on any machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from augengine.train.precision import Precision


@dataclass(frozen=True)
class Estimate:
    """What one worker holds and does in one forward and backward pass.

    Attributes:
        parameters, trainable: numbers in the whole network.
        weight_bytes, gradient_bytes, moment_bytes, average_bytes: weights with buffers, gradients, AdamW's two
            moments and the moving average, on one worker; a share of them where they are sharded.
        bucket_bytes: the copy of the gradients that workers exchange.
        activation_bytes: what the forward pass keeps for the backward pass, casts of weights included; without the
            passing workspace of single operations.
        forward_flops, training_flops: floating-point operations of one row, forwards, and forwards plus backwards.
        rows: rows of the batch on one worker.
    """

    parameters: int
    trainable: int
    weight_bytes: int
    gradient_bytes: int
    moment_bytes: int
    average_bytes: int
    bucket_bytes: int
    activation_bytes: int
    forward_flops: float
    training_flops: float
    rows: int

    @property
    def total_bytes(self) -> int:
        """Memory of one worker at its fullest."""
        state = self.weight_bytes + self.gradient_bytes + self.moment_bytes + self.average_bytes + self.bucket_bytes
        return state + self.activation_bytes


def estimate(
    network: nn.Module,
    inputs: Sequence[Any],
    *,
    rows: int,
    precision: Precision,
    keywords: Mapping[str, Any] | None = None,
    world: int = 1,
    sharded: bool = False,
) -> Estimate:
    """Measure `network(*inputs, **keywords)`; neither the network nor the inputs are changed.

    Args:
        network: on the CPU or on the meta device. What it returns is differentiated: the entry `total` of a dict of
            losses, else the sum of all tensors. Nothing may depend on the values that its layers compute.
        inputs: a micro-batch of one worker; tensors are on the CPU or, where their values do not matter, on the
            meta device.
        rows: rows in `inputs`.
        precision: as it will be trained.
        keywords: further arguments of the network.
        world: workers.
        sharded: weights, gradients, moments and average are shared out among the workers.
    """
    owned = dict(network.named_parameters())
    parameters = sum(p.numel() for p in owned.values())
    trainable = sum(p.numel() for p in owned.values() if p.requires_grad)
    weights = sum(_bytes(v) for v in [*owned.values(), *network.buffers()])
    gradients = sum(_bytes(p) for p in owned.values() if p.requires_grad)
    average = sum(_bytes(v) for v in network.state_dict().values())
    share = world if sharded else 1

    mode = FakeTensorMode(allow_non_fake_inputs=True)
    fakes = {name: _fake(mode, value) for name, value in [*owned.items(), *network.named_buffers()]}
    storages = {_storage(value) for value in fakes.values()}
    kept: dict[int, Tensor] = {}

    def keep(saved: Tensor) -> Tensor:
        if _storage(saved) not in storages:
            kept[_storage(saved)] = saved  # also keeps it alive: a freed storage's id may be given out again
        return saved

    def without_memory(leaf: Any) -> Any:
        return _fake(mode, leaf) if isinstance(leaf, Tensor) and leaf.is_meta else leaf

    args, options = tree_map(without_memory, (tuple(inputs), dict(keywords or {})))
    counter = FlopCounterMode(display=False, custom_mapping=_COUNTED)
    with counter:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda saved: saved), _autocast(precision):
            output = torch.func.functional_call(network, fakes, args, options)
        forward = counter.get_total_flops()
        _scalar(output).backward()  # type: ignore[no-untyped-call]
    return Estimate(
        parameters=parameters,
        trainable=trainable,
        weight_bytes=weights // share,
        gradient_bytes=gradients // share,
        moment_bytes=2 * gradients // share,
        average_bytes=average // share,
        bucket_bytes=gradients if world > 1 and not sharded else 0,
        activation_bytes=sum(saved.untyped_storage().nbytes() for saved in kept.values()),
        forward_flops=forward / rows,
        training_flops=counter.get_total_flops() / rows,
        rows=rows,
    )


def describe(found: Estimate) -> list[tuple[str, str]]:
    """Rows of a table: what, how much."""
    sizes = [
        ("weights", found.weight_bytes),
        ("gradients", found.gradient_bytes),
        ("AdamW moments", found.moment_bytes),
        ("moving average", found.average_bytes),
        ("gradient exchange", found.bucket_bytes),
        (f"activations of {found.rows} row{'s' if found.rows > 1 else ''}", found.activation_bytes),
        ("memory of one worker", found.total_bytes),
    ]
    frozen = found.parameters - found.trainable
    return [
        ("parameters", _short(found.parameters).strip() + (f", {_short(frozen).strip()} frozen" if frozen else "")),
        *((name, f"{_short(size)}B") for name, size in sizes if size),
        ("arithmetic per row", f"{_short(found.forward_flops)}FLOP forward, {_short(found.training_flops)}FLOP in all"),
    ]


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    flops: int = sdpa_flop_count(query, key, value)  # type: ignore[no-untyped-call]
    return flops


def _attention_backward(gradient: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    flops: int = sdpa_backward_flop_count(gradient, query, key, value)  # type: ignore[no-untyped-call]
    return flops


# torch counts fused attention on GPUs only; fake tensors stand on the CPU.
_COUNTED = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}


def _short(number: float) -> str:
    """`number` with three digits and its decimal prefix.

    >>> _short(26_622_209), _short(748.2e9), _short(12)
    ('26.6 M', '748 G', '12 ')
    """
    for power, prefix in ((15, "P"), (12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if number >= 10**power:
            return f"{number / 10**power:#.3g}".rstrip(".") + f" {prefix}"
    return f"{number:.0f} "


def _fake(mode: FakeTensorMode, value: Tensor) -> Tensor:
    """`value` without its memory, as if on the CPU."""
    fake = FakeTensor(mode, value.detach().to("meta"), torch.device("cpu"))
    return fake.requires_grad_(value.requires_grad)


def _autocast(precision: Precision) -> torch.autocast:
    # On the CPU whatever the training device is: only the types of the results matter here.
    return torch.autocast("cpu", precision.dtype, enabled=precision.dtype != torch.float32)


def _scalar(output: Any) -> Tensor:
    if isinstance(output, Mapping) and "total" in output:
        total: Tensor = output["total"]
        return total
    leaves = [leaf.float().sum() for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]
    return torch.stack(leaves).sum()


def _storage(value: Tensor) -> int:
    return int(value.untyped_storage()._cdata)


def _bytes(value: Tensor) -> int:
    return value.numel() * value.element_size()
