"""Training steps of the demo network with its compact body and with MONAI's, interleaved in one run.

python benchmarks/network_speed.py
"""

from __future__ import annotations

import statistics
import time

import torch
from _record import record

from augengine.diffusion.build import build
from augengine.diffusion.conditioning import Conditioning
from augengine.diffusion.conditions import Vocabulary
from augengine.diffusion.spec import ModelSpec
from augengine.diffusion.unet import UNetSpec
from augengine.phantom.protocols import duke_protocols
from augengine.train.config import read_recipe

ROUNDS, BATCH, SIZE = 5, 16, 96


def main() -> None:
    """Measure seconds per forward and backward pass, bfloat16 autocast, all cores."""
    recipe = read_recipe("cddgm_small")
    acquisitions = [p.acquisition(0.5) for p in duke_protocols()]
    vocabulary = Vocabulary.fit(acquisitions)
    same = recipe.network.model_dump(exclude={"body"})
    bodies = {"compact": recipe.network, "monai": UNetSpec(**{**same, "body": "monai", "attention_levels": (4,)})}
    generator = torch.Generator().manual_seed(0)
    x, t = torch.randn(BATCH, 1, SIZE, SIZE, generator=generator), torch.full((BATCH,), 500)
    networks, seconds = {}, {name: [] for name in bodies}
    for name, network in bodies.items():
        spec = ModelSpec(
            network=network,
            diffusion=recipe.diffusion,
            vocabulary=vocabulary,
            channels=("t1",),
            labels=("fat", "fibroglandular"),
            image_size=(SIZE, SIZE),
            spacing_mm=(3.3, 3.3),
        )
        networks[name] = build(spec)
    planes = torch.rand(BATCH, spec.condition_planes, SIZE, SIZE, generator=generator)
    conditioning = Conditioning(planes, acquisition=vocabulary.encode(acquisitions[:BATCH]))
    for _ in range(ROUNDS + 1):
        for name, network in networks.items():
            started = time.monotonic()
            with torch.autocast("cpu", torch.bfloat16):
                out = network(x, t, conditioning)
            (out.float() - x).square().mean().backward()
            seconds[name].append(time.monotonic() - started)
    median = {name: round(statistics.median(values[1:]), 4) for name, values in seconds.items()}
    figures = {
        "seconds_per_step": median,
        "batch": BATCH,
        "size": SIZE,
        "rounds": ROUNDS,
        "parameters": {name: sum(p.numel() for p in n.parameters()) for name, n in networks.items()},
        "monai_over_compact": round(median["monai"] / median["compact"], 2),
    }
    print(figures)
    print(record("network_speed", figures))


if __name__ == "__main__":
    main()
