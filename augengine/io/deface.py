"""A head with its face and the command of a defacing tool in; the same volume without what that tool removed out."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np

from augengine.errors import ConfigError, DataError
from augengine.records import Sample

IN, OUT = "{in}", "{out}"
LONGEST_S = 3600
NOTHING_REMOVED = "the deface command changed no voxel"


def deface_words(command: str) -> list[str]:
    """The words of a command; it is run without a shell.

    Raises:
        ConfigError: no quotes that fit, no place for both files, or no such program.
    """
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise ConfigError("the deface command must be words", found=str(error), where="--deface") from None
    if any(not any(place in word for word in words) for place in (IN, OUT)):
        raise ConfigError(
            f"the deface command says where the files go, {IN} and {OUT}",
            found=command,
            where="--deface",
            next_step=f'for example --deface "pydeface {IN} --outfile {OUT} --force"',
        )
    if shutil.which(words[0]) is None:
        raise ConfigError(
            "the deface command must be installed on every node",
            found=words[0],
            where="--deface",
            next_step="install it, or give its path",
        )
    return words


def defaced(sample: Sample, command: str) -> tuple[Sample, list[str]]:
    """The volume with each channel as the command left it, and notes.

    Args:
        sample: image (C, I, J, K); each channel goes to the command as a float32 NIfTI file with the volume's affine.

    Raises:
        DataError: the command fails, takes more than an hour, or writes no image on the same voxels.
    """
    words = deface_words(command)
    with tempfile.TemporaryDirectory() as folder:
        image = np.stack([_channel(channel, sample.affine, words, Path(folder)) for channel in sample.image])
    notes = [] if (image != sample.image).any() else [NOTHING_REMOVED]
    return sample.replace(image=image), notes


def _channel(image: np.ndarray, affine: np.ndarray, words: list[str], folder: Path) -> np.ndarray:
    """One channel, (I, J, K)."""
    before, after = folder / "in.nii.gz", folder / "out.nii.gz"
    after.unlink(missing_ok=True)
    nib.save(nib.Nifti1Image(image.astype(np.float32), affine), before)
    filled = [word.replace(IN, str(before)).replace(OUT, str(after)) for word in words]
    try:
        done = subprocess.run(filled, capture_output=True, text=True, errors="replace", check=False, timeout=LONGEST_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        found = getattr(error, "strerror", None) or f"more than {LONGEST_S} s"
        raise DataError("the deface command must run", found=found) from None
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        found = f"exit code {done.returncode}" + (f": {said[-1].replace(str(folder), '…')}" if said else "")
        raise DataError("the deface command must succeed", found=found)
    try:
        made = nib.load(after)
        values = np.asarray(made.dataobj, np.float32)
    except Exception as error:  # nibabel raises classes of its own, of zlib and of numpy
        raise DataError("the deface command must write an image", found=type(error).__name__) from None
    if values.shape != image.shape or not np.allclose(made.affine, affine, atol=1e-3):
        raise DataError(
            "the deface command must keep the voxels where they are",
            found=f"shape {values.shape}, was {image.shape}" if values.shape != image.shape else "another affine",
        )
    if not np.isfinite(values).all():
        raise DataError("the deface command must write numbers", found="values that are none")
    return values
