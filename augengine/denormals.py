"""Whether numbers too small for full precision count as 0 in this thread, for a while: on in training, off in geometry.

Moments that fade to denormals slow a CPU down fiftyfold, so trainings round them to 0. But the setting belongs to the
thread and not to torch: it outlasts a training in the caller's process, and NumPy and SciPy follow it. A tree of
distances (KDTree of SciPy 1.17.1, which MONAI's surface distances build) has ended a process for it, without any
Python error.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

_SMALLEST = np.float64(5e-324)


def flushes() -> bool:
    """True where denormal numbers count as 0 in this thread."""
    return bool(_SMALLEST * np.float64(1) == 0)


@contextmanager
def denormals(*, flushed: bool) -> Iterator[None]:
    """Count denormal numbers as 0, or keep them, in this thread and those that it starts; afterwards as before."""
    before = flushes()
    torch.set_flush_denormal(flushed)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)
