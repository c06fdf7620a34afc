"""A generator and a settled `Runtime` in; the same generator, evaluated in portions by a backend, out.

Stands between the checkpoint and the samplers, which see a `Generator` as ever.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor, nn

from augengine.diffusion.checkpoint import Generator, Model
from augengine.diffusion.conditioning import Conditioning
from augengine.diffusion.denoisers import GenerativeNetwork
from augengine.policy.runtime import Precision, Runtime
from augengine.runtime.capabilities import check

N = TypeVar("N", bound=nn.Module)
Evaluate = Callable[[Tensor, Tensor, Conditioning], Tensor]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def under(model: Model, runtime: Runtime) -> Model:
    """A model that is evaluated as `runtime` says; one that does not diffuse, or a plain runtime, as it is.

    Raises:
        ConfigError: this machine or device cannot do what is asked, or something is still to be chosen.
    """
    if runtime.plain or not isinstance(model, Generator):
        return model
    check(runtime, model.device.type)
    found = copy.copy(model)
    found.evaluate = evaluation(model.network, runtime)
    if runtime.network_batch != "whole":
        found.prepare = Prepared(model.network, int(runtime.network_batch))
        found.apart = model.network.autoencoder is None  # which takes all rows at once
    return found


def evaluation(network: GenerativeNetwork, runtime: Runtime) -> Evaluate:
    """`(x_t, t_B, conditioning) -> raw output` of a network under a settled runtime, in portions."""
    if runtime.backend == "openvino":
        from augengine.runtime.with_openvino import OpenVino  # late: an extra of the package

        whole: Evaluate = OpenVino(network, runtime.precision)
    else:
        whole = _in_torch(network, runtime)
    return whole if runtime.network_batch == "whole" else Portions(whole, int(runtime.network_batch))


class Portions:
    """Evaluates `rows` at a time, always exactly so many: at a fixed number a row's bits depend on no neighbour."""

    def __init__(self, evaluate: Evaluate, rows: int) -> None:
        self.evaluate, self.rows = evaluate, rows

    def __call__(self, x: Tensor, t_B: Tensor, conditioning: Conditioning) -> Tensor:
        """As the network; the last portion is filled up with its own last row."""
        made = [
            self.evaluate(x[chosen], t_B[chosen], conditioning.rows(chosen))[:kept]
            for chosen, kept in portions(len(x), self.rows, x.device)
        ]
        return torch.cat(made)


class Prepared:
    """What is the same at every step of a chain, made in the same portions, or its bits would depend on the batch."""

    def __init__(self, network: GenerativeNetwork, rows: int) -> None:
        self.network, self.rows = network, rows

    def __call__(self, conditioning: Conditioning, count: int) -> Conditioning:
        """`GenerativeNetwork.prepared` of so many rows."""
        parts = [
            self.network.prepared(conditioning.rows(chosen), self.rows).rows(slice(0, kept)).tokens
            for chosen, kept in portions(count, self.rows)
        ]
        tokens = [part for part in parts if part is not None]
        return replace(conditioning, tokens=torch.cat(tokens)) if tokens else conditioning


def portions(count: int, rows: int, device: torch.device | str = "cpu") -> Iterator[tuple[Tensor, int]]:
    """Numbers of the rows of each portion, `rows` of them with the last repeated, and how many of them are meant.

    >>> [(chosen.tolist(), kept) for chosen, kept in portions(5, 2)]
    [([0, 1], 2), ([2, 3], 2), ([4, 4], 1)]
    """
    for start in range(0, count, rows):
        stop = min(start + rows, count)
        yield torch.arange(start, start + rows, device=device).clamp(max=stop - 1), stop - start


def _in_torch(network: GenerativeNetwork, runtime: Runtime) -> Evaluate:
    """Eager or compiled; under autocast for another precision than fp32."""
    if runtime.channels_last:
        network = channels_last(copy.deepcopy(network))
    if runtime.backend == "compile":
        from augengine.runtime.compiled import Compiled

        inner: Evaluate = Compiled(network)
    else:
        inner = network
    return inner if runtime.precision == "fp32" else _autocast(inner, runtime.precision)


def channels_last(network: N) -> N:
    """Weights of convolutions with their channels innermost; PyTorch then keeps images so, too."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    for parameter in network.parameters():
        if parameter.ndim in formats:
            parameter.data = parameter.data.contiguous(memory_format=formats[parameter.ndim])
    return network


def _autocast(inner: Evaluate, precision: Precision) -> Evaluate:
    def evaluate(x: Tensor, t_B: Tensor, conditioning: Conditioning) -> Tensor:
        with torch.autocast(x.device.type, DTYPES[precision]):
            return inner(x, t_B, conditioning).float()

    return evaluate
