"""Random contrast: every tissue through a curve of its own, some rows as they are, nothing moved."""

import pytest
import torch
from training_cases import batch_of, objective_of

from augengine.errors import ConfigError
from augengine.train.random_contrast import random_contrast
from augengine.train.sections import RandomContrastRecipe

ROWS = 64


def changed(seed: int = 3, **recipe: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Two tissues of values 0.4 and 0.8 in air: images, maps, and images after."""
    tissue = torch.zeros(ROWS, 12, 12, dtype=torch.int8)
    tissue[:, 2:10, 2:6], tissue[:, 2:10, 6:10] = 1, 2
    x = 0.4 * tissue[:, None].float()
    after = random_contrast(x, tissue, 2, RandomContrastRecipe(**recipe), torch.Generator().manual_seed(seed))
    return x, tissue, after


def test_tissues_exchange_their_order_in_about_half_the_rows() -> None:
    _, tissue, after = changed(share=1, noise_sd=0)
    first, second = (torch.stack([row[0, t == n].mean() for row, t in zip(after, tissue, strict=True)]) for n in (1, 2))
    assert 0.3 < (first > second).float().mean() < 0.7
    assert (after[:, 0][tissue == 0] == 0).all()  # air stays dark
    flat = torch.stack([row[0, t == 1].std() for row, t in zip(after, tissue, strict=True)])
    assert flat.max() < 1e-6  # without noise a tissue of one value stays one


def test_a_share_of_the_rows_stays_as_it_is() -> None:
    x, _, after = changed(share=0.6)
    same = (after == x).flatten(1).all(1).float().mean()
    assert 0.25 < same < 0.55
    assert torch.equal(changed(share=0)[2], x)


def test_segmenters_train_on_it_and_generators_of_images_do_not() -> None:
    batch = batch_of()
    wild = objective_of("segmenter_nested", random_contrast={})
    assert not torch.equal(wild.tensors(batch, torch.Generator().manual_seed(1))[0], torch.from_numpy(batch.images))
    assert torch.equal(wild.eval().tensors(batch, torch.Generator())[0], torch.from_numpy(batch.images))
    with pytest.raises(
        (ConfigError, ValueError), match="only segmenters and correctors take the section random_contrast"
    ):
        objective_of("m1", random_contrast={})
