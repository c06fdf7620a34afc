"""Several data sets as one, sites from a table of participants, and protocols whose domains are sites."""

from __future__ import annotations

from pathlib import Path

import pytest
from builders import slice_sample, write_samples

from augengine.downstream.inventory import take_inventory
from augengine.downstream.joined import join
from augengine.downstream.protocols import by_site, protocol
from augengine.errors import ConfigError, DataError
from augengine.io.dataset import dataset_files
from augengine.io.shards import iter_samples
from augengine.io.store import Store
from augengine.io.subject_sites import sites_of
from augengine.pipeline.units import INLINE

TISSUES = {"fat": 1, "fibroglandular": 2}
ASKED = by_site(protocol("duke_strict"), ["Bonn", "Turin"])


def test_two_data_sets_are_one_and_every_row_has_its_site(tmp_path: Path) -> None:
    first = [slice_sample(s, i, site="Bonn", labels=TISSUES) for s in range(2) for i in range(3)]
    second = [slice_sample(s, i, split="test", labels=TISSUES) for s in range(2, 4) for i in range(3)]
    uris = [write_samples(tmp_path / "a", first, per_file=4), write_samples(tmp_path / "b", second, per_file=4)]
    uri = join(uris, str(tmp_path / "both"), {"S002": "Turin"}, actors=INLINE)
    rows = {s.sample_id: s for s in iter_samples(Store(uri), dataset_files(Store(uri)))}
    assert len(rows) == 12
    assert {s.subject_id: s.site for s in rows.values()} == {
        "S000": "Bonn",
        "S001": "Bonn",
        "S002": "Turin",
        "S003": None,
    }
    for sample in (*first, *second):
        assert rows[sample.sample_id].split == sample.split
        assert (rows[sample.sample_id].image == sample.image).all()
    found = take_inventory(uri, ASKED)
    assert found.scanned(["Bonn"], ["train"]) == {("S000", "Bonn"), ("S001", "Bonn")}
    assert found.scanned(["Turin"], ["test"]) == {("S002", "Turin")}


def test_one_subject_id_in_two_data_sets_is_refused(tmp_path: Path) -> None:
    uris = [write_samples(tmp_path / name, [slice_sample(1)]) for name in "ab"]
    with pytest.raises(DataError, match=r"a subject id stands in one data set.*found S001"):
        join(uris, str(tmp_path / "both"), {}, actors=INLINE)


def test_sites_come_from_the_table_of_participants(tmp_path: Path) -> None:
    uri = write_samples(tmp_path / "a", [slice_sample(s) for s in range(2)])
    table = tmp_path / "participants.tsv"
    table.write_text("participant_id\thospital\nsub-S000\tBonn\nS001\tTurin\nS009\tRome\n")
    assert sites_of([uri], table, "hospital") == {"S000": "Bonn", "S001": "Turin"}
    with pytest.raises(ConfigError, match="did you mean 'hospital'"):
        sites_of([uri], table, "hospitl")
    table.write_text("participant_id\thospital\nS000\tBonn\nS001\tn/a\n")
    with pytest.raises(DataError, match="must state 'hospital' of every subject; found nothing of S001"):
        sites_of([uri], table, "hospital")


def test_sites_as_domains() -> None:
    assert [str(cell) for cell in ASKED.cells] == ["Bonn → Bonn", "Bonn → Turin", "Turin → Bonn", "Turin → Turin"]
    assert (ASKED.key, ASKED.classes) == ("site", protocol("duke_strict").classes)
    for sites in (["Bonn"], ["Bonn", "Bonn"]):
        with pytest.raises(ConfigError, match="two different ones"):
            by_site(protocol("duke_strict"), sites)
