"""Sharding over two workers: the same training as one process, and checkpoints that either side can resume."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
import torch.distributed
import torch.multiprocessing
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from augengine.diffusion.ema import Ema
from augengine.errors import CheckpointError, ConfigError
from augengine.train.precision import Precision
from augengine.train.sharding import exchange, load_moments, load_network, moments, shard, share, whole

CPU = torch.device("cpu")
STEPS = 3


class Network(nn.Module):
    """A frozen layer, a buffer, a nested block, odd sizes that do not divide among the workers."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(3)
            self.first = nn.Linear(6, 15)
            self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(15, 15), nn.SiLU()), nn.Linear(15, 15)])
            self.last = nn.Linear(15, 1)
        self.first.bias.requires_grad_(False)
        self.register_buffer("shift", torch.full((15,), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x) + self.shift
        for block in self.blocks:
            x = x + block(x)
        return self.last(x)

    @torch.no_grad()
    def pictures(self) -> list[Tensor]:
        return [self(torch.ones(1, 6)), self.first(torch.ones(1, 6))]


class Run:
    """One training run, sharded or not, with the files of a checkpoint."""

    def __init__(self, sharded: bool, resumed: Path | None = None) -> None:
        self.network: nn.Module = Network()
        if sharded:
            self.network = shard(self.network, CPU, methods=["pictures"], unit_parameters=100)
        trained = [p for p in self.network.parameters() if p.requires_grad]
        self.optimiser = torch.optim.AdamW(trained, lr=1e-2, fused=True)
        self.ema = Ema(self.network, 0.9)
        self.precision, self.step = Precision("float32", CPU), 0
        if resumed is not None:
            load_network(self.network, load_file(resumed / "network.safetensors"))
            load_moments(self.network, self.optimiser, load_file(resumed / "optimiser.safetensors"))
            for name, value in load_file(resumed / "ema.safetensors").items():
                self.ema.weights[name] = share(value, self.ema.weights[name])
            self.step = STEPS

    def train(self, rank: int, world: int) -> list[float]:
        """`STEPS` steps of two micro-batches of four rows over all workers; the norms of the gradients."""
        norms = []
        for _ in range(STEPS):
            x = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(self.step))
            rows = slice(rank * 4 // world, (rank + 1) * 4 // world)
            for part in range(2):
                with exchange(self.network, due=part == 1):
                    self.precision.backward(self.network(x[part, rows]).square().mean() / 2)
            norms.append(self.precision.step(self.optimiser, self.network.parameters(), clip_norm=0.5))
            self.ema.update(self.network, self.step)
            self.step += 1
        with torch.no_grad():
            self.network(x[0])  # gathered parameters stay behind, as after a validation
        return norms

    def save(self, folder: Path, rank: int = 0) -> None:
        folder.mkdir(exist_ok=True)
        # Moments first: reading the network's state tidies away what a validation leaves behind.
        files = {
            "optimiser": moments(self.network, self.optimiser),
            "ema": self.ema.weights,
            "network": self.network.state_dict(),
        }
        for name, tensors in files.items():
            full = whole(tensors, keep=rank == 0)
            assert bool(full) == (rank == 0)
            if rank == 0:
                save_file(full, folder / f"{name}.safetensors")


def worker(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    try:
        fresh = Run(sharded=True)
        local = [p.to_local().numel() for p in fresh.network.parameters() if isinstance(p, DTensor)]
        assert len(local) == len(list(fresh.network.parameters()))
        assert sum(local) < 0.6 * sum(p.numel() for p in fresh.network.parameters())
        norms = fresh.train(rank, 2)
        fresh.save(folder / "sharded-3", rank)
        drawn = fresh.network.pictures()
        plain = Network()
        load_network(plain, whole(fresh.network.state_dict()))
        assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(drawn, plain.pictures(), strict=True))
        if rank == 0:
            save_file({"norms": torch.tensor(norms)}, folder / "norms.safetensors")
        resumed = Run(sharded=True, resumed=folder / "alone-3")
        resumed.train(rank, 2)
        resumed.save(folder / "resumed-sharded-6", rank)
        check_overflow_of_one_worker(rank)
        check_unsharded_workers_exchange_when_due(rank)
    finally:
        torch.distributed.destroy_process_group()


def check_overflow_of_one_worker(rank: int) -> None:
    """One infinite element, which stands in the shard of one worker, must stop the step of both."""
    layer = shard(nn.Linear(2, 4, bias=False), CPU)
    optimiser = torch.optim.SGD(layer.parameters(), lr=1.0)
    precision = Precision("float16", CPU)
    before = whole(layer.state_dict())["weight"]
    out = layer(torch.ones(1, 2))
    factor = torch.tensor([float("inf") if rank == 1 else 1.0, 1.0, 1.0, 1.0])
    precision.backward((out * factor).sum())
    precision.step(optimiser, layer.parameters(), clip_norm=1.0)
    assert precision.skipped == 1
    assert torch.equal(whole(layer.state_dict())["weight"], before)


def check_unsharded_workers_exchange_when_due(rank: int) -> None:
    model = nn.parallel.DistributedDataParallel(nn.Linear(1, 1, bias=False))
    parameter = model.module.weight
    for due, wanted in ((False, 1.0 + rank), (True, 3.0)):
        with exchange(model, due):
            model(torch.full((1, 1), 1.0 + rank)).sum().backward()
        assert parameter.grad is not None
        assert parameter.grad.item() == wanted


def same(a: Path, b: Path) -> None:
    for name in ("network", "ema", "optimiser"):
        left, right = load_file(a / f"{name}.safetensors"), load_file(b / f"{name}.safetensors")
        assert left.keys() == right.keys()
        for key, value in left.items():
            torch.testing.assert_close(value, right[key], rtol=1e-4, atol=1e-6, msg=f"{name} {key}")


def test_two_sharded_workers_train_as_one_and_resume_each_other(tmp_path: Path) -> None:
    alone = Run(sharded=False)
    norms = alone.train(0, 1)
    alone.save(tmp_path / "alone-3")
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.multiprocessing.spawn(worker, args=(tmp_path,), nprocs=2)
    assert load_file(tmp_path / "norms.safetensors")["norms"].tolist() == pytest.approx(norms, rel=1e-4)
    same(tmp_path / "alone-3", tmp_path / "sharded-3")

    alone.train(0, 1)
    alone.save(tmp_path / "alone-6")
    same(tmp_path / "alone-6", tmp_path / "resumed-sharded-6")
    resumed = Run(sharded=False, resumed=tmp_path / "sharded-3")
    resumed.train(0, 1)
    resumed.save(tmp_path / "resumed-alone-6")
    same(tmp_path / "alone-6", tmp_path / "resumed-alone-6")


def test_names_survive_another_order_of_parameters() -> None:
    run = Run(sharded=False)
    run.train(0, 1)
    found = whole(moments(run.network, run.optimiser))
    assert "blocks.0.0.weight.exp_avg" in found
    assert not any(name.startswith("first.bias") for name in found), "frozen weights have no moments"
    other = torch.optim.AdamW([*run.network.parameters()][::-1], lr=1.0)
    load_moments(run.network, other, found)
    assert torch.equal(other.state[run.network.get_parameter("last.weight")]["exp_avg"], found["last.weight.exp_avg"])
    assert other.param_groups[0]["lr"] == 1.0


def test_what_had_no_gradient_yet_has_no_moments_after_resuming() -> None:
    run, resumed = Run(sharded=False), Run(sharded=False)
    assert moments(run.network, run.optimiser) == {}
    run.network.last.requires_grad_(False)
    run.train(0, 1)
    run.network.last.requires_grad_(True)
    before = [p.clone() for p in resumed.network.parameters()]
    load_moments(resumed.network, resumed.optimiser, whole(moments(run.network, run.optimiser)))
    last = set(resumed.network.last.parameters())
    assert set(resumed.optimiser.state) == {p for p in resumed.network.parameters() if p.requires_grad} - last
    assert {entry["step"].item() for entry in resumed.optimiser.state.values()} == {STEPS}
    assert all(torch.equal(a, b) for a, b in zip(before, resumed.network.parameters(), strict=True))


def test_memory_format_is_kept_and_files_are_contiguous() -> None:
    like = torch.zeros(4, 3, 3, 3).to(memory_format=torch.channels_last)
    full = torch.arange(108.0).view(4, 3, 3, 3)
    part = share(full, like)
    assert part.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(part, full)
    saved = whole({"a": part})["a"]
    assert saved.is_contiguous()
    assert torch.equal(saved, full)
    part.zero_()
    assert saved.any(), "a checkpoint is a copy"


def test_sharding_refuses_channels_last() -> None:
    with pytest.raises(ConfigError, match="contiguous"):
        shard(nn.Conv2d(4, 4, 3).to(memory_format=torch.channels_last), CPU)


def test_state_of_another_network_is_refused() -> None:
    run = Run(sharded=False)
    run.train(0, 1)
    weights, found = whole(run.network.state_dict()), whole(moments(run.network, run.optimiser))
    with pytest.raises(CheckpointError, match=r"last\.bias: nothing saved, \(1,\) wanted"):
        load_network(run.network, {k: v for k, v in weights.items() if k != "last.bias"})
    with pytest.raises(CheckpointError, match=r"extra: \(2,\) saved, nothing wanted"):
        load_network(run.network, {**weights, "extra": torch.zeros(2)})
    with pytest.raises(CheckpointError, match=r"\(1, 9\) saved, \(1, 15\) wanted"):
        load_moments(run.network, run.optimiser, {**found, "last.weight.exp_avg": torch.zeros(1, 9)})
