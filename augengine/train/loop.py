"""What every training worker runs: batches to gradients to an averaged network, with checkpoints on the way.

Random numbers of step n come from (seed, n, rank), so a resumed run repeats what an undisturbed one does.
To resume, run the same command again; Ray restarts killed workers from the last checkpoint by itself.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

import ray.train
import ray.train.torch
import torch
from torch import Tensor, nn

from augengine import rng
from augengine.denormals import denormals
from augengine.diffusion.autoencoder import Autoencoder
from augengine.diffusion.build import build
from augengine.diffusion.checkpoint import load_model, save_model
from augengine.diffusion.ema import Ema
from augengine.diffusion.spec import ModelSpec
from augengine.io.store import Store
from augengine.report.image_grid import image_grid
from augengine.train import state
from augengine.train.best import Best
from augengine.train.config import Recipe
from augengine.train.data import Batch, BatchReader
from augengine.train.local_state import LocalState
from augengine.train.objectives import objective as make_objective
from augengine.train.objectives.base import Picture
from augengine.train.precision import Precision
from augengine.train.rows import SplitRows, Uris
from augengine.train.sharding import exchange, shard, whole
from augengine.train.trackers import Tracker, trackers

FINISH_BATCHES = 32
DAMAGED = "damaged_states.txt"


@denormals(flushed=True)  # moments fade to them
def train_worker(config: dict[str, Any]) -> None:
    """Train `config["recipe"]` as the model of `config["spec"]` on `config["data"]` into `config["out"]`."""
    recipe, spec = Recipe.model_validate(config["recipe"]), ModelSpec.model_validate(config["spec"])
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    device = ray.train.torch.get_device()
    torch.set_num_threads(config["threads"])
    out, hardware, lead = Store.at(config["out"]), recipe.hardware, rank == 0

    parts = {role: load_model(uri).network for role, uri in config["parts"].items()}
    network = build(spec, recipe.seed, parts or None)
    if config["init"] is not None:
        network.load_state_dict(load_model(config["init"]).network.state_dict())
    if config["pretrained"] is not None:
        assert isinstance(network, Autoencoder)  # `Recipe` sees to it
        network.start_from(config["pretrained"])
    objective = make_objective(recipe, spec, network, parts).to(device).train()
    reader = make_reader(config["data"], recipe.data.rows("train"), recipe, spec, recipe.optimiser.batch_size)
    stream = objective.begin(reader)
    if hardware.channels_last:
        layout = torch.channels_last if spec.spatial_dims == 2 else torch.channels_last_3d
        objective.to(memory_format=layout)  # type: ignore[call-overload]
    model: nn.Module = (
        shard(objective, device, methods=("pictures", "finish"))
        if hardware.shard
        else ray.train.torch.prepare_model(objective)
    )
    if hardware.compile:
        objective.network.compile()
    trained = [p for p in objective.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(
        trained,
        lr=recipe.optimiser.learning_rate,
        weight_decay=recipe.optimiser.weight_decay,
        fused=True,
    )
    ema, precision = Ema(objective.network, recipe.optimiser.ema_decay), Precision(hardware.precision, device)
    best = None if recipe.best_checkpoint is None else Best(recipe.best_checkpoint)
    local = LocalState(out) if config["local"] else None
    progress = state.Progress()
    with _last_state(local, out, lead) as folder:
        if folder is not None:
            progress = state.load(folder, objective, optimiser, ema, precision, best)
    if progress.worlds[-1:] != [world]:
        progress.worlds.append(world)
    validation = _validation_batch(config["data"], recipe, spec)
    log = _Log(out, recipe, progress) if lead else None
    clock = _Clock(recipe, progress.elapsed_s, rank, world)

    watching = lead or hardware.shard  # sharded, every forward pass is everybody's

    def validate() -> float | None:
        """Loss of the averaged weights, with the same noise and timesteps every time."""
        if validation is None or not watching:
            return None
        with ema.applied(objective.network), torch.no_grad(), precision.autocast():
            objective.eval()
            called = model if hardware.shard else objective
            losses = called(validation, rng.derive(recipe.seed, "validation"), progress.step)
        objective.train()
        return float(losses["total"])

    def judge() -> float | None:
        """Validate; where that chooses the checkpoint, every worker follows the loss that rank 0 found."""
        value = validate()
        if best is not None and validation is not None:
            agreed = _from_lead(value, world, device)
            best.offer(progress.step, agreed, lambda: whole(ema.weights))
        if log is not None and value is not None:
            log.validation(progress, value, None if best is None else best.step)
        return value

    def report() -> None:
        """Keep the state to restart from, after the metrics of its steps; every worker must call it."""
        if log is not None:
            log.metrics.flush()
        with tempfile.TemporaryDirectory() as folder:
            state.save(Path(folder), progress, objective, optimiser, ema, precision, best, write=lead)
            if local is not None:
                local.save(Path(folder), progress.step)
                return
            checkpoint = ray.train.Checkpoint.from_directory(folder) if lead else None
            ray.train.report(dataclasses.asdict(progress), checkpoint=checkpoint)

    def draw() -> None:
        """Pictures of what was learnt, of the same rows and noise every time."""
        if validation is None or not watching:
            return
        with ema.applied(objective.network):
            rows = objective.eval().pictures(validation, rng.derive(recipe.seed, "pictures"))
        objective.train()
        if log is not None:
            log.pictures(progress, rows)

    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(stream.batch, progress.step, rank, world)
        while (fraction := clock.fraction(progress.step)) < 1 and not (best is not None and best.exhausted):
            batch = coming.result()
            coming = pool.submit(stream.batch, progress.step + 1, rank, world)
            for group in optimiser.param_groups:
                group["lr"] = recipe.optimiser.learning_rate * rate_factor(recipe, progress.step, fraction)
            losses: dict[str, Tensor] = {}
            for n, rows in enumerate(micro_batches(len(batch), recipe.optimiser.accumulation)):
                seed = rng.derive(recipe.seed, "step", progress.step, rank, n)
                share = (rows.stop - rows.start) / len(batch)
                with exchange(model, rows.stop == len(batch)), precision.autocast():
                    found = model(batch.part(rows), seed, progress.step)
                    precision.backward(found["total"] * share)
                losses = {k: losses.get(k, 0) + v.detach() * share for k, v in found.items()}
            norm = precision.step(optimiser, trained, recipe.optimiser.clip_norm)
            ema.update(objective.network, progress.step)
            progress.step += 1
            progress.elapsed_s = clock.elapsed_s

            if log is not None:
                log.step(progress, losses, norm, clock.fraction_local(progress.step))
            if progress.step % recipe.validate_every == 0:
                judge()
            if recipe.pictures_every and progress.step % recipe.pictures_every == 0:
                draw()
            if clock.checkpoint_due():
                report()

    stopped_early = best is not None and best.exhausted and progress.step < recipe.steps
    value = judge()
    if best is not None and best.step is not None:
        state.average(ema, best.weights)
    if recipe.pictures_every:
        draw()
    with ema.applied(objective.network):
        objective.eval().finish(_some_batches(reader))
        weights = whole(objective.network.state_dict(), keep=lead)
    if log is not None:
        final = {"steps": float(progress.step), "train_seconds": progress.elapsed_s, "loss": log.metrics.loss}
        if len(progress.worlds) > 1:
            final["worker_changes"] = len(progress.worlds) - 1.0
        if stopped_early:
            final["stopped_early"] = 1.0
        if best is not None and best.step is not None:
            final["best_step"], value = float(best.step), best.loss
        if value is not None:
            final["validation_loss"] = value
        if device.type == "cuda":
            final["peak_gpu_bytes"] = float(torch.cuda.max_memory_allocated(device))
        log.close()
        # Of a run that had no step left to make there is no loss, and JSON has no number for it.
        known = {name: value for name, value in final.items() if math.isfinite(value)}
        save_model(out.folder("checkpoint"), spec.model_copy(update={"metrics": known}), weights)
    if local is None:
        report()
    else:
        local.remove()


@contextlib.contextmanager
def _last_state(local: LocalState | None, out: Store, lead: bool) -> Iterator[Path | None]:
    """The folder of the last good state; None at the beginning of a run.

    Damaged ones are passed over, which `damaged_states.txt` in the run's folder says. Every worker finds the same.
    """
    with tempfile.TemporaryDirectory() as folder:
        if local is not None:
            there, wrong = local.load(Path(folder))
        else:
            there, wrong = _reported(ray.train.get_checkpoint(), out, Path(folder))
        if wrong and lead:
            out.write(DAMAGED, ("\n".join([*wrong, "passed over" if there else "training began anew"]) + "\n").encode())
        yield Path(folder) if there else None


def _reported(last: ray.train.Checkpoint | None, out: Store, folder: Path) -> tuple[bool, list[str]]:
    """As `LocalState.load`, of the states that Ray Train keeps: the last that it knows and those before it."""
    base = PurePosixPath(last.path).name if last is not None else ""
    wrong: list[str] = []
    for name in sorted(
        (n for n in out.folders("state") if PurePosixPath(n).name.startswith("checkpoint_")), reverse=True
    ):
        if PurePosixPath(name).name > base and (last is not None or not out.exists(f"{name}/{state.SUMS}")):
            continue  # not whole when its worker died; where Ray's own list of states is lost, the sums tell
        for file in out.sizes(name):
            (folder / PurePosixPath(file).name).write_bytes(out.read(file))
        problem = state.damage(folder)
        if problem is None:
            return True, wrong
        wrong.append(f"{out.path(name)}: {problem}")
        for copied in folder.iterdir():
            copied.unlink()
    return False, wrong


def _from_lead(value: float | None, world: int, device: torch.device) -> float:
    """The loss of rank 0, on every worker; only there, or where weights are sharded, `value` is a number."""
    found = torch.tensor(math.nan if value is None else value, dtype=torch.float64)
    if world > 1:
        found = found.to(device)
        torch.distributed.broadcast(found, src=0)
    return float(found)


def make_reader(data: Uris, rows: SplitRows, recipe: Recipe, spec: ModelSpec, batch_size: int) -> BatchReader:
    """The reader of some rows as `spec` sees them."""
    return BatchReader(
        data,
        rows,
        recipe.seed,
        batch_size,
        spec.labels,
        context=spec.context,
        window_groups=recipe.data.window_groups,
        cache_mb=recipe.data.cache_mb,
        rule=spec.intensity.rule if spec.sees_images else None,
    )


def micro_batches(rows: int, parts: int) -> Iterator[slice]:
    """`rows` in at most `parts` slices of nearly equal length."""
    edges = sorted({round(n * rows / parts) for n in range(parts + 1)})
    yield from (slice(a, b) for a, b in pairwise(edges))


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
        done = step / self.recipe.steps if self.recipe.steps else 1.0
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


class _Log:
    """What rank 0 tells the world: `metrics.jsonl`, `pictures/`, trackers."""

    def __init__(self, out: Store, recipe: Recipe, progress: state.Progress) -> None:
        self.out = out
        self.metrics = state.Metrics(out, progress.step)
        self.trackers: list[Tracker] = trackers(recipe.name, out, recipe.trackers, progress.step)

    def step(self, progress: state.Progress, losses: dict[str, Tensor], norm: float, fraction: float) -> None:
        """Take note of a step."""
        values = {name: float(value) for name, value in losses.items()}
        if self.metrics.add(progress, values, norm, fraction):
            self._track(progress, {name: value for name, value in self.metrics.last.items() if name != "step"})

    def validation(self, progress: state.Progress, value: float, best_step: int | None) -> None:
        """Take note of a validation, and of the step of the best one so far where that chooses the checkpoint."""
        self.metrics.add_validation(progress, value, best_step)
        self._track(progress, {"validation_loss": value})

    def pictures(self, progress: state.Progress, rows: Sequence[Picture]) -> None:
        """Write a sample grid."""
        png = image_grid(rows)
        self.out.write(f"pictures/step-{progress.step:07d}.png", png)
        for tracker in self.trackers:
            tracker.picture(progress.step, "samples", png)

    def close(self) -> None:
        """Write what is left."""
        self.metrics.flush()
        for tracker in self.trackers:
            tracker.close()

    def _track(self, progress: state.Progress, values: dict[str, float]) -> None:
        for tracker in self.trackers:
            tracker.scalars(progress.step, values)


def _some_batches(reader: BatchReader) -> Iterator[Batch]:
    count = min(FINISH_BATCHES, -(-reader.rows // reader.batch_size))
    return (reader.batch(step) for step in range(count))


def _validation_batch(data: Uris, recipe: Recipe, spec: ModelSpec) -> Batch | None:
    reader = make_reader(data, recipe.data.rows("val"), recipe, spec, 1)
    count = min(recipe.data.validation_rows, reader.rows)
    return reader.first(count) if count else None
