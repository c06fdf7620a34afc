"""Stable Diffusion's autoencoder (Rombach et al. 2022): its network from settings, its weights from a local folder.

The folder is one that diffusers' `AutoencoderKL.save_pretrained` wrote, or a download of such: `config.json` and
`diffusion_pytorch_model.safetensors`. Nothing is fetched, and pickled weights (`.bin`) are not read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from augengine.errors import ConfigError

CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"
KIND = "AutoencoderKL"


def network(settings: Mapping[str, Any]) -> nn.Module:
    """The network of diffusers' settings with random weights."""
    from diffusers import AutoencoderKL  # late: importing diffusers takes seconds

    found: nn.Module = AutoencoderKL(**settings)
    return found


def check(folder: str, settings: Mapping[str, Any]) -> None:
    """Refuse a folder that does not hold weights of a network of these settings; reads no weights.

    Raises:
        ConfigError: with the file, or the setting that differs.
    """
    from diffusers import AutoencoderKL

    place = Path(folder)
    for name in (CONFIG, WEIGHTS):
        if not (place / name).is_file():
            raise ConfigError(
                f"a folder of pretrained weights holds {CONFIG} and {WEIGHTS}",
                found=f"no {name}",
                where=folder,
                next_step="give a local folder that diffusers' AutoencoderKL.save_pretrained wrote",
            )
    try:
        config = json.loads((place / CONFIG).read_text(encoding="utf-8"))
    except ValueError:
        raise ConfigError("this file is not valid JSON", where=str(place / CONFIG)) from None
    kind = config.get("_class_name") if isinstance(config, dict) else None
    if kind != KIND:
        raise ConfigError(f"pretrained weights are those of a diffusers {KIND}", found=kind, where=folder)
    with torch.device("meta"):
        there = AutoencoderKL.from_config(config).config  # with the defaults of what the file leaves out
    for name, wanted in settings.items():
        value = tuple(there[name]) if isinstance(there[name], list | tuple) else there[name]
        if value != wanted:
            raise ConfigError(
                f"the recipe's network has {name} {wanted}",
                found=value,
                where=str(place / CONFIG),
                next_step="set the recipe's section network to what the weights are of",
            )


def read(folder: str) -> dict[str, Tensor]:
    """The weights, named as in `network`, those of older versions of diffusers too; float32."""
    from diffusers import AutoencoderKL

    found = AutoencoderKL.from_pretrained(
        folder, local_files_only=True, use_safetensors=True, low_cpu_mem_usage=False, torch_dtype=torch.float32
    )
    weights: dict[str, Tensor] = found.state_dict()
    return weights


def sha256(folder: str) -> str:
    """Hex digest of the weights' file."""
    with open(Path(folder) / WEIGHTS, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
