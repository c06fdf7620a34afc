#!/usr/bin/env bash
# MONAI 1.6.1: the voxel size of an oblique 2D NIfTI file is read wrong, that of the same slice with a third axis right.
#
# A slice of 2 x 2 mm voxels, tilted by 20 degrees about its first axis. As an array (8, 8) MONAI's MetaTensor says
# 2 x 1.879 mm: it cuts the affine to two axes before it takes lengths, and what the second axis has of the third
# world axis is lost (2 cos 20 degrees). As (8, 8, 1) it says 2 x 2 x 5 mm. Whatever resamples by spacing, `Spacingd`
# among others, then stretches the former. nibabel reads 2 x 2 of both headers. Guess before: the header's zooms.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --quiet monai==1.6.1 nibabel==5.4.2 torch==2.13.0
cd "$place"
venv/bin/python -W ignore - 2> /dev/null > seen <<'PY'
import nibabel
import numpy as np
from monai.transforms import LoadImage

c, s = np.cos(np.deg2rad(20)), np.sin(np.deg2rad(20))
affine = np.eye(4)
affine[:3, :3] = np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) @ np.diag([2, 2, 5])
for shape in ((8, 8), (8, 8, 1)):
    nibabel.save(nibabel.Nifti1Image(np.zeros(shape, np.float32), affine), "slice.nii.gz")
    read = LoadImage(image_only=True, ensure_channel_first=True)("slice.nii.gz")
    zooms = nibabel.load("slice.nii.gz").header.get_zooms()
    print(shape, "MONAI:", *(f"{float(v):.3f}" for v in read.pixdim), "nibabel:", *(f"{float(v):.3f}" for v in zooms))
PY
cat seen
diff <(grep MONAI seen) - <<'TEXT'
(8, 8) MONAI: 2.000 1.879 nibabel: 2.000 2.000
(8, 8, 1) MONAI: 2.000 2.000 5.000 nibabel: 2.000 2.000 5.000
TEXT
