"""One normal form of acquisition values: every spelling of a scanner is that scanner, and no other one is."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from augengine.acquisition_terms import alike, field_strength_t, manufacturer, model, nearest, same, scan_options, shown
from augengine.io.sources import shared_acquisition
from augengine.load import load_policy
from augengine.phantom.protocols import GE, SIEMENS, draw_protocol, duke_protocols, is_fat_saturated
from augengine.phantom.scanner import scanner_of
from augengine.pipeline.forecast import forecast
from augengine.pipeline.ingest import ingest
from augengine.pipeline.units import INLINE
from augengine.policy.spec import matches, mismatch
from augengine.prepare import Preparation
from augengine.records import Acquisition
from augengine.report.classical import protocol_group
from augengine.rng import generator
from augengine.splits import assign_splits, categories

# What headers and sidecars are known to say, by vendor.
SPELLINGS = {
    GE: (
        "GE",
        "ge",
        "GE MEDICAL SYSTEMS",
        "GE_MEDICAL_SYSTEMS",
        "GE Healthcare",
        "G.E. Medical Systems",
        '"GE Healthcare"',
        "General Electric",
        "GEMS",
        "GE MEDICAL SYSTEMS, NUCLEAR",
    ),
    SIEMENS: ("SIEMENS", "Siemens", " siemens ", "Siemens HealthCare GmbH", "Siemens Healthineers", "SIEMENS NM"),
    "Philips Medical Systems": (
        "Philips",
        "Philips Medical Systems",
        "Philips Healthcare",
        "PHILIPS",
        "Philips Medical Systems, Inc.",
    ),
    "TOSHIBA": ("TOSHIBA", "Toshiba", "TOSHIBA_MEC", "CANON_MEC", "Canon", "Canon Medical Systems"),
    "Hitachi": ("Hitachi", "Hitachi Medical Corporation", "Hitachi, Ltd.", "FUJIFILM Healthcare Corporation"),
    "UIH": ("UIH", "United Imaging", "United_Imaging_Healthcare"),
    "Bruker": ("Bruker", "Bruker BioSpin MRI GmbH"),
}


@pytest.mark.parametrize(("name", "texts"), SPELLINGS.items())
def test_every_spelling_of_a_vendor_is_the_vendor_and_no_other(name: str, texts: tuple[str, ...]) -> None:
    assert {manufacturer(text) for text in texts} == {name} == {manufacturer(name)}
    assert all(same("manufacturer", text, other) for text in texts for other in texts)
    strangers = [text for other, found in SPELLINGS.items() if other != name for text in found]
    assert not any(same("manufacturer", text, other) for text in texts for other in strangers)


def test_what_no_table_knows_is_itself_and_no_beginning_of_a_word_counts() -> None:
    assert (manufacturer("Gedeon Imaging"), manufacturer("Siemensstadt MR")) == ("GEDEON IMAGING", "SIEMENSSTADT MR")
    assert same("manufacturer", "Gedeon  imaging", "GEDEON IMAGING")
    assert not same("manufacturer", "Gedeon Imaging", "GE")
    assert not same("manufacturer", None, "GE")
    assert same("manufacturer", None, None)


@pytest.mark.parametrize(
    ("stated", "nominal"),
    [
        (1.494, 1.5),
        (1.5, 1.5),
        (15000, 1.5),
        (2.89, 3.0),
        (2.8936, 3.0),
        (2.9, 3.0),
        (3, 3.0),
        (30000, 3.0),
        (0.55, 0.55),
        (0.5, 0.5),
        (2000, 0.2),
        (6.98, 7.0),
        (1.0, 1.0),
        (2.35, 2.35),
        (17.2, 17.2),
    ],
)
def test_field_strengths_are_nominal(stated: float, nominal: float) -> None:
    assert field_strength_t(stated) == nominal
    assert same("field_strength_t", stated, nominal)
    assert not same("field_strength_t", stated, 4.2)


def test_models_differ_by_letters_and_digits_alone() -> None:
    assert model("DISCOVERY_MR750w") == model("Discovery MR750w") != model("DISCOVERY MR750")
    assert model("MAGNETOM Prisma") == model("Prisma") != model("Prisma_fit")
    assert shown("model", "DISCOVERY_MR750") == "DISCOVERY MR750"


def test_scan_options_know_order_blanks_case_and_joined_headers() -> None:
    assert same("scan_options", "PFP\\FS", " fs \\ pfp ")
    assert same(
        "scan_options",
        "SAT_GEMS_EDR_GEMS_EPI_GEMS_HYPERBAND_GEMS_PFF_FS",
        "FS\\PFF\\HYPERBAND_GEMS\\EPI_GEMS\\EDR_GEMS\\SAT_GEMS",
    )
    assert scan_options("FC_SLICE_AX") == ("FC_SLICE_AX",)  # not made of known options alone
    assert not same("scan_options", "PFP", "PFP\\FS")
    assert is_fat_saturated(Acquisition(scan_options="pfp_fs"))


def test_numbers_are_one_up_to_the_rounding_of_headers() -> None:
    assert same("echo_time_ms", 2.3, 2.29999995)
    assert not same("echo_time_ms", 5.34, 5.341)
    assert alike(Acquisition("GE", echo_time_ms=2.3), Acquisition(GE, echo_time_ms=2.29999995))
    assert not alike(Acquisition("GE", echo_time_ms=2.3), Acquisition(GE))


def test_the_nearest_values_come_first() -> None:
    assert nearest("manufacturer", "Simens", Counter({"SIEMENS": 2, "GE": 7, "Philips": 1})).startswith(
        "'SIEMENS' (2), "
    )
    assert nearest("field_strength_t", 1.2, [3.0, 1.494, 7.0]) == "1.494, 3.0, 7.0"
    assert nearest("echo_time_ms", 1.0, []) == "none"


STATED = (
    Acquisition("GE", "DISCOVERY_MR750", 3.0, "EDR_GEMS_PFF", echo_time_ms=4.0),
    Acquisition("GE MEDICAL SYSTEMS", "Discovery MR750", 2.89, "PFF\\EDR_GEMS", echo_time_ms=4.0),
)


def test_one_scanner_in_two_spellings_is_one_everywhere() -> None:
    asked = {"manufacturer": "General Electric", "field_strength_t": 3, "scan_options": "EDR_GEMS\\PFF"}
    assert all(matches(asked, acquisition) for acquisition in STATED)
    assert not matches({"manufacturer": ["SIEMENS", "Philips"]}, STATED[0])
    assert shared_acquisition(STATED) == STATED[0]
    assert protocol_group(STATED[0]) == protocol_group(STATED[1])
    assert scanner_of(Acquisition("Siemens Healthineers", "AVANTO")) is scanner_of(Acquisition(SIEMENS, "Avanto"))
    rng = generator("draw")
    assert draw_protocol(rng, manufacturer="Siemens").manufacturer == SIEMENS


def test_one_scanner_in_two_spellings_is_one_stratum() -> None:
    """Each spelling has its own subjects; told apart, the few of one spelling would fill a split of their own."""
    subjects = {f"s{n:02d}": categories([STATED[n % 4 == 0]]) for n in range(40)}
    renamed = {subject: categories([STATED[1]]) for subject in subjects}
    assert assign_splits(subjects, 3) == assign_splits(renamed, 3)
    field = {
        subject: categories([Acquisition(field_strength_t=(1.494, 1.5)[n % 2])]) for n, subject in enumerate(subjects)
    }
    nominal = {subject: categories([Acquisition(field_strength_t=1.5)]) for subject in subjects}
    assert field == nominal


def test_a_condition_that_takes_nothing_names_what_comes_nearest() -> None:
    found = {STATED[0]: 3, Acquisition("Philips", field_strength_t=1.5): 2}
    assert mismatch({"manufacturer": "Phillips"}, found) == (
        "no manufacturer 'Phillips', nearest: 'Philips' (2), 'GE' (3)"
    )
    assert mismatch({"echo_time_ms": 3.0}, found) == "no echo_time_ms 3.0, nearest: 4.0 (3)"
    assert "no row has them all" in mismatch({"manufacturer": "GE", "field_strength_t": 1.5}, found)


def test_policies_take_the_rows_of_real_sidecars(real_data: Path, tmp_path: Path) -> None:
    """Eleven scanners whose sidecars say GE, Siemens and Philips, and policies that say what DICOM headers do.

    The scans have no label maps: the paper's policy, which trains a segmenter, asks for them and is freed of it here.
    """
    out = str(tmp_path / "data")
    folder = real_data / "B1_spine_generic_one_volunteer"
    ingest(folder, out, layout="bids", preparation=Preparation(size=32), fractions=(1, 0, 0), actors=INLINE)
    policies = Path(__file__).parents[1] / "augengine/policies"
    taken = {}
    for name in ("duke_acquisition", "duke_acquisition_paper"):
        unlabelled = tmp_path / f"{name}.yaml"
        unlabelled.write_text((policies / unlabelled.name).read_text().replace("  labelled: true\n", ""))
        loaded = load_policy(unlabelled)
        found = forecast(loaded, out, {})
        taken[loaded.policy.select.where["manufacturer"]] = found.surveyed.selected
        assert found.requested == found.surveyed.selected * loaded.policy.output.per_input > 0
    assert set(taken) == {GE, SIEMENS}
    assert sum(taken.values()) < found.surveyed.rows  # Philips is neither


def test_the_published_table_is_in_the_normal_form() -> None:
    assert {p.manufacturer for p in duke_protocols()} == {manufacturer(p.manufacturer) for p in duke_protocols()}
