"""A tiny generator with random weights, and two acquisitions that its vocabulary holds."""

import pytest

from augengine.diffusion.checkpoint import Generator, untrained
from augengine.diffusion.conditions import Vocabulary
from augengine.diffusion.spec import DiffusionSpec, ModelSpec
from augengine.diffusion.unet import UNetSpec
from augengine.records import Acquisition


@pytest.fixture(scope="session")
def acquisitions() -> tuple[Acquisition, Acquisition]:
    return (
        Acquisition("GE", "Signa", 1.5, "SAT_GEMS\\FS", 10.0, 2.0, 2.4, 5.3),
        Acquisition("SIEMENS", "TrioTim", 3.0, "PFP\\SFS", 12.0, 1.1, 1.3, 4.0),
    )


@pytest.fixture(scope="session")
def spec(acquisitions: tuple[Acquisition, Acquisition]) -> ModelSpec:
    network = UNetSpec(
        channels=(16, 32),
        res_blocks=1,
        attention_levels=(2,),
        head_channels=16,
        norm_groups=8,
        token_dim=16,
        unshuffle=2,
        structure=True,
    )
    return ModelSpec(
        network=network,
        diffusion=DiffusionSpec(parametrisation="x0", schedule="cosine"),
        vocabulary=Vocabulary.fit(acquisitions),
        channels=("t1",),
        labels=("fat",),
        image_size=(16, 16),
        spacing_mm=(1.0, 1.0, 2.0),
    )


@pytest.fixture(scope="session", params=["monai", "compact"])
def generator(spec: ModelSpec, request: pytest.FixtureRequest) -> Generator:
    compact = {"attention_levels": (), "local_curves": 4}
    changes = {"body": request.param, **(compact if request.param == "compact" else {})}
    return untrained(spec.model_copy(update={"network": spec.network.model_copy(update=changes)}), seed=3)
