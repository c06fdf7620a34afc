#!/usr/bin/env bash
# torch 2.13.0 and NumPy 2.4.6: `torch.set_flush_denormal(True)` changes NumPy's comparisons, and it cannot be asked for.
#
# A training sets it for speed, since moments of Adam fade to denormals. It is no setting of torch's: it is the thread's
# own, so NumPy and SciPy follow it for as long as the thread lives, and threads begun later take it over. The next
# number after 0 is then not above 0 and equal to it, though its bytes are others, and `np.unique` drops it. Code that
# steps to the next number and compares, as geometry does, goes wrong in the same process: a KDTree of SciPy 1.17.1,
# which MONAI's surface distances build, has ended one without any Python error. torch has no call that says whether it
# is set; a product of a denormal and 1 tells. Guess before: it holds for torch's own kernels.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --quiet torch==2.13.0 numpy==2.4.6
cd "$place"
venv/bin/python - > seen <<'PY'
import threading

import numpy as np
import torch


def look(where: str) -> None:
    zero = np.zeros(1)
    after = np.nextafter(zero, 1)
    print(f"{where}: above 0 {(after > zero).item()}, equal {(after == zero).item()}, "
          f"same bytes {after.tobytes() == zero.tobytes()}, unique {np.unique(np.concatenate([zero, after])).size}")


look("at first")
torch.set_flush_denormal(True)
look("after torch's call")
thread = threading.Thread(target=look, args=("in a thread begun after it",))
thread.start()
thread.join()
torch.set_flush_denormal(False)
look("taken back")
PY
cat seen
diff seen - <<'TEXT'
at first: above 0 True, equal False, same bytes False, unique 2
after torch's call: above 0 False, equal True, same bytes False, unique 1
in a thread begun after it: above 0 False, equal True, same bytes False, unique 1
taken back: above 0 True, equal False, same bytes False, unique 2
TEXT
