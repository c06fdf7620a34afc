"""A kind of model in; a very small one of it with random weights, and what its `model.json` would say, out."""

from __future__ import annotations

import tempfile

from augengine.contracts.samples import LESION_CODES
from augengine.diffusion.checkpoint import Model, load_model
from augengine.diffusion.conditions import Vocabulary
from augengine.diffusion.local_contrast import LocalContrastSpec
from augengine.diffusion.spec import DiffusionSpec, Kind, ModelSpec
from augengine.diffusion.unet import UNetSpec
from augengine.io.store import Store
from augengine.metrics.lesion_survey import SurveyLesions
from augengine.metrics.partial import Pair
from augengine.phantom.protocols import protocols_at_hand
from augengine.records import Sample
from augengine.report.lesions import write_bank


def tiny_spec(kind: Kind, *, channels: tuple[str, ...] = ("t1",), size: int = 32, axes: int = 2) -> ModelSpec:
    """A very small generator that needs no other model; painters are M3 (paper 001)."""
    acquisition, whole = kind == "acquisition", ("necrosis", "enhancing", "oedema")
    return ModelSpec(
        kind=kind,
        network=UNetSpec(
            channels=(8, 16),
            res_blocks=1,
            attention_levels=(2,),
            head_channels=8,
            norm_groups=8,
            token_dim=16,
            unshuffle=2,
            structure=acquisition,
        ),
        diffusion=DiffusionSpec(parametrisation="x0", schedule="cosine"),
        vocabulary=Vocabulary.fit([p.acquisition(0.5) for p in protocols_at_hand()]) if acquisition else None,
        classes=("healthy", "unhealthy") if kind == "counterfactual" else (),
        channels=channels,
        labels=("fat",) if acquisition else tuple(LESION_CODES),
        lesion=() if acquisition else whole,
        regions={"whole": whole, "core": whole[:2], "enhancing": whole[1:2]} if kind == "label_prior" else {},
        mask="labels_unknown" if kind == "painter" else "none",
        image_size=(size,) * axes,
        spacing_mm=(2.0,) * axes,
    )


def tiny_bank(samples: list[Sample], labels: tuple[str, ...] = ("necrosis", "oedema", "enhancing")) -> Model:
    """The lesions of samples as a model of kind lesion_bank."""
    found = SurveyLesions(labels, 8, 24, 0.0)([Pair(sample.replace(split="train")) for sample in samples])
    assert found is not None
    with tempfile.TemporaryDirectory() as folder:
        write_bank(found, labels, labels, 24, Store(folder))
        return load_model(f"{folder}/bank")


def contrast_spec(channels: tuple[str, ...] = ("t1",), size: int = 32) -> ModelSpec:
    """A very small acquisition model that changes the source's own pixels."""
    network = LocalContrastSpec(members=2, width=8)
    return tiny_spec("acquisition", channels=channels, size=size).model_copy(
        update={"network": network, "diffusion": None, "labels": ()}
    )
