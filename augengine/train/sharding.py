"""A network in, its parameters shared out among the workers (FSDP2); whole tensors out again for a checkpoint.

Sharded parameters are `DTensor`s: the optimiser's moments and a moving average made from `network.state_dict()` are
shared out in the same way, and tensors on one worker pass through unchanged. A checkpoint therefore holds the same
files with and without sharding, and is resumed with any number of workers, sharded or not.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from augengine.errors import CheckpointError, ConfigError

UNIT_PARAMETERS = 1_000_000


def shard(
    network: nn.Module,
    device: torch.device,
    *,
    methods: Sequence[str] = (),
    unit_parameters: int = UNIT_PARAMETERS,
) -> nn.Module:
    """Share the parameters of `network` out over all workers, in place; instead of `DistributedDataParallel`.

    Each unit is gathered when its forward or backward pass begins, and freed after it. Units are the items of
    `ModuleList`s and `Sequential`s, which are called and not reached into, with at least `unit_parameters` of their
    own; the rest belongs to the whole network. Make the optimiser and the moving average after this call. Every
    forward pass, of validation too, must then be made by every worker, and through `network` itself: its parts
    called alone find their parameters scattered.

    Args:
        network: equal on all workers, on `device`, contiguous (not `channels_last`).
        device: of this worker; its kind decides the kind of all workers.
        methods: names of further methods of `network` that compute as its forward pass does.
        unit_parameters: smaller units save more memory and exchange more messages.

    Raises:
        ConfigError: parameters in `channels_last`.
    """
    if not all(p.is_contiguous() for p in network.parameters()):
        raise ConfigError("sharded parameters must be contiguous", next_step="set channels_last or shard to false")
    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    taken: set[nn.Parameter] = set()
    for module in _units(network):
        own = set(module.parameters()) - taken
        if sum(p.numel() for p in own) >= unit_parameters:
            fully_shard(module, mesh=mesh)
            taken |= own
    fully_shard(network, mesh=mesh)
    for name in methods:
        register_fsdp_forward_method(network, name)
    return network


def _units(module: nn.Module) -> Iterator[nn.Module]:
    """Candidates, from the inside out; a shared module is met more than once but taken once."""
    for child in module.children():
        yield from _units(child)
        if isinstance(module, nn.ModuleList | nn.Sequential) and not isinstance(child, nn.ModuleList | nn.ModuleDict):
            yield child


def exchange(model: nn.Module, due: bool) -> contextlib.AbstractContextManager[Any]:
    """Context of a micro-batch: gradients are exchanged in its backward pass only if `due`, which saves messages.

    Args:
        model: sharded, a `DistributedDataParallel`, or of a lone worker, which exchanges nothing.
        due: True for the last micro-batch of a step.
    """
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(due)
    elif isinstance(model, DistributedDataParallel) and not due:
        return model.no_sync()
    return contextlib.nullcontext()


def whole(tensors: Mapping[str, Tensor], keep: bool = True) -> dict[str, Tensor]:
    """Copies of the tensors, in full and contiguous, on the CPU.

    With sharded tensors this is a collective: every worker must call it, and those without `keep` get nothing.
    """
    found: dict[str, Tensor] = {}
    for name, value in tensors.items():
        full = value.detach()
        full = full.full_tensor() if isinstance(full, DTensor) else full
        if keep:
            found[name] = full.to("cpu", copy=True, memory_format=torch.contiguous_format)
    return found


def share(full: Tensor, like: Tensor) -> Tensor:
    """This worker's part of `full`, with the device, type and memory format of `like`.

    Where `like` is sharded, every worker must call with the same tensor.
    """
    if isinstance(like, DTensor):
        return distribute_tensor(full.to(like.device, like.dtype), like.device_mesh, like.placements)
    return torch.empty_like(like).copy_(full)


def load_network(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Load whole `weights`, strictly, into a network that may be sharded.

    Raises:
        CheckpointError: other names or shapes than the network's.
    """
    _check_shapes(weights, {name: value.shape for name, value in network.state_dict().items()})
    set_model_state_dict(network, dict(weights), options=StateDictOptions(full_state_dict=True))


def moments(network: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state as `<parameter>.<moment>`: names outlive another number of workers or order of modules."""
    if not optimiser.state:  # torch would make a step to have one
        return {}
    network.state_dict()  # tidies away what a validation leaves behind, which would stand for the parameters
    state: dict[str, Any] = get_optimizer_state_dict(network, optimiser)["state"]  # type: ignore[assignment]
    return {f"{name}.{key}": torch.as_tensor(v) for name, entry in state.items() for key, v in entry.items()}


def load_moments(network: nn.Module, optimiser: torch.optim.Optimizer, found: Mapping[str, Tensor]) -> None:
    """Inverse of `whole(moments(…))`, into the optimiser of a network that may be sharded in another way.

    Raises:
        CheckpointError: moments of parameters that are not trained here, or of another shape.
    """
    names = {parameter: name for name, parameter in network.named_parameters()}
    trained = {names[p]: p for group in optimiser.param_groups for p in group["params"]}
    shapes = {name: p.shape for name, p in trained.items()}
    # The count of steps is a number, whatever the parameter's shape.
    wanted = {n: v.shape if v.ndim == 0 else shapes.get(n.rpartition(".")[0]) for n, v in found.items()}
    _check_shapes(found, wanted)
    if not found:
        return
    state: dict[str, dict[str, Tensor]] = {}
    for full_name, value in found.items():
        name, _, key = full_name.rpartition(".")
        state.setdefault(name, {})[key] = value
    groups = get_optimizer_state_dict(network, optimiser)["param_groups"]
    set_optimizer_state_dict(
        network,
        optimiser,
        {"state": state, "param_groups": groups},  # type: ignore[dict-item]
        options=StateDictOptions(full_state_dict=True, strict=False),
    )
    for name in trained.keys() - state.keys():  # no gradient yet; torch has made a first step for them, too
        optimiser.state.pop(trained[name], None)


def _check_shapes(found: Mapping[str, Tensor], wanted: Mapping[str, torch.Size | None]) -> None:
    for name in sorted({*found, *wanted}):
        shape = found[name].shape if name in found else None
        if shape is None or shape != wanted.get(name):
            raise CheckpointError(
                "the state of a run must fit the network",
                found=f"{name}: {_shape(shape)} saved, {_shape(wanted.get(name))} wanted",
                next_step="resume with the recipe that began the run, or give another output folder",
            )


def _shape(shape: torch.Size | None) -> str:
    return "nothing" if shape is None else str(tuple(shape))
