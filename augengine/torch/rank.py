"""Which rank of a distributed run this process is."""

from __future__ import annotations

import os

import torch.distributed


def rank_and_world() -> tuple[int, int]:
    """Rank and number of ranks: of `torch.distributed` where it runs, else what torchrun and Ray Train set, else 0, 1.

    Workers of a `DataLoader` inherit the environment, not the process group.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
