"""What every training worker runs: batches to gradients to an averaged network, with checkpoints on the way.

Random numbers of step n come from (seed, n, rank), so a resumed run repeats what an undisturbed one does.
To resume, run the same command again; Ray restarts killed workers from the last checkpoint by itself.
"""

from __future__ import annotations

import contextlib
import json
import math
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import ray.train
import ray.train.torch
import torch
from torch import Tensor, nn

from augengine import rng
from augengine.diffusion.checkpoint import build, save_generator
from augengine.diffusion.ema import Ema
from augengine.diffusion.networks import AcquisitionUNet
from augengine.diffusion.schedules import Schedule, target
from augengine.diffusion.spec import ModelSpec
from augengine.diffusion.structure import NO_MASK, draw_heights, planes, recolour
from augengine.io.store import Store
from augengine.train import state
from augengine.train.config import Recipe
from augengine.train.data import Batch, BatchReader
from augengine.train.warp import warp


def train_worker(config: dict[str, Any]) -> None:
    """Train `config["recipe"]` as the network of `config["spec"]` on `config["data"]` into `config["out"]`."""
    recipe, spec = Recipe.model_validate(config["recipe"]), ModelSpec.model_validate(config["spec"])
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    device = ray.train.torch.get_device()
    torch.set_num_threads(config["threads"])
    torch.set_flush_denormal(True)  # moments that fade to denormals slow a CPU down fiftyfold
    out = Store(config["out"])

    network = build(spec, recipe.seed).to(device)
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=recipe.optimiser.learning_rate, weight_decay=recipe.optimiser.weight_decay, fused=True
    )
    ema, progress = Ema(network, recipe.optimiser.ema_decay), state.Progress()
    last = ray.train.get_checkpoint()
    if last is not None:
        with last.as_directory() as folder:
            progress = state.load(Path(folder), network, optimiser, ema)
    metrics = state.Metrics(out, progress.step) if rank == 0 else None

    schedule = Schedule(spec.diffusion)
    reader = BatchReader(
        config["data"], "train", recipe.seed, recipe.optimiser.batch_size, spec.labels,
        window_groups=recipe.data.window_groups, cache_mb=recipe.data.cache_mb,
    )  # fmt: skip
    validation = _validation_batch(config["data"], spec, recipe) if rank == 0 else None
    model = ray.train.torch.prepare_model(network)
    clock = _Clock(recipe, progress.elapsed_s, rank, world)

    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(reader.batch, progress.step, rank, world)
        while (fraction := clock.fraction(progress.step)) < 1:
            batch = coming.result()
            coming = pool.submit(reader.batch, progress.step + 1, rank, world)
            for group in optimiser.param_groups:
                group["lr"] = recipe.optimiser.learning_rate * rate_factor(recipe, progress.step, fraction)
            seed = rng.derive(recipe.seed, "step", progress.step, rank)
            with _autocast(recipe, device):
                loss = batch_loss(model, spec, recipe, schedule, batch, seed, device)
            loss.backward()  # type: ignore[no-untyped-call]
            norm = nn.utils.clip_grad_norm_(network.parameters(), recipe.optimiser.clip_norm)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            ema.update(network, progress.step)
            progress.step += 1
            progress.elapsed_s = clock.elapsed_s

            if metrics is not None:
                metrics.add(progress, float(loss), float(norm), clock.fraction_local(progress.step))
            if progress.step % recipe.validate_every == 0 and metrics is not None and validation is not None:
                value = _validation_loss(network, ema, spec, recipe, schedule, validation, device)
                metrics.add_validation(progress, value)
            if clock.checkpoint_due():
                _report(progress, network, optimiser, ema, rank)

    if metrics is not None:
        final = {"steps": float(progress.step), "train_seconds": progress.elapsed_s, "loss": metrics.recent_loss}
        if validation is not None:
            value = _validation_loss(network, ema, spec, recipe, schedule, validation, device)
            metrics.add_validation(progress, value)
            final["validation_loss"] = value
        metrics.flush()
        weights = {name: value.cpu() for name, value in ema.weights.items()}
        save_generator(Store(out.path("checkpoint")) if out.local else Store(f"{out.uri}/checkpoint"),
                       spec.model_copy(update={"metrics": final}), weights)  # fmt: skip
    _report(progress, network, optimiser, ema, rank)


def batch_loss(
    model: nn.Module, spec: ModelSpec, recipe: Recipe, schedule: Schedule, batch: Batch, seed: int,
    device: torch.device,
) -> Tensor:  # fmt: skip
    """Denoising loss of one batch (Ho et al. 2020, eq. 14, in the recipe's parametrisation); all noise from `seed`."""
    generator = torch.Generator().manual_seed(seed)
    x0, tissue = torch.from_numpy(batch.images), torch.from_numpy(batch.tissue)
    rows = len(x0)
    if recipe.warp is not None:
        x0, tissue = warp(x0, tissue, recipe.warp, generator)
    t_B = torch.randint(0, spec.diffusion.timesteps, (rows,), generator=generator)
    noise = torch.randn(x0.shape, generator=generator)
    condition = spec.vocabulary.encode(batch.acquisitions)
    condition = condition.drop(torch.rand(rows, generator=generator) < recipe.condition_dropout)
    structure = None
    if recipe.structure is not None:
        tissue[torch.rand(rows, generator=generator) < recipe.structure.mask_dropout] = NO_MASK
        heights = draw_heights(rows, len(spec.labels), x0.shape[1], generator)
        structure = planes(recolour(x0, tissue, heights), tissue, len(spec.labels))
        structure[torch.rand(rows, generator=generator) < recipe.structure.dropout] = 0
        structure = structure.to(device)
    x0, noise = x0.to(device), noise.to(device)
    x_t = schedule.noised(x0, noise, t_B)
    output = model(x_t, t_B.to(device), condition.to(device), structure)
    wanted = target(spec.diffusion.parametrisation, schedule, x0, noise, t_B)
    error_B = (output.float() - wanted).square().flatten(1).mean(1)
    weighted: Tensor = error_B * loss_weight(spec, recipe, schedule, t_B).to(device)
    return weighted.mean()


def loss_weight(spec: ModelSpec, recipe: Recipe, schedule: Schedule, t_B: Tensor) -> Tensor:
    """Weight of each row; min-SNR-gamma in the form that belongs to the parametrisation (Hang et al. 2023, eq. 7)."""
    if recipe.loss.weighting == "simple":
        return torch.ones(len(t_B))
    level = schedule.alpha_bar[t_B]
    snr = level / (1 - level)
    clipped = snr.clamp(max=recipe.loss.min_snr_gamma)
    divisor = {"x0": torch.ones_like(snr), "epsilon": snr, "v": snr + 1}[spec.diffusion.parametrisation]
    return (clipped / divisor).float()


def rate_factor(recipe: Recipe, step: int, fraction: float) -> float:
    """Learning rate relative to its peak: linear warm-up, then constant or a cosine over the run's `fraction`."""
    warm = min(1.0, (step + 1) / max(1, recipe.optimiser.warmup_steps))
    if recipe.optimiser.decay == "constant":
        return warm
    return warm * 0.5 * (1 + math.cos(math.pi * min(1.0, fraction)))


class _Clock:
    """Decides, equally on all ranks, how much of the run is done and when to checkpoint."""

    def __init__(self, recipe: Recipe, before_s: float, rank: int, world: int) -> None:
        self.recipe, self.before_s, self.world = recipe, before_s, world
        self.start = self.saved = time.monotonic()
        self._due = False

    @property
    def elapsed_s(self) -> float:
        return self.before_s + time.monotonic() - self.start

    def fraction_local(self, step: int) -> float:
        """Done share by this worker's own clock."""
        done = step / self.recipe.steps
        if self.recipe.max_minutes is None:
            return done
        return max(done, self.elapsed_s / (60 * self.recipe.max_minutes))

    def fraction(self, step: int) -> float:
        """Done share by the clock of rank 0."""
        due = time.monotonic() - self.saved >= 60 * self.recipe.checkpoint_minutes
        values = torch.tensor([self.fraction_local(step), float(due)], dtype=torch.float64)
        if self.world > 1:
            values = values.to(ray.train.torch.get_device())
            torch.distributed.broadcast(values, src=0)
        self._due = bool(values[1])
        return float(values[0])

    def checkpoint_due(self) -> bool:
        """True once per checkpoint interval, on all ranks in the same step."""
        if self._due:
            self.saved, self._due = time.monotonic(), False
            return True
        return False


def _autocast(recipe: Recipe, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    if recipe.precision == "float32" or (recipe.precision == "auto" and not _multiplies_bfloat16(device)):
        return contextlib.nullcontext()
    return cast(contextlib.AbstractContextManager[Any], torch.autocast(device.type, torch.bfloat16))


def _multiplies_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.backends.cpu.get_cpu_capability() if device.type == "cpu" else ""
    return "AVX512" in capabilities and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _validation_batch(data: str, spec: ModelSpec, recipe: Recipe) -> Batch | None:
    reader = BatchReader(data, "val", recipe.seed, 1, spec.labels, cache_mb=recipe.data.cache_mb)
    count = min(recipe.data.validation_rows, reader.rows)
    return reader.first(count) if count else None


@torch.no_grad()
def _validation_loss(
    network: AcquisitionUNet, ema: Ema, spec: ModelSpec, recipe: Recipe, schedule: Schedule, batch: Batch,
    device: torch.device,
) -> float:  # fmt: skip
    """Loss of the averaged weights with the same noise and timesteps every time."""
    with _weights(network, ema), _autocast(recipe, device):
        seed = rng.derive(recipe.seed, "validation")
        return float(batch_loss(network, spec, recipe, schedule, batch, seed, device))


@contextlib.contextmanager
def _weights(network: nn.Module, ema: Ema) -> Iterator[None]:
    own = {name: value.clone() for name, value in network.state_dict().items()}
    network.load_state_dict(ema.weights)
    network.eval()
    try:
        yield
    finally:
        network.load_state_dict(own)
        network.train()


def _report(
    progress: state.Progress, network: nn.Module, optimiser: torch.optim.Optimizer, ema: Ema, rank: int
) -> None:
    """Hand rank 0's state to Ray as the checkpoint to restart from; every rank must report."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = None
        if rank == 0:
            state.save(Path(folder), progress, network, optimiser, ema)
            checkpoint = ray.train.Checkpoint.from_directory(folder)
        ray.train.report(json.loads(progress.to_json()), checkpoint=checkpoint)
