#!/usr/bin/env bash
# webdataset 1.0.2: samples that are named by DICOM UIDs become one sample, silently.
#
# A sample's key is its file name up to the first dot. Of `1.2.826.1.image.npy` and `1.2.826.2.image.npy` the key is `1`
# and the fields are `2.826.1.image.npy` and `2.826.2.image.npy`: all neighbours whose names begin alike are one sample
# of many fields, and a loader that looks for `image.npy` finds none. Names with underscores stay apart. Guess before:
# the ending is what comes after the last dot, or what the samples of a shard have in common.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --quiet webdataset==1.0.2 numpy==2.4.6
cd "$place"
venv/bin/python -W ignore - > seen <<'PY'
import io
import tarfile

import numpy as np
import webdataset


def shard(path, names):
    with tarfile.open(path, "w") as tar:
        for name in names:
            for part in ("image.npy", "label.npy"):
                content = io.BytesIO()
                np.save(content, np.zeros((4, 4), np.float32))
                info = tarfile.TarInfo(f"{name}.{part}")
                info.size = len(content.getvalue())
                tar.addfile(info, io.BytesIO(content.getvalue()))


for name in ("1.2.826.{}", "1_2_826_{}"):
    shard("shard.tar", [name.format(n) for n in (1, 2, 3)])
    samples = list(webdataset.WebDataset("shard.tar", shardshuffle=False))
    print(name, "samples:", len(samples), "fields:", *sorted(k for k in samples[0] if not k.startswith("__")))
PY
cat seen
diff seen - <<'TEXT'
1.2.826.{} samples: 1 fields: 2.826.1.image.npy 2.826.1.label.npy 2.826.2.image.npy 2.826.2.label.npy 2.826.3.image.npy 2.826.3.label.npy
1_2_826_{} samples: 3 fields: image.npy label.npy
TEXT
