#!/usr/bin/env bash
# SimpleITK 2.5.7 and nibabel 5.4.2: of a NIfTI file that states two places, one reads qform and the other sform.
#
# A scan of 2 mm voxels has the scanner's place in its qform (code 1) and a template's in its sform (code 4, MNI 152).
# nibabel takes the sform whenever its code is above 0; SimpleITK takes the qform, and the sform only where that is
# marked as the scanner's (code 1). So one file has two places, and two voxel sizes where the template's is another, and a
# mask drawn in a tool of one kind lies elsewhere in one of the other. Guess before: both follow the sform.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --quiet SimpleITK==2.5.7 nibabel==5.4.2 numpy==2.4.6
cd "$place"
venv/bin/python - > seen 2> /dev/null <<'PY'
import nibabel
import numpy as np
import SimpleITK

scanner, template = np.diag([2.0, 2.0, 2.0, 1.0]), np.diag([1.5, 1.5, 1.5, 1.0])
scanner[:3, 3], template[:3, 3] = (10, 20, 30), (-40, -50, -60)
moved = scanner.copy()
moved[:3, 3] = template[:3, 3]
for name, sform, code in (("scaled, code 4", template, 4), ("moved, code 4", moved, 4), ("moved, code 1", moved, 1)):
    image = nibabel.Nifti1Image(np.zeros((4, 5, 6), np.float32), sform)
    image.set_sform(sform, code=code)
    image.set_qform(scanner, code=1)
    nibabel.save(image, "scan.nii")
    ours, theirs = nibabel.load("scan.nii").affine, SimpleITK.ReadImage("scan.nii")
    place = np.multiply(theirs.GetOrigin(), (-1, -1, 1)) + 0.0  # LPS to RAS
    print(name, "nibabel:", *np.diag(ours)[:3], "at", *ours[:3, 3], "SimpleITK:", *theirs.GetSpacing(), "at", *place)
PY
cat seen
diff seen - <<'TEXT'
scaled, code 4 nibabel: 1.5 1.5 1.5 at -40.0 -50.0 -60.0 SimpleITK: 2.0 2.0 2.0 at 10.0 20.0 30.0
moved, code 4 nibabel: 2.0 2.0 2.0 at -40.0 -50.0 -60.0 SimpleITK: 2.0 2.0 2.0 at 10.0 20.0 30.0
moved, code 1 nibabel: 2.0 2.0 2.0 at -40.0 -50.0 -60.0 SimpleITK: 2.0 2.0 2.0 at -40.0 -50.0 -60.0
TEXT
