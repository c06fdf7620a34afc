"""The table of participants: persons and sites by column, and what is refused in one line."""

from pathlib import Path

import pytest
from bids_files import put

from augengine.errors import ConfigError, DataError
from augengine.io.participants import Participants
from augengine.io.sources import Source, SourceOptions
from augengine.pipeline.ingest_plan import plan_ingest

HEADER = "participant_id\tperson\thospital\n"


def table(root: Path, text: str, encoding: str = "utf-8") -> Path:
    (root / "participants.tsv").write_bytes(text.encode(encoding))
    return root


def of(root: Path, **options: object) -> Participants:
    return Participants.of(root, SourceOptions(**{"subject_column": "person", "site_column": "hospital", **options}))


def source(name: str) -> Source:
    return Source("v", "s", "e", participant=name)


@pytest.mark.parametrize("name", ["sub-01", "01"])
@pytest.mark.parametrize("row", ["sub-01\tanna\tBern\n", "01\t anna \tBern\n", "sub-01\tanna\tBern\n\n\t\t\n"])
def test_participants_with_and_without_their_prefix(tmp_path: Path, name: str, row: str) -> None:
    participants = of(table(tmp_path, HEADER + row))
    assert (participants.subject(source(name)), participants.site(source(name))) == ("anna", "Bern")
    assert participants.files(tmp_path) == ["participants.tsv"]


def test_tables_of_other_programs(tmp_path: Path) -> None:
    text = HEADER + "sub-01\tanna\tZürich\n"
    table(tmp_path, text.replace("\n", "\r\n"), "utf-8-sig")
    assert of(tmp_path).site(source("sub-01")) == "Zürich"
    other = tmp_path / "people.csv"
    other.write_text(text.replace("\t", ","), encoding="utf-8")
    assert of(tmp_path, participants=other).site(source("sub-01")) == "Zürich"


@pytest.mark.parametrize("cell", ["", " ", "n/a", "N/A", "nan", "None"])
def test_an_empty_cell_is_no_person(tmp_path: Path, cell: str) -> None:
    """Else all patients that nobody knows would be one."""
    participants = of(table(tmp_path, HEADER + f"sub-01\t{cell}\tBern\nsub-02\tberta\n"))
    with pytest.raises(DataError, match="must state 'person' of every volume; found an empty cell"):
        participants.subject(source("sub-01"))
    with pytest.raises(DataError, match="must state 'hospital' of every volume; found an empty cell"):
        participants.site(source("sub-02"))
    with pytest.raises(DataError, match="found no row"):
        participants.subject(source("sub-03"))
    with pytest.raises(DataError, match="found no row"):
        participants.subject(source("sub-1"))  # no guess: a program may have cut the zero, or not


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (HEADER + "sub-01\tanna\tBern\n01\tanna\tGenf\n", "rows of one participant must agree on 'hospital'"),
        (HEADER + "sub-01\tanna\tBern\nsub-01\tberta\tBern\n", "rows of one participant must agree on 'person'"),
        ("participant_id\tperson\tperson\thospital\n", "a column may stand once in a table; found person"),
        ("person\thospital\n", "unknown column 'participant_id'"),
        ("participant_id\tperson\thospitl\n", "unknown column 'hospital'; did you mean 'hospitl'"),
        ("", "unknown column 'participant_id'"),
    ],
)
def test_what_is_refused(tmp_path: Path, text: str, rule: str) -> None:
    with pytest.raises(ConfigError, match=r"participants\.tsv") as error:
        of(table(tmp_path, text))
    assert rule in str(error.value)
    assert "\n" not in str(error.value)


def test_rows_that_agree_are_one(tmp_path: Path) -> None:
    text = "participant_id\tvisit\tperson\thospital\nsub-01\t1\tanna\tBern\nsub-01\t2\tanna\tBern\n"
    assert of(table(tmp_path, text)).subject(source("sub-01")) == "anna"


def test_a_table_that_nobody_asks_for_is_not_read(tmp_path: Path) -> None:
    table(tmp_path, HEADER + "sub-01\tJosé\tBern\n", "latin-1")
    assert Participants.of(tmp_path, SourceOptions()) == Participants()
    with pytest.raises(ConfigError, match="this table cannot be read; found UnicodeDecodeError"):
        of(tmp_path)
    with pytest.raises(ConfigError, match="--participants needs a column to read"):
        Participants.of(tmp_path, SourceOptions(participants=tmp_path / "participants.tsv"))
    with pytest.raises(ConfigError, match="needs their table"):
        of(tmp_path / "elsewhere")


def test_a_linked_table_is_the_file_that_is_listed(tmp_path: Path) -> None:
    """Data sets under version control keep contents elsewhere, and links to them in their places."""
    put(tmp_path, "sub-01/anat/sub-01_T1w.nii.gz")
    content = tmp_path / ".git/annex/table"
    content.parent.mkdir(parents=True)
    content.write_text(HEADER + "sub-01\tanna\tBern\n")
    (tmp_path / "participants.tsv").symlink_to(content)
    plan = plan_ingest(tmp_path, "bids", SourceOptions(subject_column="person"), inline=True)
    assert "participants.tsv" in plan.shared
    assert plan.files() == {"found": 3, "used": 2, "failed": 0, "unused": {"hidden": 1}}


def test_one_person_in_several_folders_and_several_sessions_stays_in_one_split(tmp_path: Path) -> None:
    for n in range(12):
        for session in "ab":
            put(tmp_path, f"sub-{n:02d}/ses-{session}/anat/sub-{n:02d}_ses-{session}_T1w.nii.gz", seed=n)
    rows = "".join(f"sub-{n:02d}\tperson{n // 3}\tsite{n % 2}\n" for n in range(12))
    table(tmp_path, HEADER + rows)
    sessions = plan_ingest(tmp_path, "bids", SourceOptions(public_ids=True), inline=True)
    assert len(sessions.sources) == 24
    assert set(sessions.splits) == {f"sub-{n:02d}" for n in range(12)}
    stated = SourceOptions(public_ids=True, subject_column="person", site_column="hospital")
    plan = plan_ingest(tmp_path, "bids", stated, inline=True)
    assert set(plan.splits) == {f"person{n}" for n in range(4)}
    assert {s.subject_id for s in plan.sources if s.volume_id.startswith("sub-04")} == {"person1"}
    assert {s.site for s in plan.sources} == {"site0", "site1"}
    assert plan.files()["unused"] == {}
    assert sessions.files()["unused"] == {"a table of participants; --subject-column and --site-column read it": 1}
