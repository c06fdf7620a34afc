"""A runtime and a device in; whether this machine can do it, told before anything is computed, out."""

from __future__ import annotations

import shutil
from importlib.util import find_spec

from augengine.errors import ConfigError
from augengine.policy.runtime import Runtime

_OPENVINO = {"fp32": "FP32", "bf16": "BF16", "fp16": "FP16"}


def openvino_precisions() -> frozenset[str]:
    """Precisions in which OpenVINO computes on this processor; none where it is not installed."""
    if find_spec("openvino") is None:
        return frozenset()
    import openvino

    able = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return frozenset(name for name, capability in _OPENVINO.items() if capability in able)


def check(runtime: Runtime, device: str) -> None:
    """Refuse a settled runtime that this machine cannot obey.

    Args:
        device: `cpu` or `cuda`.

    Raises:
        ConfigError: OpenVINO is missing, on a GPU, or would fall back to another precision; no compiler for `compile`.
    """
    if not runtime.settled:
        raise ConfigError(
            "runtime 'auto' is chosen when a run is planned",
            found=runtime.model_dump(),
            next_step="call augengine.pipeline.runtime.settled first",
        )
    if runtime.backend == "openvino":
        able = openvino_precisions()
        if device != "cpu":
            raise ConfigError("runtime.backend openvino is for CPUs", found=device, next_step="set compile or eager")
        if not able:
            raise ConfigError(
                "runtime.backend openvino needs OpenVINO",
                found="not installed",
                next_step="pip install 'augengine[openvino]', or set runtime.backend: eager",
            )
        if runtime.precision not in able:
            raise ConfigError(
                f"OpenVINO would compute in float32 on this processor, not in {runtime.precision}",
                found=f"it can do {', '.join(sorted(able))}",
                next_step="set runtime.precision: fp32",
            )
    if runtime.backend == "compile" and device == "cpu" and not any(map(shutil.which, ("g++", "clang++", "c++"))):
        raise ConfigError(
            "runtime.backend compile needs a C++ compiler on a CPU",
            found="none in the path",
            next_step="install g++, or set runtime.backend: eager",
        )
