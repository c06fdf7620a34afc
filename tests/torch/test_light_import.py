"""What a trainer imports is PyTorch, pyarrow and numpy: no Ray, and no library that only some items need."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ("ray", "monai", "torchio", "torchdata", "matplotlib", "diffusers", "skimage", "pandas", "torchmetrics")


def test_importing_the_room_loads_nothing_heavy() -> None:
    code = f"import sys, augengine.torch; print(*sorted(set({HEAVY!r}) & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"
