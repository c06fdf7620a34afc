"""A folder with a MeshNet as TensorFlow.js stores it in, the same network for slices and volumes out.

MeshNets (Fedorov et al. 2017) are stacks of dilated convolutions that segment brains at full resolution; the
brainchop project publishes several as `model.json` beside raw little-endian float32. Nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from augengine.errors import CheckpointError
from augengine.io.store import Store

TOPOLOGY = "model.json"
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": functional.relu, "elu": functional.elu}


class MeshNet(nn.Module):
    """`forward(x)`: one channel (B, 1, *) to what the output layer reads (B, F, *).

    Slices pass through kernels summed along their third axis: what the network makes of a volume that does not change
    along it.
    """

    def __init__(self, kernels: Sequence[Tensor], biases: Sequence[Tensor], dilations: Sequence[int], act: str) -> None:
        super().__init__()
        self.kernels = nn.ParameterList(nn.Parameter(k, requires_grad=False) for k in kernels)
        self.biases = nn.ParameterList(nn.Parameter(b, requires_grad=False) for b in biases)
        self.dilations, self.act = tuple(dilations), ACTIVATIONS[act]

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        flat = x.ndim == 4
        convolve: Any = functional.conv2d if flat else functional.conv3d
        for kernel, bias, dilation in zip(self.kernels, self.biases, self.dilations, strict=True):
            weight = kernel.sum(-1) if flat else kernel
            x = self.act(convolve(x, weight, bias, padding=dilation * (kernel.shape[2] // 2), dilation=dilation))
        return x


def load_meshnet(weights_path: str) -> tuple[MeshNet, str]:
    """The network in a folder, and the sha256 of its `model.json` followed by its weight files.

    Raises:
        CheckpointError: a missing or damaged file, or layers other than a chain of dilated convolutions.
    """
    store = Store(weights_path)
    where = store.path(TOPOLOGY)
    text = _read(store, TOPOLOGY)
    try:
        described = json.loads(text)
        layers = described["modelTopology"]["model_config"]["config"]["layers"]
        manifest = described["weightsManifest"]
        files = [name for group in manifest for name in group["paths"]]
        stored = [(w["name"], tuple(w["shape"]), w["dtype"]) for group in manifest for w in group["weights"]]
    except (ValueError, KeyError, TypeError):
        raise CheckpointError("a MeshNet is described by TensorFlow.js's model.json", where=where) from None
    content = b"".join(_read(store, name) for name in files)
    if {dtype for _, _, dtype in stored} != {"float32"} or 4 * sum(int(np.prod(s)) for _, s, _ in stored) != len(
        content
    ):
        raise CheckpointError(
            "the weight files hold the float32 numbers that model.json lists",
            where=where,
            found=f"{len(content)} bytes",
            next_step="copy the folder again",
        )
    numbers, tensors, start = np.frombuffer(content, "<f4"), dict[str, Tensor](), 0
    for name, shape, _ in stored:
        size = int(np.prod(shape))
        tensors[name] = torch.from_numpy(numbers[start : start + size].reshape(shape).copy())
        start += size
    convolutions, act = _chain(layers, where)
    hidden = convolutions[:-1]  # the last one gives classes
    try:
        kernels = [tensors[f"{c['name']}/kernel"].permute(4, 3, 0, 1, 2).contiguous() for c in hidden]
        network = MeshNet(
            kernels, [tensors[f"{c['name']}/bias"] for c in hidden], [c["dilation_rate"][0] for c in hidden], act
        )
    except KeyError as error:
        raise CheckpointError("every convolution has weights", found=f"no {error}", where=where) from None
    return network.eval(), hashlib.sha256(text + content).hexdigest()


def _chain(layers: Sequence[dict[str, Any]], where: str) -> tuple[list[dict[str, Any]], str]:
    """The convolutions in order, and the activation that follows every one but the last."""
    kinds = [layer["class_name"] for layer in layers]
    convolutions = [layer["config"] for layer in layers if layer["class_name"] == "Conv3D"]
    acts = {layer["config"]["activation"] for layer in layers if layer["class_name"] == "Activation"}
    alternate = kinds == ["InputLayer", *["Conv3D", "Activation"] * (len(convolutions) - 1), "Conv3D"]
    plain = all(
        c["padding"] == "same"
        and set(c["strides"]) == {1}
        and len(set(c["dilation_rate"])) == 1
        and set(c["kernel_size"]) in ({1}, {3})
        and c["activation"] == "linear"
        and c["use_bias"]
        for c in convolutions
    )
    fits = all(a["filters"] == b["filters"] for a, b in pairwise(convolutions[:-1]))
    if not (len(convolutions) > 1 and alternate and plain and fits and len(acts) == 1 and acts <= set(ACTIVATIONS)):
        found = f"{', '.join(sorted(set(kinds)))}; {', '.join(sorted(acts))}"
        raise CheckpointError(
            "a MeshNet alternates padded, dilated 3D convolutions of one width with relu or elu",
            found=found,
            where=where,
        )
    return convolutions, acts.pop()


def _read(store: Store, name: str) -> bytes:
    try:
        return store.read(name)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise CheckpointError(
            "a MeshNet folder holds model.json and the files that it names", found=f"no {name}", where=store.uri
        ) from None
