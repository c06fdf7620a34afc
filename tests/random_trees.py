"""A seed goes in; a folder of MRI files as some archive might hold it, and what an ingest must make of it, come out.

Layouts, names, entities, grids, units, storage types, label codes and the litter between the files are drawn. Every
image carries three single bright voxels, whose places in the world are known, and a label whose volume is known.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from mri_files import header

from augengine.io.labels import SCHEMES
from augengine.io.sources import SourceOptions

BRIGHT = (5001, 5002, 5003)


@dataclass
class Expected:
    """One volume.

    Attributes:
        patient: whom it shows; never in two splits.
        landmarks_mm: RAS world places of the voxels that hold `BRIGHT`, of the channel `channel`.
        volumes_mm3: of each label code; None where the volume has no mask.
    """

    patient: str
    landmarks_mm: np.ndarray
    volumes_mm3: dict[int, float] | None
    channel: int = 0
    echo_time_ms: float | None = None


@dataclass
class Tree:
    """A folder, the options to ingest it with, and what must come of it."""

    layout: str
    options: dict[str, Any] = field(default_factory=dict)
    volumes: list[Expected] = field(default_factory=list)

    def stated(self) -> SourceOptions:
        """The options."""
        return SourceOptions(public_ids=True, **self.options)


def grow(root: Path, seed: int) -> Tree:
    """Write a tree below `root`."""
    root.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    layouts: list[Callable[[Path, np.random.Generator], Tree]] = [generic, brats, bids, dicom, nnunet]
    tree = layouts[int(rng.integers(len(layouts)))](root, rng)
    litter(root, rng)
    return tree


# -- pixels and grids ---------------------------------------------------------------------------------------------


def grid(rng: np.random.Generator) -> tuple[tuple[int, int, int], np.ndarray]:
    """A shape and an RAS affine: any axis order and direction, oblique or not, anisotropic."""
    shape = tuple(int(n) for n in rng.integers(6, 15, 3))
    spacing = rng.choice([0.5, 0.75, 1.0, 1.5, 3.0], 3)
    axes = np.eye(3)[rng.permutation(3)] * rng.choice([-1, 1], 3)[:, None]
    if rng.random() < 0.5:
        angles = rng.uniform(-0.4, 0.4, 3)
        axes = _rotation(angles) @ axes
    affine = np.eye(4)
    affine[:3, :3] = axes * spacing
    affine[:3, 3] = np.round(rng.uniform(-80, 80, 3), 1)
    return shape, affine  # type: ignore[return-value]


def _rotation(angles: np.ndarray) -> np.ndarray:
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles), np.sin(angles)
    x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return np.asarray(z @ y @ x)


def pixels(rng: np.random.Generator, shape: tuple[int, ...], affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """An image below 1,000 with three bright voxels, and the world places of these."""
    image = rng.integers(1, 1000, shape).astype(np.int16)
    flat = rng.choice(int(np.prod(shape)), 3, replace=False)
    index = np.stack(np.unravel_index(flat, shape), 1)
    image[tuple(index.T)] = BRIGHT
    return image, index @ affine[:3, :3].T + affine[:3, 3]


def mask(rng: np.random.Generator, shape: tuple[int, ...], codes: list[int]) -> np.ndarray:
    """Boxes of label codes, some of one voxel, some at the border."""
    label = np.zeros(shape, np.uint8)
    for code in codes:
        low = [int(rng.integers(0, n - 1)) for n in shape]
        size = [int(rng.integers(1, max(2, n // 2))) for n in shape]
        label[tuple(slice(a, a + s) for a, s in zip(low, size, strict=True))] = code
    return label


def volumes(label: np.ndarray, affine: np.ndarray) -> dict[int, float]:
    """mm³ of each code that the mask holds."""
    voxel = abs(np.linalg.det(affine[:3, :3]))
    return {int(c): float((label == c).sum() * voxel) for c in np.unique(label) if c}


def nifti(rng: np.random.Generator, path: Path, data: np.ndarray, affine: np.ndarray) -> None:
    """A NIfTI file with one of the headers that tools write: units, sform or qform, storage type."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unit, factor = [("mm", 1.0), ("micron", 1000.0), ("meter", 0.001), ("unknown", 1.0)][int(rng.integers(4))]
    scaled = affine.copy()
    scaled[:3] *= factor
    image = nib.Nifti1Image(data, scaled)
    image.header.set_xyzt_units(unit)
    which = int(rng.integers(3))
    image.set_sform(scaled, code=0 if which == 1 else 1)
    image.set_qform(scaled, code=0 if which == 2 else 1)
    nib.save(image, path)


def mask_file(rng: np.random.Generator, path: Path, label: np.ndarray, affine: np.ndarray) -> None:
    """A mask as integers, floats, or integers with a slope that does not divide the codes evenly."""
    kind = int(rng.integers(4))
    if kind == 0:
        nifti(rng, path, label, affine)
    elif kind == 1:
        nifti(rng, path, label.astype(np.float32), affine)
    elif kind == 2:
        nifti(rng, path, np.nextafter(label.astype(np.float32), np.float32(99)) * (label > 0), affine)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        image = nib.Nifti1Image(label.astype(np.float64), affine, dtype=np.uint8)
        image.header.set_data_dtype(np.uint8)
        image.header.set_xyzt_units("mm")
        nib.save(image, path)


def suffix(rng: np.random.Generator) -> str:
    """Compressed or not."""
    return str(rng.choice([".nii.gz", ".nii"]))


def litter(root: Path, rng: np.random.Generator) -> None:
    """Files that are no input, in places where they are found."""
    folders = [root, *sorted(p for p in root.rglob("*") if p.is_dir())]
    for name, content in (
        ("README.txt", b"about"),
        (".DS_Store", b"\0"),
        ("notes.csv", b"a,b\n"),
        ("thumbs.db", bytes(50)),
    ):
        if rng.random() < 0.4:
            (folders[int(rng.integers(len(folders)))] / name).write_bytes(content)
    if rng.random() < 0.3:
        twin = root / "__MACOSX" / "data"
        twin.mkdir(parents=True)
        (twin / "._scan.nii.gz").write_bytes(b"\0\5\x16\7" + bytes(60))


# -- layouts ------------------------------------------------------------------------------------------------------


def generic(root: Path, rng: np.random.Generator) -> Tree:
    """Images with `_seg` beside them: `X` and `X_seg`, in one folder or in one folder each."""
    tree = Tree("nifti", {"labels": {"lesion": 1, "cyst": 3}})
    style = str(rng.choice(["_seg", "_mask", "_label"]))
    for n in range(int(rng.integers(2, 5))):
        name = f"{rng.choice(['case', 'Fall ', 'p.', 'étude-'])}{n}"
        folder = root / name if rng.random() < 0.3 else root
        shape, affine = grid(rng)
        image, places = pixels(rng, shape, affine)
        label = mask(rng, shape, [1, 3])
        labelled = n == 0 or rng.random() < 0.8
        end = suffix(rng)
        nifti(rng, folder / f"{name}{end}", image, affine)
        if labelled:
            mask_file(rng, folder / f"{name}{style}{end}", label, affine)
        tree.volumes.append(Expected(name, places, volumes(label, affine) if labelled else None))
    return tree


def brats(root: Path, rng: np.random.Generator) -> Tree:
    """Cases of 2021 or 2023, the latter with several time points of a patient."""
    new = bool(rng.random() < 0.6)
    scheme = "brats2023" if new else "brats2021"
    labels = dict(SCHEMES[scheme])
    tree = Tree(scheme, {"labels": labels, "scheme": scheme})
    top = root / str(rng.choice(["", "Training", "a/b"]))
    suffixes = ("t1n", "t1c", "t2w", "t2f") if new else ("t1", "t1ce", "t2", "flair")
    for patient in rng.choice(10**5 if new else 10**4, int(rng.integers(3, 7)), replace=False).tolist():
        for point in range(int(rng.integers(1, 4)) if new else 1):
            name = f"BraTS-GLI-{patient:05d}-{100 + point}" if new else f"BraTS2021_{patient:05d}"
            shape, affine = grid(rng)
            joint = "-" if new else "_"
            marked = int(rng.integers(4))
            for c, sequence in enumerate(suffixes):
                image, found = pixels(rng, shape, affine)
                if c == marked:
                    places = found
                nifti(rng, top / name / f"{name}{joint}{sequence}.nii.gz", image, affine)
            label = mask(rng, shape, list(labels.values()))
            mask_file(rng, top / name / f"{name}{joint}seg.nii.gz", label, affine)
            tree.volumes.append(Expected(f"{patient:05d}", places, volumes(label, affine), marked))
    return tree


def bids(root: Path, rng: np.random.Generator) -> Tree:
    """Sessions, runs and acquisitions, each its own image; masks in derivatives; sidecars at any level."""
    tree = Tree("bids", {"labels": {"lesion": 1}})
    (root / "dataset_description.json").write_text(json.dumps({"Name": "x", "BIDSVersion": "1.10.0"}))
    echo = float(rng.integers(10, 90))
    at_root = bool(rng.random() < 0.5)
    if at_root:
        (root / "FLAIR.json").write_text(json.dumps({"EchoTime": echo / 1000}))
    first = True
    for subject in range(int(rng.integers(2, 5))):
        for session in ["", "ses-1", "ses-2"][: int(rng.integers(1, 4))]:
            if session == "" and rng.random() < 0.5 and subject:
                continue
            general = None
            for entities in [[], ["acq-fast"], ["run-1"], ["run-2"], ["ce-gadolinium"]][: int(rng.integers(1, 6))]:
                parts = [f"sub-{subject:02d}", *([session] if session else []), *entities]
                stem = "_".join(parts)
                folder = root.joinpath(*parts[: 2 if session else 1], "anat")
                shape, affine = grid(rng)
                image, places = pixels(rng, shape, affine)
                nifti(rng, folder / f"{stem}_FLAIR{suffix(rng)}", image, affine)
                own = None
                if not at_root or rng.random() < 0.3:
                    own = float(rng.integers(10, 90))
                    (folder / f"{stem}_FLAIR.json").write_text(json.dumps({"EchoTime": own / 1000}))
                label = mask(rng, shape, [1])
                labelled = first or rng.random() < 0.5
                first = False
                if labelled:
                    where = root / "derivatives" / "manual" / folder.relative_to(root)
                    mask_file(rng, where / f"{stem}_desc-lesion_mask.nii.gz", label, affine)
                expected = volumes(label, affine) if labelled else None
                if not entities:
                    general = own  # a sidecar without further entities is that of its neighbours, too
                te = next((t for t in (own, general, echo if at_root else None) if t is not None), None)
                tree.volumes.append(Expected(f"{subject:02d}", places, expected, echo_time_ms=te))
    return tree


def dicom(root: Path, rng: np.random.Generator) -> Tree:
    """One folder per patient with one or two series; positions as text, names in no order, things beside."""
    tree = Tree("dicom", {})
    for n in range(int(rng.integers(2, 5))):
        for series in range(int(rng.integers(1, 3))):
            columns, rows, slices = (int(v) for v in rng.integers(6, 15, 3))
            spacing = rng.choice([0.5, 0.75, 1.25], 2).tolist()
            step = float(rng.choice([0.65, 1.2, 3.0]))
            turn = _rotation(rng.uniform(-0.5, 0.5, 3))
            origin = np.round(rng.uniform(-90, 90, 3), 2)
            affine = np.eye(4)
            affine[:3, 0], affine[:3, 1] = turn[:, 0] * spacing[1], turn[:, 1] * spacing[0]
            affine[:3, 2], affine[:3, 3] = turn[:, 2] * step, origin
            ras = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
            image, places = pixels(rng, (columns, rows, slices), ras)
            echo = float(np.round(rng.uniform(1, 90), 2))
            folder = root / f"P{n}" / str(rng.choice(["", "s", "a/b"])) / f"{series}"
            folder.mkdir(parents=True)
            decimals = int(rng.choice([2, 4, 8]))
            order = rng.permutation(slices)
            for place, k in enumerate(order.tolist()):
                ds = header(f"1.2.826.0.1.{n}.{series}", PatientID=f"HOSP-{n}", EchoTime=f"{echo:g}")
                ds.Rows, ds.Columns, ds.PixelSpacing = rows, columns, spacing
                ds.ImageOrientationPatient = [f"{v:.8f}" for v in [*turn[:, 0], *turn[:, 1]]]
                ds.ImagePositionPatient = [f"{v:.{decimals}f}" for v in origin + turn[:, 2] * step * k]
                ds.PixelData = np.ascontiguousarray(image[:, :, k].T.astype(np.uint16)).tobytes()
                ds.save_as(
                    folder / str(rng.choice([f"IM{place:04d}", f"{place:04d}.dcm", f"I.{place:03d}"])),
                    enforce_file_format=True,
                )
            tree.volumes.append(Expected(f"HOSP-{n}", places, None, echo_time_ms=echo))
    return tree


def nnunet(root: Path, rng: np.random.Generator) -> Tree:
    """imagesTr and labelsTr with `dataset.json`, one or two channels."""
    channels = ["T1", "FLAIR"][: int(rng.integers(1, 3))]
    names = {"lesion": 1, "cyst": 2}
    cases = int(rng.integers(2, 5))
    facts = {
        "channel_names": {str(c): name for c, name in enumerate(channels)},
        "labels": {"background": 0, **names},
        "numTraining": cases,
        "file_ending": ".nii.gz",
    }
    tree = Tree("nnunet", {})
    for n in range(cases):
        shape, affine = grid(rng)
        marked = int(rng.integers(len(channels)))
        for c in range(len(channels)):
            image, found = pixels(rng, shape, affine)
            if c == marked:
                places = found
            nifti(rng, root / "imagesTr" / f"case_{n:03d}_{c:04d}.nii.gz", image, affine)
        label = mask(rng, shape, [1, 2])
        mask_file(rng, root / "labelsTr" / f"case_{n:03d}.nii.gz", label, affine)
        tree.volumes.append(Expected(f"case_{n:03d}", places, volumes(label, affine), marked))
    (root / "dataset.json").write_text(json.dumps(facts))
    return tree
