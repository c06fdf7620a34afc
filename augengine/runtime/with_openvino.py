"""A network in; the same converted to OpenVINO and compiled for each shape that it meets out. CPU only.

A conversion takes up to a minute for a network of 37 million weights, so it is kept in the user's cache folder, under
the digest of the weights, the shapes and the versions; compiling it takes seconds. OpenVINO is an extra of the package
and is imported where it is used.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from augengine.diffusion.conditioning import Conditioning
from augengine.diffusion.denoisers import GenerativeNetwork
from augengine.policy.runtime import Precision
from augengine.rng import digest
from augengine.runtime.cache import cache_folder
from augengine.runtime.flat import Flat, given

HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
TYPES = {torch.float32: np.float32, torch.int64: np.int64}


class OpenVino:
    """`(x_t, t_B, conditioning) -> raw output` (float32) on as many threads as PyTorch has in this process.

    Threads are not pinned: pinned ones of several processes share the first cores and leave the others idle.
    """

    def __init__(self, network: GenerativeNetwork, precision: Precision) -> None:
        import openvino

        self.network, self.core = network, openvino.Core()
        self.options = {
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,
            "INFERENCE_PRECISION_HINT": HINTS[precision],
            "EXECUTION_MODE_HINT": "ACCURACY",
        }
        self.weights = _weights_digest(network)
        self.made: dict[tuple[Any, ...], Any] = {}

    def __call__(self, x: Tensor, t_B: Tensor, conditioning: Conditioning) -> Tensor:
        """As the network."""
        parts = given(self.network.prepared(conditioning, len(x)))
        tensors = (x, t_B, *parts.values())
        key = (*parts, *(tuple(tensor.shape) for tensor in tensors))
        if key not in self.made:
            self.made[key] = self._compiled(tuple(parts), tensors)
        request = self.made[key]
        found = request.infer([np.ascontiguousarray(tensor.detach().numpy()) for tensor in tensors])
        return torch.from_numpy(np.array(found[0], np.float32))

    def _compiled(self, names: tuple[str, ...], tensors: tuple[Tensor, ...]) -> Any:
        import openvino

        shapes = [[list(tensor.shape), str(tensor.dtype)] for tensor in tensors]
        key = digest(self.weights, names, shapes, openvino.__version__, torch.__version__, type(self.network).__name__)
        path = cache_folder("openvino") / f"{key}.xml"
        model = self.core.read_model(path) if _whole(path) else self._converted(names, tensors, path)
        return self.core.compile_model(model, "CPU", self.options).create_infer_request()

    def _converted(self, names: tuple[str, ...], tensors: tuple[Tensor, ...], path: Path) -> Any:
        import openvino

        flat = Flat(self.network, names).eval()
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of tracing: shapes are fixed on purpose
            model = openvino.convert_model(torch.export.export(flat, tensors))
        _keep(model, path)
        return model


def _weights_digest(network: nn.Module) -> str:
    """sha256 of all weights with their names."""
    found = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        found.update(name.encode())
        found.update(tensor.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _whole(path: Path) -> bool:
    """True if both files of a kept conversion are there; the description is moved into place last."""
    return path.exists() and path.with_suffix(".bin").exists()


def _keep(model: Any, path: Path) -> None:
    """Both files, under their names only when they are whole: several processes may do so at once."""
    import openvino

    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder) / "model.xml"
        openvino.save_model(model, made, compress_to_fp16=False)
        os.replace(made.with_suffix(".bin"), path.with_suffix(".bin"))
        os.replace(made, path)
