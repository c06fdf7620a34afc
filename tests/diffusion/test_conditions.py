import pytest
import torch

from augengine.diffusion.conditions import PARAMETERS, TokenEmbedding, Vocabulary
from augengine.records import Acquisition

GE = Acquisition("GE", "Signa", 1.5, "SAT_GEMS\\FS", 10.0, 2.0, 2.4, 5.3)
SIEMENS = Acquisition("SIEMENS", "TrioTim", 3.0, "PFP\\FS", 12.0, 1.0, 1.2, 4.0)
VOCABULARY = Vocabulary.fit([GE, SIEMENS])


def column(name: str) -> slice:
    widths = list(VOCABULARY.widths.values())
    start = sum(widths[: PARAMETERS.index(name)])
    return slice(start, start + VOCABULARY.widths[name])


def test_numbers_are_shares_of_the_training_maximum() -> None:
    features = VOCABULARY.encode([GE]).features[0]
    assert float(features[column("flip_angle_deg")]) == pytest.approx(10 / 12)
    assert features[column("slice_thickness_mm")].tolist() == [1.0]


def test_field_strength_is_a_category() -> None:
    assert VOCABULARY.categories["field_strength_t"] == ("1.5", "3")
    assert VOCABULARY.encode([SIEMENS]).features[0, column("field_strength_t")].tolist() == [0.0, 1.0]


def test_fat_saturation_is_the_same_feature_in_an_unseen_combination() -> None:
    assert VOCABULARY.options == ("FS", "PFP", "SAT_GEMS")
    unseen = GE.replace(scan_options="FS\\NEVER_SEEN")
    both = VOCABULARY.encode([unseen, unseen.replace(scan_options="")])
    assert both.features[:, column("scan_options")].tolist() == [[1, 0, 0], [0, 0, 0]]
    assert both.present[:, PARAMETERS.index("scan_options")].tolist() == [True, True]


def test_unknown_and_absent_values_become_the_null_token() -> None:
    rows = VOCABULARY.encode([Acquisition(), Acquisition(model="Unheard-of", echo_time_ms=0.0)])
    assert not rows.present.any()
    assert not rows.features.any()
    embedding = TokenEmbedding(VOCABULARY, 8)
    torch.testing.assert_close(embedding(rows)[1], embedding.null)


def test_one_token_per_parameter_and_each_depends_on_its_own_alone() -> None:
    embedding = TokenEmbedding(VOCABULARY, 8)
    before = embedding(VOCABULARY.encode([GE]))
    after = embedding(VOCABULARY.encode([GE.replace(echo_time_ms=1.2)]))
    changed = (before != after).any(-1)[0]
    assert before.shape == (1, len(PARAMETERS), 8)
    assert [name for name, moved in zip(PARAMETERS, changed, strict=True) if moved] == ["echo_time_ms"]


def test_dropped_rows_are_unconditional() -> None:
    condition = VOCABULARY.encode([GE, SIEMENS])
    dropped = condition.drop(torch.tensor([True, False]))
    assert not dropped.present[0].any()
    assert torch.equal(dropped.features[1], condition.features[1])
    assert not condition.unconditional().features.any()
