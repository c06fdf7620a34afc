"""What a policy's section `runtime` may say: by what, in which numbers and in what portions networks are evaluated."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from augengine.yaml_config import Strict

Precision = Literal["fp32", "bf16", "fp16"]


class Runtime(Strict):
    """How a policy's diffusion models are evaluated. Every value changes the last bits of a row, so all are digested.

    Attributes:
        backend: `eager` is PyTorch as it stands, `compile` is `torch.compile`, `openvino` is OpenVINO (the package's
            extra of that name; CPU only). `auto` is chosen when a run is planned (`augengine.pipeline.runtime`) and is
            written to the run's policy as what was chosen.
        precision: of the arithmetic; weights are kept in float32, and the sampler always computes in float32.
        channels_last: keep images with their channels innermost; for `eager` and `compile`.
        network_batch: rows per evaluation, guided ones counted twice. `whole` evaluates the micro-batch at once;
            on a CPU few rows are faster, since what they pass from layer to layer stays in the cache. `auto` is
            measured when a run is planned. With a number, a row's bits do not depend on `output.micro_batch`.
    """

    backend: Literal["auto", "eager", "compile", "openvino"] = "eager"
    precision: Precision = "fp32"
    channels_last: bool = False
    network_batch: Annotated[int, Field(ge=1, le=1024)] | Literal["auto", "whole"] = "whole"

    @model_validator(mode="after")
    def _agrees(self) -> Runtime:
        if self.channels_last and self.backend == "openvino":
            raise ValueError("channels_last is for backends eager and compile; openvino chooses its own layouts")
        return self

    @property
    def settled(self) -> bool:
        """True if nothing is left to be chosen."""
        return self.backend != "auto" and self.network_batch != "auto"

    @property
    def plain(self) -> bool:
        """True for the evaluation that a policy without this section has."""
        return self == Runtime()
