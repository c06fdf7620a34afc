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


def test_spellings_of_one_scanner_are_one_value() -> None:
    found = Vocabulary.fit(
        [
            GE.replace(model="DISCOVERY_MR750"),
            GE.replace(manufacturer="GE MEDICAL SYSTEMS", model="Discovery MR750"),
            GE.replace(model="DISCOVERY MR750", field_strength_t=1.494, scan_options="fs\\SAT_GEMS"),
            SIEMENS,
        ]
    )
    assert found.categories["manufacturer"] == ("GE MEDICAL SYSTEMS", "SIEMENS")
    assert found.categories["model"] == ("DISCOVERY MR750", "TrioTim")
    assert found.categories["field_strength_t"] == ("1.5", "3")
    assert found.options == ("FS", "PFP", "SAT_GEMS")
    rows = found.encode(
        [
            Acquisition("GE", "Discovery_MR750", 15000.0, "SAT_GEMS_FS"),
            Acquisition("ge healthcare", "DISCOVERY MR750", 1.494, "FS \\ sat_gems"),
        ]
    )
    assert rows.present[:, :4].all()
    assert torch.equal(rows.features[0], rows.features[1])
    decoded = found.decode(rows.features)[0]
    assert (decoded.manufacturer, decoded.field_strength_t) == ("GE MEDICAL SYSTEMS", 1.5)
    assert found.encode([decoded]).features.tolist() == rows.features[:1].tolist()


def test_a_saved_vocabulary_keeps_its_columns_and_understands_other_spellings() -> None:
    """Weights stand behind every column: one that knows two spellings must not lose or move either."""
    old = Vocabulary.model_validate(
        {
            "categories": {
                "manufacturer": ["GE", "GE MEDICAL SYSTEMS", "SIEMENS"],
                "model": ["SIGNA HDx"],
                "field_strength_t": ["1.494", "2.8936", "3"],
            },
            "options": ["EDR_GEMS_FILTERED_GEMS_PFF", "FS"],
            "maxima": {
                "flip_angle_deg": 12.0,
                "slice_thickness_mm": 2.0,
                "echo_time_ms": 2.4,
                "repetition_time_ms": 5.3,
            },
        }
    )
    assert list(old.widths.values()) == [3, 1, 3, 2, 1, 1, 1, 1]

    def features(acquisition: Acquisition, stop: int) -> list[float]:
        return old.encode([acquisition]).features[0, :stop].tolist()

    assert features(Acquisition("GE MEDICAL SYSTEMS", "SIGNA HDx"), 4) == [0, 1, 0, 1]
    assert features(Acquisition("General Electric", "Signa_HDX"), 4) == [1, 0, 0, 1]
    fields = [features(Acquisition(field_strength_t=value), 7)[4:] for value in (1.5, 2.8936, 3.0, 2.9)]
    assert fields == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 1, 0]]
    texts = ("EDR_GEMS_FILTERED_GEMS_PFF", "PFF\\EDR_GEMS\\FILTERED_GEMS\\FS", "PFF")
    assert [features(Acquisition(scan_options=text), 9)[7:] for text in texts] == [[1, 0], [1, 1], [0, 0]]
    assert [list(old.unseen(Acquisition(scan_options=text))) for text in texts] == [[], [], ["scan_options"]]
    assert not old.unseen(Acquisition(echo_time_ms=0.1))  # an old model does not state the least value
    assert list(old.unseen(Acquisition(echo_time_ms=4.8))) == ["echo_time_ms"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"manufacturer": "Philips"}, "manufacturer 'Philips' (nearest seen: "),
        ({"model": "Skyra"}, "model 'Skyra' (nearest seen: "),
        ({"field_strength_t": 7.0}, "field_strength_t 7 (nearest seen: 3.0, 1.5)"),
        ({"scan_options": "FS\\ACC_GEMS"}, "ACC_GEMS of scan_options (seen: FS, PFP, SAT_GEMS)"),
        ({"echo_time_ms": 9.0}, "echo_time_ms 9 (seen: 1.2 to 2.4)"),
        ({"echo_time_ms": 0.5}, "echo_time_ms 0.5 (seen: 1.2 to 2.4)"),
        ({"flip_angle_deg": 0.0}, "flip_angle_deg 0 (seen: 10 to 12)"),
    ],
)
def test_what_training_never_held_is_told_with_what_is_nearest(changes: dict[str, str | float], says: str) -> None:
    target = GE.replace(**changes)
    found = VOCABULARY.unseen(target)
    assert list(found) == list(changes)
    assert next(iter(found.values())).startswith(says)
    known = VOCABULARY.seen_part(target)
    assert known == GE.replace(**{name: "FS" if name == "scan_options" else None for name in changes})
    assert not VOCABULARY.unseen(known)


def test_absent_values_and_small_steps_beyond_the_range_are_no_strangers() -> None:
    assert VOCABULARY.unseen(Acquisition()) == {}
    assert VOCABULARY.unseen(GE.replace(manufacturer="General Electric", field_strength_t=1.494)) == {}
    assert VOCABULARY.unseen(GE.replace(echo_time_ms=2.9, repetition_time_ms=3.3)) == {}
    nothing = Vocabulary.fit([Acquisition("GE")])
    assert list(nothing.unseen(GE)) == ["model", "field_strength_t", "scan_options", *PARAMETERS[4:]]
    assert "(seen: none)" in nothing.unseen(GE)["echo_time_ms"]


@pytest.mark.parametrize("models", [1, 7, 33])
def test_a_row_has_the_same_bits_wherever_in_the_batch_it_stands(models: int) -> None:
    rows = [GE.replace(model=f"Signa {n}") for n in range(models)] + [SIEMENS]
    vocabulary = Vocabulary.fit(rows)
    torch.manual_seed(0)
    embed = TokenEmbedding(vocabulary, 16)
    with torch.no_grad():
        for row in rows:
            first, second = embed(vocabulary.encode([row, SIEMENS]))[0], embed(vocabulary.encode([SIEMENS, row]))[1]
            assert torch.equal(first, second)
