"""How many Ray Train workers a training may have: one number, or the least and the most that it goes on with."""

from __future__ import annotations

from augengine.errors import ConfigError, RunError

NumWorkers = int | tuple[int, int]
"""As Ray Train has it: a number, or (least, most) of an elastic training."""
FAILURES, ELASTIC_FAILURES = 2, 20
"""Lost workers or nodes that a training survives; machines that come and go are lost more often."""
RESIZE_S = 60.0
"""Time between looks at whether the cluster holds more workers; each change begins again from the last checkpoint."""


def bounds(num_workers: NumWorkers) -> tuple[int, int]:
    """The least and the most."""
    return num_workers if isinstance(num_workers, tuple) else (num_workers, num_workers)


def told(num_workers: NumWorkers) -> str:
    """In words.

    >>> told(1), told((2, 4))
    ('1 worker', '2 to 4 workers')
    """
    least, most = bounds(num_workers)
    return f"{least} to {most} workers" if least < most else f"{most} worker{'s' if most != 1 else ''}"


def check_shares(num_workers: NumWorkers, batch_size: int) -> None:
    """Refuse a batch that does not divide among any number of workers that there may be.

    Raises:
        ConfigError: with the numbers.
    """
    least, most = bounds(num_workers)
    uneven = [n for n in range(max(1, least), most + 1) if batch_size % n]
    if uneven:
        raise ConfigError(
            "optimiser.batch_size must divide evenly among the workers",
            found=f"{batch_size} rows for {' or '.join(map(str, uneven))} workers",
            next_step="change --workers or --set optimiser.batch_size",
        )


def workers_get_gpus(num_workers: NumWorkers, use_gpu: bool | None = None) -> bool:
    """Whether workers get GPUs. Ray waits for ever for resources that the cluster does not have: `RunError`.

    Of an elastic training the cluster need hold the least number alone.
    """
    import ray  # late: whoever only reads flags does without

    least, _ = bounds(num_workers)
    cpus, gpus = (int(ray.cluster_resources().get(name, 0)) for name in ("CPU", "GPU"))
    use_gpu = gpus >= least if use_gpu is None else use_gpu
    if cpus < least:
        raise RunError(f"{least} workers need a CPU each", found=f"{cpus} CPUs", next_step="lower --workers")
    if use_gpu and gpus < least:
        raise RunError(f"{least} workers need a GPU each", found=f"{gpus} GPUs", next_step="lower --workers")
    return use_gpu
