"""How many actors a cluster holds: as many as were asked for, or one line with the number that would fit."""

from __future__ import annotations

from pathlib import Path

import pytest

from augengine.errors import ConfigError, RunError
from augengine.pipeline.resources import ACTOR_BYTES, Node, check_disk, fit, free_bytes

GIB = 2**30
PC = [Node(2, 1, 16 * GIB)]
PAIR = [Node(8, 2, 64 * GIB), Node(8, 1, 64 * GIB)]


@pytest.mark.parametrize(
    ("nodes", "cpus", "gpus", "holds"),
    [
        (PC, 0.5, 0, 2),  # one per core
        (PC, 0.5, 1, 1),  # one per GPU
        (PC, 0.5, 0.5, 2),
        (PC, 1, 0, 1),  # a CPU is left for Ray's own tasks
        ([Node(1, 0, 16 * GIB)], 0.5, 0, 1),
        (PAIR, 0.5, 1, 3),
        (PAIR, 0.5, 2, 1),  # no node has the other two together
        (PAIR, 0.5, 0, 16),
        ([Node(64, 0, 4 * ACTOR_BYTES)], 0.5, 0, 4),  # memory for four
    ],
)
def test_without_a_number_there_are_as_many_as_the_cluster_holds(
    nodes: list[Node], cpus: float, gpus: float, holds: int
) -> None:
    assert fit(None, cpus, gpus, nodes) == holds
    assert fit(holds, cpus, gpus, nodes) == holds


@pytest.mark.parametrize(
    ("count", "cpus", "gpus", "says"),
    [
        (
            2,
            0.5,
            1,
            "2 actors need 0.5 CPU and 1 GPU each; found 2 CPUs and 1 GPUs on 1 node, room for 1; use",
        ),
        (None, 0.5, 2, "room for 0; lower --gpus-per-actor"),
        (4, 0.5, 0, "leave nothing for Ray's own tasks; found 2 CPUs"),
        (None, 2, 0, "leave nothing for Ray's own tasks"),
    ],
)
def test_what_does_not_fit_is_one_line(count: int | None, cpus: float, gpus: float, says: str) -> None:
    with pytest.raises(RunError) as error:
        fit(count, cpus, gpus, PC)
    assert says in str(error.value)


def test_actors_that_take_more_memory_than_there_is_are_refused() -> None:
    with pytest.raises(RunError, match="3 actors take 24 GiB of memory at least; found 16 GiB"):
        fit(3, 0.5, 0, PC, actor_bytes=8 * GIB)
    assert fit(None, 0.5, 0, PC, actor_bytes=9 * GIB) == 1


def test_a_share_of_gpus_that_ray_cannot_give() -> None:
    with pytest.raises(ConfigError, match=r"whole; found 1\.5"):
        fit(1, 0.5, 1.5, PC)


def test_a_disk_that_is_too_small(tmp_path: Path) -> None:
    free = free_bytes(tmp_path / "not" / "there")
    assert free is not None
    assert free > 0
    check_disk(tmp_path / "out", free / 2, "the output")
    with pytest.raises(RunError, match=r"the output takes about .* GiB; found .* GiB free"):
        check_disk(tmp_path / "out", free * 2, "the output")
    check_disk("memory://bucket/out", 1e30, "the output")  # an object store does not say
