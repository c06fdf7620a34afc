"""A recipe and shards in, a checkpoint folder out: training on Ray Train, resumed by the same call."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs
import torch
from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from augengine.diffusion import stable_diffusion_vae
from augengine.diffusion.autoencoder import AutoencoderSpec
from augengine.diffusion.build import build
from augengine.diffusion.checkpoint import SPEC, damage, read_spec
from augengine.diffusion.spec import ModelSpec
from augengine.errors import AugengineError, ConfigError, DataError, RunError
from augengine.io.changes import told_changes
from augengine.io.content import content_digest
from augengine.io.dataset import dataset_files
from augengine.io.run_lock import RunLock
from augengine.io.store import Place, Store
from augengine.machine import usable_cpus
from augengine.rng import digest
from augengine.train.config import Recipe
from augengine.train.fine_tune import fine_tuned
from augengine.train.loop import DAMAGED, train_worker
from augengine.train.metrics_file import MetricsTail
from augengine.train.model import model_spec, resolve_parts, validation_rows
from augengine.train.rows import DatasetFacts, Uris, dataset_facts, places_of
from augengine.train.shown_share import share_warning
from augengine.train.trackers import check as check_trackers
from augengine.train.workers import (
    ELASTIC_FAILURES,
    FAILURES,
    RESIZE_S,
    NumWorkers,
    bounds,
    check_shares,
    told,
    workers_get_gpus,
)

Progress = Callable[[str], None]
_RAY_LIST = "state/checkpoint_manager_snapshot.json"


def train(
    recipe: Recipe,
    data_uris: Uris,
    out_uri: Place,
    *,
    parts: Mapping[str, str] | None = None,
    init: str | None = None,
    num_workers: NumWorkers = 1,
    use_gpu: bool | None = None,
    threads_per_worker: int | None = None,
    progress: Progress = print,
) -> str:
    """Train `recipe` on the train split of the shards in `data_uris`; Ray must be initialised.

    Args:
        recipe: what to train.
        data_uris: an ingested data set, an augmented one, or several of them.
        out_uri: folder of the run: `checkpoint/` (the result), `state/` (for resuming), `metrics.jsonl`, `pictures/`.
        parts: folder of the checkpoint of each part, where the recipe does not say or another is wanted.
        init: folder of a checkpoint whose weights training starts from; see `augengine.train.fine_tune`.
        num_workers: Ray Train workers; the batch is shared among them. (least, most) takes as many as the cluster holds
            and goes on with fewer or more where machines go or come; noise and the order of sums follow from their
            number, and so the last bits of the weights. 0 trains in this process (Ray Train's local
            mode), on the GPU that Ray gave it, if any: no start-up; whoever kills this process calls again.
        use_gpu: one GPU per worker; None takes GPUs if the cluster has enough.
        threads_per_worker: CPU threads of each worker; None shares this machine's cores out.
        progress: receives one plain line at a time.

    Returns:
        URI of the checkpoint folder, at once if an earlier call finished it.

    Raises:
        ConfigError: the batch does not divide among the workers.
        DataError: no usable training rows.
        RunError: the cluster is too small, the folder belongs to another run, another job trains in it, or training
            failed too often (thrice, an elastic one 21 times).
    """
    out = Store.at(out_uri)
    check_settings(recipe, num_workers)
    with RunLock(out) as lock:
        uri = _train(recipe, data_uris, out, parts, init, num_workers, use_gpu, threads_per_worker, progress)
        lock.check()
        return uri


def _train(
    recipe: Recipe,
    data_uris: Uris,
    out: Store,
    parts: Mapping[str, str] | None,
    init: str | None,
    num_workers: NumWorkers,
    use_gpu: bool | None,
    threads_per_worker: int | None,
    progress: Progress,
) -> str:
    """As `train`, while nobody else writes to `out`."""
    checkpoint_uri = f"{out.uri}/checkpoint"
    data = [Store.at(place) for place in places_of(data_uris)]
    found = dataset_facts(data, recipe.data.rows("train"), recipe.any_shape)
    part_uris = resolve_parts(recipe, parts or {})
    chosen_by = validation_rows(recipe, data)
    spec = model_spec(recipe, found, {role: read_spec(uri) for role, uri in part_uris.items()}, chosen_by)
    init = None if init is None else Store(init).uri
    if init is not None:
        spec = fine_tuned(spec, read_spec(init), init)
    pretrained = None if recipe.pretrained is None else str(Path(recipe.pretrained).expanduser().resolve())
    if pretrained is not None:
        spec = spec.model_copy(update={"pretrained": stable_diffusion_vae.sha256(pretrained)})
    claim = _check_claim(out, recipe, found, spec, data, progress)
    if out.exists(f"checkpoint/{SPEC}"):
        problem = damage(checkpoint_uri)
        if problem is None:
            progress(f"{recipe.name}: already trained, {checkpoint_uri}")
            return checkpoint_uri
        progress(f"{recipe.name}: the checkpoint is damaged and is made again: {problem}")
        out.remove(f"checkpoint/{SPEC}")
    use_gpu = workers_get_gpus(num_workers, use_gpu) if num_workers else False
    with torch.device("meta"):
        network = build(spec)
    parameters = sum(p.numel() for p in network.parameters() if p.requires_grad)
    progress(
        f"{recipe.name}: {parameters / 1e6:.1f} M parameters to train, {found.rows} rows of {len(found.subjects)} "
        f"subjects, {told(num_workers)}"
    )
    least, most = bounds(num_workers)
    if least < most:
        progress(
            f"{recipe.name}: noise and the order of sums follow from the number of workers: where it changes, "
            "another run reaches other weights"
        )
    _tell_memory(recipe, found, progress)
    if recipe.kind == "segmenter":
        warning = share_warning(data, recipe.data.rows("train"), recipe.data.regions)
        if warning is not None:
            progress(f"{recipe.name}: {warning}")
    _begin(out, claim)  # only now: what was refused has not begun
    threads = threads_per_worker or max(1, usable_cpus() // max(1, most))
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={
            "recipe": recipe.model_dump(mode="json"),
            "spec": spec.model_dump(mode="json"),
            "data": data,
            "out": out,
            "threads": threads,
            "parts": part_uris,
            "pretrained": pretrained,
            "init": init,
            "local": num_workers == 0,
        },
        scaling_config=ScalingConfig(
            num_workers=(least, most) if least < most else most,
            use_gpu=use_gpu,
            resources_per_worker={"CPU": 1, "GPU": int(use_gpu)},
            elastic_resize_monitor_interval_s=RESIZE_S,
        ),
        run_config=RunConfig(
            name="state",
            storage_path=out.root,
            storage_filesystem=None if out.local else pafs.PyFileSystem(pafs.FSSpecHandler(out.fs)),
            failure_config=FailureConfig(max_failures=ELASTIC_FAILURES if least < most else FAILURES),
            checkpoint_config=CheckpointConfig(num_to_keep=recipe.keep_checkpoints),
        ),
    )
    own_threads = torch.get_num_threads()
    out.remove(DAMAGED)
    _check_ray_list(out, recipe, progress)
    with _Follower(out, recipe, progress):
        try:
            _fit(trainer, apart=num_workers != 0)
        except Exception as error:  # Ray wraps what a worker raised in several layers of its own
            raise _explained(error, out) from error
        finally:
            torch.set_num_threads(own_threads)  # without workers it was this process that trained
    if not out.exists(f"checkpoint/{SPEC}"):
        raise RunError("training ended without a checkpoint", where=out.uri, next_step="run the same command again")
    _tell_end(recipe, read_spec(checkpoint_uri).metrics, progress)
    return checkpoint_uri


def _fit(trainer: TorchTrainer, apart: bool) -> None:
    """Train; `apart` from this thread, which Ctrl-C then reaches at once: Ray Train's own handler waits for workers."""
    if not apart or threading.current_thread() is not threading.main_thread():
        trainer.fit()
        return
    raised: list[BaseException] = []

    def run() -> None:
        try:
            trainer.fit()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, name="augengine-train", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(0.2)
    if raised:
        raise raised[0]


def _check_ray_list(out: Store, recipe: Recipe, progress: Progress) -> None:
    """Remove Ray Train's list of states where it is damaged: the states themselves tell whether they are whole."""
    try:
        listed = out.read_json(_RAY_LIST) if out.exists(_RAY_LIST) else {"checkpoint_results": []}
        names = [str(result["checkpoint_dir_name"]) for result in listed["checkpoint_results"]]
        if all(out.sizes(f"state/{name}") for name in names):
            return
    except (DataError, KeyError, TypeError):
        pass
    progress(f"{recipe.name}: Ray Train's list of states is damaged, or names one that is gone; it is made anew")
    out.remove(_RAY_LIST)


def _tell_end(recipe: Recipe, metrics: Mapping[str, float], progress: Progress) -> None:
    """Say how a training ended where that is not after the recipe's steps, and whose weights the checkpoint holds."""
    done = int(metrics["steps"])
    if "worker_changes" in metrics:
        progress(
            f"{recipe.name}: changes of the number of workers on the way: {int(metrics['worker_changes'])}; "
            "another run would reach other weights"
        )
    if recipe.best_checkpoint is not None:
        text = "no validation loss was a number: the checkpoint holds the last weights"
        if "best_step" in metrics:
            text = f"the checkpoint holds the weights after step {int(metrics['best_step'])}, whose validation loss "
            text += f"{metrics['validation_loss']:.6g} was the least"
        if "stopped_early" in metrics:
            text += f"; {recipe.best_checkpoint.patience} validations in a row without a lower one ended the training "
            text += f"after {done} of {recipe.steps} steps"
        progress(f"{recipe.name}: {text}")
    if done < recipe.steps and "stopped_early" not in metrics:
        progress(
            f"{recipe.name}: max_minutes {recipe.max_minutes:g} cut the training after {done} of "
            f"{recipe.steps} steps; another machine would reach other weights"
        )


def check_files(recipe: Recipe, num_workers: NumWorkers, parts: Mapping[str, str], init: str | None = None) -> None:
    """As `train` refuses a recipe and its parts whatever the data are; needs no Ray.

    Raises:
        ConfigError, CheckpointError: with the setting or the part's folder.
    """
    check_settings(recipe, num_workers)
    for uri in (*resolve_parts(recipe, parts).values(), *([init] if init is not None else [])):
        read_spec(uri)


def check_settings(recipe: Recipe, num_workers: NumWorkers) -> None:
    """Refuse what no data can mend: a batch that does not divide among the workers, a tracker that is not installed,
    pretrained weights that are missing or of another network.

    Raises:
        ConfigError: with the setting.
    """
    check_shares(num_workers, recipe.optimiser.batch_size)
    check_trackers(recipe.trackers)
    if recipe.pretrained is not None:
        assert isinstance(recipe.network, AutoencoderSpec)  # `Recipe` sees to it
        stable_diffusion_vae.check(recipe.pretrained, recipe.network.diffusers)
    elif not recipe.steps:
        raise ConfigError(
            "a training of no steps takes the weights that it is given",
            found="steps 0 without pretrained",
            where=recipe.name,
            next_step="give --set pretrained=FOLDER, or steps",
        )


def _tell_memory(recipe: Recipe, found: DatasetFacts, progress: Progress) -> None:
    """Say so where a worker must hold more than the recipe allows: with less it would decode the same rows over again.

    Raises:
        ConfigError: more than this machine has.
    """
    data = recipe.data
    needed = found.window_bytes(data.window_groups, len(data.context))
    if needed <= data.cache_mb * 2**20:
        return
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    text = f"one window of {data.window_groups} row groups takes {-(-needed // 2**20)} MiB, decoded"
    if needed > memory:
        raise ConfigError(
            "a worker holds one window of row groups in memory",
            found=f"{text}, of {memory // 2**20} MiB here",
            next_step=f"lower data.window_groups to {max(1, data.window_groups * memory // (2 * needed))}",
        )
    progress(
        f"{recipe.name}: {text}; each worker keeps so much instead of data.cache_mb {data.cache_mb}, or it would "
        "decode a row group anew for almost every row (less memory: lower data.window_groups)"
    )


def _check_claim(
    out: Store, recipe: Recipe, found: DatasetFacts, spec: ModelSpec, data: Sequence[Place], progress: Progress
) -> dict[str, Any]:
    """Refuse a folder that another recipe or other data began: its state would be continued silently.

    Returns what `run.json` says of this run.

    `data_digest` counts what the rows are of, `content` is what they are; runs of older versions state the first alone.
    """
    mixture = [found.ids] if len(data) > 1 else []  # arms of an experiment may differ in the augmented rows alone
    wanted: dict[str, Any] = {
        "recipe": recipe.model_dump(mode="json"),
        "recipe_digest": recipe.digest,
        "data_digest": digest(
            found.rows, found.subjects, found.channels, found.image_size, *found.intensity.identity, *mixture
        ),
        "content": [content_digest(store, dataset_files(store)) for store in map(Store.at, data)],
        "parts": {role: part.sha256 for role, part in spec.parts.items()}
        | ({} if spec.pretrained is None else {"pretrained": spec.pretrained})
        | ({} if spec.initialised_from is None else {"init": spec.initialised_from}),
    }
    if out.exists("run.json"):
        before = out.read_mapping("run.json")
        if "content" not in before:
            progress(
                f"{recipe.name}: an older version began this run and did not record its data's content, so that "
                "nothing shows whether labels and pixels are still the same"
            )
            before["content"] = wanted["content"]
        for key, what in (
            ("recipe_digest", "recipe"),
            ("data_digest", "data"),
            ("content", "data"),
            ("parts", "parts"),
        ):
            if before.get(key) != wanted[key]:
                # Of data there are digests alone, which tell nobody anything.
                there, asked = ("", "") if what == "data" else told_changes(before.get(what), wanted[what])
                raise RunError(
                    f"this folder holds a run with another {what}",
                    found=there or None,
                    where=out.uri,
                    next_step="give another output folder, or delete this one"
                    + (f" (this run has {asked})" if asked else ""),
                )
    return wanted


def _begin(out: Store, claim: dict[str, Any]) -> None:
    """Write whose folder this is, unless it says so already."""
    if not out.exists("run.json"):
        out.write_json("run.json", claim)


def _explained(error: BaseException, out: Store) -> AugengineError:
    chain: list[BaseException] = [error]
    for item in chain:
        inner = [item.__cause__, *getattr(item, "worker_failures", {}).values()]
        chain += [e for e in inner if isinstance(e, BaseException) and e not in chain]
        if isinstance(item, AugengineError):
            return item
    last = chain[-1]
    text = str(last).strip().splitlines()
    return RunError(
        "training failed",
        found=f"{type(last).__name__}: {text[-1] if text else ''}",
        where=out.uri,
        next_step="mend the cause and run the same command again: it goes on from the last checkpoint",
    )


class _Follower:
    """Prints the latest metrics, from a thread of the driver."""

    def __init__(self, out: Store, recipe: Recipe, progress: Progress, every_s: float = 5.0) -> None:
        self.tail, self.recipe, self.progress, self.every_s = MetricsTail(out), recipe, progress, every_s
        self.stop = threading.Event()
        self.shown, self.told = -1, False
        self.thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> None:
        self.thread.start()

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join()
        self._show()

    def _run(self) -> None:
        while not self.stop.wait(self.every_s):
            self._show()

    def _show(self) -> None:
        if not self.told and self.tail.store.exists(DAMAGED):
            self.told = True
            text = self.tail.store.read(DAMAGED).decode().strip().replace("\n", "; ")
            self.progress(f"{self.recipe.name}: a training state is damaged: {text}")
        lines = [line for line in self.tail.lines() if "loss" in line]
        if not lines or lines[-1]["step"] == self.shown:
            return
        last = lines[-1]
        self.shown = last["step"]
        text = f"{self.recipe.name}: step {last['step']}/{self.recipe.steps}, loss {last['loss']:.4f}"
        text += f", {last['steps_per_s']:.1f} steps/s"
        self.progress(text + (f", {_minutes(last['eta_s'])} left" if "eta_s" in last else ""))


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
