"""A segmenter that is told how rows were acquired: at first it is the one that is not; each row hears its own alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from builders import GE, SIEMENS
from training_cases import batch_of, objective_of, recipe, spec_of

from augengine.diffusion.checkpoint import Model, untrained_model
from augengine.diffusion.conditions import Condition, Vocabulary
from augengine.diffusion.discriminative import Segmenter, SegmenterSpec
from augengine.diffusion.film import FilmSpec
from augengine.downstream.segmenters import UNet
from augengine.errors import DataError
from augengine.records import Acquisition

VOCABULARY = Vocabulary.fit([GE, SIEMENS])
PLAIN = SegmenterSpec(channels=(8, 8, 16), res_units=1)


def segmenter(told: bool, dims: int = 2, norm: str = "instance") -> Segmenter:
    spec = PLAIN.model_copy(update={"norm": norm, "acquisition": FilmSpec(token_dim=16) if told else None})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Segmenter(spec, 1, 3, dims, vocabulary=VOCABULARY if told else None)


def taught(dims: int = 2, norm: str = "instance") -> Segmenter:
    """With modulations as after training."""
    found = segmenter(True, dims, norm)
    with torch.no_grad():
        for n, (name, value) in enumerate(found.named_parameters()):
            if "change.weight" in name:
                value.normal_(generator=torch.Generator().manual_seed(n))
    return found


def images(dims: int = 2) -> torch.Tensor:
    return torch.randn(3, 1, *(16, 16, 8)[:dims], generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("norm", ["instance", "group"])
@pytest.mark.parametrize("dims", [2, 3])
def test_untrained_it_is_the_network_that_is_not_told(dims: int, norm: str) -> None:
    told, plain, x = segmenter(True, dims, norm), segmenter(False, dims, norm), images(dims)
    assert torch.equal(told(x, VOCABULARY.encode([GE, SIEMENS, GE])), plain(x))
    norms = [name for name, _ in told.named_modules() if name.endswith(".change")]
    assert len(norms) == sum(
        isinstance(m, torch.nn.InstanceNorm2d | torch.nn.InstanceNorm3d | torch.nn.GroupNorm) for m in plain.modules()
    )


@pytest.mark.parametrize("dims", [2, 3])
def test_each_row_hears_its_own_acquisition_alone(dims: int) -> None:
    network, x = taught(dims), images(dims)
    together = network(x, VOCABULARY.encode([GE, SIEMENS, Acquisition()]))
    for n, acquisition in enumerate([GE, SIEMENS, Acquisition()]):
        alone = network(x[n : n + 1], VOCABULARY.encode([acquisition]))
        torch.testing.assert_close(together[n : n + 1], alone)
    assert not torch.allclose(network(x[:1], VOCABULARY.encode([GE])), network(x[:1], VOCABULARY.encode([SIEMENS])))
    # Who says nothing and who states nothing are the same.
    assert torch.equal(network(x), network(x, VOCABULARY.encode([Acquisition()] * 3)))
    assert torch.equal(network.features(x)[0], network.features(x)[0])


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_training_hides_some_acquisitions_and_validation_none(share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = objective_of(
        "segmenter_told",
        network={**recipe("segmenter_told").network.model_dump(), "acquisition": {"token_dim": 16, "dropout": share}},
    )
    heard: list[Condition] = []
    forward = Segmenter.forward

    def listening(self: Segmenter, x: torch.Tensor, acquired: Condition | None = None) -> torch.Tensor:
        assert acquired is not None
        heard.append(acquired)
        return forward(self, x, acquired)

    monkeypatch.setattr(Segmenter, "forward", listening)
    for seed in range(30):
        trained(batch_of(), seed, 0)
    known = np.mean([float(c.present.any(1).float().mean()) for c in heard])
    assert known == pytest.approx(1 - share, abs=0.15)
    assert trained.spec.vocabulary is not None
    heard.clear()
    trained.eval()(batch_of(), 0, 0)
    assert torch.equal(heard[0].features, trained.spec.vocabulary.encode(batch_of().acquisitions).features)


def test_off_by_default_and_unknown_to_the_checkpoint() -> None:
    plain = spec_of("segmenter_nested")
    assert plain.vocabulary is None
    assert "acquisition" not in plain.network.model_dump()
    assert spec_of("segmenter_told").vocabulary == Vocabulary.fit(batch_of().acquisitions)


def test_predictions_are_told(tmp_path: Path) -> None:
    model: Model = untrained_model(spec_of("segmenter_told"), 0)
    with torch.no_grad():
        for name, value in model.network.named_parameters():
            if "change.weight" in name:
                value.normal_(generator=torch.Generator().manual_seed(2))
    unet, batch = UNet(model), batch_of()
    known = unet.predict(batch.images, acquisitions=batch.acquisitions)
    assert not np.allclose(known, unet.predict(batch.images))
    assert not np.allclose(known, unet.predict(batch.images, acquisitions=batch.acquisitions[::-1]))
    with pytest.raises(DataError, match="one acquisition per image; found 1 for 4"):
        unet.predict(batch.images, acquisitions=batch.acquisitions[:1])
    plain = UNet(untrained_model(spec_of("segmenter_nested"), 0))
    assert np.array_equal(plain.predict(batch.images, acquisitions=batch.acquisitions), plain.predict(batch.images))
