"""Every kind of training in miniature: recipes of a few channels, hand-made rows, and untrained parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import nn

from augengine.diffusion.build import build
from augengine.diffusion.checkpoint import save_model, subject_hash, untrained
from augengine.diffusion.conditions import Vocabulary
from augengine.diffusion.spec import ModelSpec
from augengine.io.dataset import write_dataset
from augengine.io.shards import to_table
from augengine.io.store import Store
from augengine.records import Acquisition, Sample
from augengine.train.config import Recipe
from augengine.train.data import Batch
from augengine.train.model import model_spec
from augengine.train.objectives import objective
from augengine.train.objectives.base import Objective
from augengine.train.rows import DatasetFacts

LABELS = ("core", "grey", "rim")  # index 1, 2, 3 of a tissue map
SUBJECTS = ("S0", "S1", "S2", "S3")
NESTED = {"whole": ("core", "rim"), "core": ("core",)}
LESION = ("core", "rim")
SIZES = {2: (16, 16), 3: (8, 8, 8)}
ACQUISITIONS = (
    Acquisition("GE", "Signa", 1.5, "FS", 10.0, 2.0, 2.4, 5.3),
    Acquisition("SIEMENS", "TrioTim", 3.0, "PFP\\SFS", 12.0, 1.1, 1.3, 4.0),
)

_COMPACT = {"body": "compact", "channels": [8, 16], "head_channels": 8, "norm_groups": 4, "token_dim": 8}
_MONAI = {"body": "monai", "channels": [8, 8], "head_channels": 8, "norm_groups": 4, "token_dim": 8}
_DIT = {"body": "dit", "size": {"layers": 1, "heads": 1, "head_channels": 16, "patch": 2}}
_VAE = {"body": "autoencoder_kl", "channels": [4, 8], "latent_channels": 2, "res_blocks": 1, "norm_groups": 4}
_UNET = {"body": "residual_unet", "channels": [8, 16], "res_units": 1}
_X0 = {"parametrisation": "x0", "schedule": "cosine"}
_LATENT = {"parametrisation": "v", "schedule": "cosine", "x0_range": [-6.0, 6.0]}
_AUTO, _FOLDS = {"autoencoder": None}, {"fold_0": None, "fold_1": None}

# name: kind, its sections, and the cases that stand in the roles of its parts.
_CASES: dict[str, tuple[str, dict[str, Any], dict[str, str]]] = {
    "acquisition": ("acquisition", {"network": _COMPACT, "diffusion": _X0}, {}),
    "structure": (
        "acquisition",
        {
            "network": {**_COMPACT, "structure": True},
            "diffusion": _X0,
            "structure": {},
            "data": {"lesion": LESION},
            "loss": {"lesion_weight": 3.0},
        },
        {},
    ),
    "counterfactual": ("counterfactual", {"network": _COMPACT, "diffusion": _X0, "data": {"lesion": LESION}}, {}),
    "counterfactual_dit": (
        "counterfactual",
        {"network": _DIT, "diffusion": _LATENT, "data": {"lesion": LESION}, "parts": _AUTO},
        {"autoencoder": "autoencoder"},
    ),
    "m1": ("painter", {"network": _COMPACT, "diffusion": _X0}, {}),
    "m2": ("painter", {"network": _COMPACT, "diffusion": _X0, "mask": {}}, {}),
    "m3": (
        "painter",
        {
            "network": _COMPACT,
            "diffusion": _X0,
            "mask": {"ablation": "unknown"},
            "data": {"lesion": LESION},
            "loss": {"lesion_weight": 2.0, "weighting": "min_snr"},
        },
        {},
    ),
    "m3_surroundings": (
        "painter",
        {
            "network": _COMPACT,
            "diffusion": _X0,
            "mask": {"ablation": "unknown", "surroundings": True},
            "data": {"lesion": LESION},
        },
        {},
    ),
    "m3_paper": (
        "painter",
        {"network": _MONAI, "diffusion": _X0, "mask": {"ablation": "paper"}, "data": {"lesion": LESION}},
        {},
    ),
    "label_prior": ("label_prior", {"network": _COMPACT, "diffusion": _X0, "data": {"regions": NESTED}}, {}),
    "label_ldm": (
        "label_prior",
        {"network": _MONAI, "diffusion": _LATENT, "data": {"regions": NESTED}, "parts": _AUTO},
        {"autoencoder": "label_autoencoder"},
    ),
    "label_segmenter": (
        "label_segmenter",
        {
            "network": {"body": "control", "encoder_channels": [4, 8]},
            "diffusion": _LATENT,
            "data": {"regions": NESTED},
            "parts": {"prior": None},
        },
        {"prior": "label_ldm"},
    ),
    "error_corrector": (
        "error_corrector",
        {
            "network": _COMPACT,
            "diffusion": {**_X0, "x0_range": [-1.0, 1.0]},
            "data": {"regions": NESTED},
            "parts": _FOLDS,
        },
        {"fold_0": "segmenter_nested", "fold_1": "segmenter_nested"},
    ),
    "autoencoder": (
        "autoencoder",
        {"network": _VAE, "autoencoding": {"perceptual_weight": 0.1}, "parts": {"features": None}},
        {"features": "segmenter_nested"},
    ),
    "label_autoencoder": (
        "autoencoder",
        {
            "network": _VAE,
            "autoencoding": {"adversarial_weight": 0.05, "discriminator_channels": 4, "discriminator_layers": 1},
            "data": {"content": "labels", "regions": NESTED},
        },
        {},
    ),
    "photo_autoencoder": (
        "autoencoder",
        {"network": {**_VAE, "rgb": True, "design": "stable_diffusion", "middle_attention": True}, "autoencoding": {}},
        {},
    ),
    "segmenter": ("segmenter", {"network": _UNET, "data": {"regions": {"grey": ("grey",), "lesion": LESION}}}, {}),
    "segmenter_nested": ("segmenter", {"network": _UNET, "data": {"regions": NESTED}}, {}),
    "segmenter_told": (
        "segmenter",
        {"network": {**_UNET, "acquisition": {"token_dim": 16}}, "data": {"regions": NESTED}},
        {},
    ),
    "acquisition_predictor": (
        "acquisition_predictor",
        {"network": {"body": "resnet18", "width": 8, "norm_groups": 4}},
        {},
    ),
}
CASES = tuple(_CASES)
CASES_3D = (
    "structure",
    "counterfactual",
    "m3",
    "m3_surroundings",
    "label_ldm",
    "label_segmenter",
    "error_corrector",
    "label_autoencoder",
    "segmenter_nested",
    "acquisition_predictor",
)


def recipe(case: str, **changes: Any) -> Recipe:
    """The recipe of a case; `changes` replace whole sections."""
    kind, sections, _ = _CASES[case]
    values = {"version": 1, "name": case, "kind": kind, "steps": 10, "optimiser": {"batch_size": 4, "learning_rate": 1}}
    return Recipe.model_validate({**values, **sections, **changes})


def survey_of(dims: int = 2, **changes: Any) -> DatasetFacts:
    """What the metadata of `batch_of` say."""
    values: dict[str, Any] = {
        "rows": 4,
        "channels": ("t1",),
        "labels": LABELS,
        "image_size": SIZES[dims],
        "spacing_mm": (1.0, 1.0, 3.0),
        "vocabulary": Vocabulary.fit(ACQUISITIONS),
        "subjects": SUBJECTS,
        "manufacturers": ("GE MEDICAL SYSTEMS", "SIEMENS"),
    }
    return DatasetFacts(**{**values, **changes})


def batch_of(dims: int = 2) -> Batch:
    """A ball of grey matter per row, the first three with a lesion at a place of their own."""
    size = SIZES[dims]
    place = np.stack(np.meshgrid(*[(np.arange(n) + 0.5) / n - 0.5 for n in size], indexing="ij"))
    tissue = np.zeros((4, *size), np.int8)
    for n, row in enumerate(tissue):
        row[(place**2).sum(0) < 0.2] = 2
        if n < 3:
            distance = ((place - 0.15 * (n - 1)) ** 2).sum(0)
            row[distance < 0.05], row[distance < 0.02] = 3, 1
    noise = np.random.default_rng(dims).normal(0, 0.02, tissue.shape)
    images = (np.array([0.0, 1.2, 0.5, 0.9])[tissue] + noise).astype(np.float32)[:, None]
    acquisitions = [ACQUISITIONS[n % 2] for n in range(4)]
    return Batch(images, tissue, images[:, :0], acquisitions, list(SUBJECTS), [(1.0, 1.0, 3.0)[:dims]] * 4, [None] * 4)


def samples_of(dims: int = 2, split: str = "train") -> list[Sample]:
    """The rows of `batch_of` as a data set would hold them; images are normalised already."""
    batch = batch_of(dims)
    return [
        Sample(
            image=batch.images[n],
            affine=np.diag([1.0, 1.0, 3.0, 1.0]),
            channels=("t1",),
            subject_id=subject,
            volume_id=subject,
            label=batch.tissue[n].astype(np.uint8),
            labels={name: code for code, name in enumerate(LABELS, 1)},
            acquisition=batch.acquisitions[n],
            slice_index=0 if dims == 2 else None,
            split=split,
            intensity_range=((0.0, 1.0),),
        )
        for n, subject in enumerate(SUBJECTS)
    ]


def write_rows(folder: object, samples: list[Sample]) -> str:
    """Samples as one shard; returns the URI of its folder."""
    return write_dataset(str(folder), [to_table(samples)]).uri


def part_specs(case: str, dims: int = 2) -> dict[str, ModelSpec]:
    """What stands in the roles of a case; of two segmenters, one saw the odd subjects and one the even ones."""
    roles = _CASES[case][2]
    found = {role: spec_of(part, dims) for role, part in roles.items()}
    for n, role in enumerate(r for r in roles if r.startswith("fold_")):
        seen = tuple(sorted(subject_hash(s) for s in SUBJECTS[n::2]))
        found[role] = found[role].model_copy(update={"subject_hashes": seen})
    return found


def spec_of(case: str, dims: int = 2, **changes: Any) -> ModelSpec:
    """The model that a case trains."""
    return model_spec(recipe(case, **changes), survey_of(dims), part_specs(case, dims))


def drawn(spec: ModelSpec, seed: int) -> nn.Module:
    """Random weights that stand for trained ones: no layer is zero."""
    return build(spec, seed) if spec.diffusion is None else untrained(spec, seed).network


def objective_of(case: str, dims: int = 2, **changes: Any) -> Objective:
    """What trains a case, its parts drawn at random, in training mode."""
    spec = spec_of(case, dims, **changes)
    parts = {role: drawn(part, 7 + n) for n, (role, part) in enumerate(spec.parts.items())}
    return objective(recipe(case, **changes), spec, build(spec, 0, parts), parts).train()


def write_parts(folder: object, specs: Mapping[str, ModelSpec]) -> dict[str, str]:
    """A checkpoint of every part; returns their folders by role."""
    uris = {role: Store(f"{folder}/{role}").uri for role in specs}
    for n, (role, spec) in enumerate(specs.items()):
        save_model(Store(uris[role]), spec, drawn(spec, 7 + n).state_dict())
    return uris
