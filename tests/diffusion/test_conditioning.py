"""The bundle of what a denoiser knows: dropped, doubled and joined as guidance needs it."""

import torch

from augengine.diffusion.conditioning import Conditioning
from augengine.diffusion.conditions import Vocabulary
from augengine.records import Acquisition


def bundle(acquisitions: tuple[Acquisition, Acquisition]) -> Conditioning:
    encoded = Vocabulary.fit(acquisitions).encode(acquisitions)
    return Conditioning(torch.rand(2, 3, 4, 4), torch.tensor([1, 2]), encoded)


def test_unconditional_rows_keep_where_and_lose_what(acquisitions: tuple[Acquisition, Acquisition]) -> None:
    given = bundle(acquisitions)
    free = given.unconditional()
    assert free.planes is given.planes
    assert free.classes.tolist() == [0, 0]
    assert not free.acquisition.present.any()
    assert not free.acquisition.features.any()
    assert given.classes.tolist() == [1, 2]


def test_dropping_a_row_leaves_the_others(acquisitions: tuple[Acquisition, Acquisition]) -> None:
    given = bundle(acquisitions)
    left = given.drop(torch.tensor([True, False]))
    assert left.planes is given.planes
    assert left.classes.tolist() == [0, 2]
    assert left.classes.dtype == torch.int64
    assert not left.acquisition.present[0].any()
    assert torch.equal(left.acquisition.features[1], given.acquisition.features[1])
    assert torch.equal(left.acquisition.present[1], given.acquisition.present[1])


def test_joining_puts_rows_one_after_the_other(acquisitions: tuple[Acquisition, Acquisition]) -> None:
    given = bundle(acquisitions)
    both = given.unconditional().cat(given)
    assert both.classes.tolist() == [0, 0, 1, 2]
    assert torch.equal(both.planes, torch.cat([given.planes] * 2))
    assert both.acquisition.present.any(1).tolist() == [False, False, True, True]


def test_some_rows_are_those_rows(acquisitions: tuple[Acquisition, Acquisition]) -> None:
    given = bundle(acquisitions)
    one = given.rows(slice(1, 2))
    assert torch.equal(one.planes, given.planes[1:])
    assert one.classes.tolist() == [2]
    assert torch.equal(one.acquisition.features, given.acquisition.features[1:])
    assert torch.equal(one.acquisition.present, given.acquisition.present[1:])


def test_what_a_model_does_not_have_stays_absent() -> None:
    empty = Conditioning()
    for found in (
        empty.unconditional(),
        empty.drop(torch.tensor([True])),
        empty.cat(empty),
        empty.rows(slice(1)),
        empty.to("cpu"),
    ):
        assert found == empty
