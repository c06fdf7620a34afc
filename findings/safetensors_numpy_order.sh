#!/usr/bin/env bash
# safetensors 0.8.0, `safetensors.numpy`: an array in Fortran order is saved with its values in another order, silently.
#
# nibabel gives NIfTI voxels in Fortran order, and `.T` and `np.transpose` give views of that kind. `save` writes the
# buffer as it lies in memory under the array's shape, so that what is read back has the same shape and the same
# values, each somewhere else. `safetensors.torch.save` refuses tensors that are not contiguous; here there is neither
# an error nor a copy. `np.ascontiguousarray` before saving gives the right values. Guess before: a copy in C order, as
# `np.save` and `tobytes` make it.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --quiet safetensors==0.8.0 numpy==2.4.6 nibabel==5.4.2
cd "$place"
venv/bin/python - > seen <<'PY'
import nibabel
import numpy as np
from safetensors.numpy import load, save

nibabel.save(nibabel.Nifti1Image(np.arange(6, dtype=np.float32).reshape(2, 3, 1), np.eye(4)), "scan.nii")
scan = np.asanyarray(nibabel.load("scan.nii").dataobj)
plain = np.ascontiguousarray(scan)
for name, array in (("from NIfTI", scan), ("transposed", plain[..., 0].T), ("in C order", plain)):
    back = load(save({"a": array}))["a"]
    print(name, array.shape, "equal:", np.array_equal(back, array), "saved:", *array.ravel().astype(int),
          "loaded:", *back.ravel().astype(int))
PY
cat seen
diff seen - <<'TEXT'
from NIfTI (2, 3, 1) equal: False saved: 0 1 2 3 4 5 loaded: 0 3 1 4 2 5
transposed (3, 2) equal: False saved: 0 3 1 4 2 5 loaded: 0 1 2 3 4 5
in C order (2, 3, 1) equal: True saved: 0 1 2 3 4 5 loaded: 0 1 2 3 4 5
TEXT
