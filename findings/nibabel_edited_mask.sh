#!/usr/bin/env bash
# nibabel 5.4.2: a mask that is loaded, edited and saved under its own header comes back with other codes.
#
# `get_fdata()` gives float64. Saved with the header of the file it came from, whose type is uint8, the values are
# scaled: slope and intercept spread 0 to 4 over 0 to 255, and no code but the ends lies on a step. BraTS's 1, 2 and 4
# read back as 1.0039, 1.9922 and 4.0000002: `mask == 1` finds nothing, and `astype(uint8)`, which cuts, turns code 2
# into 1. Under an int16 header the steps are finer, and it is code 4 that a cut may turn into 3. Rounding gives all
# codes back. Guess before: integers that fit the header's type are stored as they are.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --quiet nibabel==5.4.2 numpy==2.4.6
cd "$place"
venv/bin/python - > seen <<'PY'
import nibabel
import numpy as np

for kind in ("uint8", "int16"):
    mask = np.zeros((4, 4, 4), kind)
    mask[0, 0, 0], mask[1, 1, 1], mask[2, 2, 2] = 1, 2, 4
    nibabel.save(nibabel.Nifti1Image(mask, np.eye(4)), "mask.nii.gz")
    loaded = nibabel.load("mask.nii.gz")
    nibabel.save(nibabel.Nifti1Image(loaded.get_fdata(), loaded.affine, loaded.header), "edited.nii.gz")
    values = nibabel.load("edited.nii.gz").get_fdata()
    print(kind, "read:", *(f"{v:.7g}" for v in np.unique(values)))
    print(kind, "equal to 1:", int((values == 1).sum()), "cut:", *np.unique(values.astype(np.uint8)),
          "rounded:", *np.unique(np.rint(values).astype(np.uint8)))
PY
cat seen
diff seen - <<'TEXT'
uint8 read: 0 1.003922 1.992157 4
uint8 equal to 1: 0 cut: 0 1 4 rounded: 0 1 2 4
int16 read: 0 1.000015 2.000031 4
int16 equal to 1: 0 cut: 0 1 2 3 rounded: 0 1 2 4
TEXT
