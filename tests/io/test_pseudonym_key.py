"""Pseudonyms have a secret key, always; it is made once, kept from others, and shown nowhere."""

from __future__ import annotations

import hashlib
import stat
from pathlib import Path

import pytest

from augengine.errors import ConfigError
from augengine.io.pseudonym_key import KEY, KEY_FILE, own_file, pseudonym_key
from augengine.io.sources import SourceOptions, pseudonym, subject_name

SECRET = "0123456789abcdef of a hospital"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv(KEY, raising=False)
    monkeypatch.delenv(KEY_FILE, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path


def test_a_key_is_made_at_first_use_and_kept(home: Path) -> None:
    first = pseudonym_key()
    assert pseudonym_key() == first
    assert own_file() == home / "config" / "augengine" / "pseudonym.key"
    assert stat.S_IMODE(own_file().stat().st_mode) == 0o600
    own_file().unlink()
    assert pseudonym_key() != first


def test_where_a_key_comes_from(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "a").write_text(SECRET)
    (home / "b").write_text(SECRET + "2")
    monkeypatch.setenv(KEY_FILE, str(home / "a"))
    of_file = pseudonym_key()
    monkeypatch.setenv(KEY, SECRET + "2")
    assert pseudonym_key() == pseudonym_key(home / "b") != of_file
    assert not own_file().exists()


@pytest.mark.parametrize("secret", ["", "Zq9", "\n"])
def test_a_short_key_is_refused_and_no_key_is_shown(home: Path, secret: str) -> None:
    (home / "a").write_text(secret)
    with pytest.raises(ConfigError, match="16 bytes or more") as caught:
        pseudonym_key(home / "a")
    assert "Zq9" not in str(caught.value)
    with pytest.raises(ConfigError, match="cannot be read"):
        pseudonym_key(home / "gone")
    assert SECRET not in repr(SourceOptions(pseudonym_key=SECRET))
    assert SECRET not in str(SourceOptions(pseudonym_key=SECRET).identity())


def test_who_knows_all_names_finds_no_patient(home: Path) -> None:
    """The attack on unkeyed ids: hash every possible patient number and look."""
    name = subject_name("00004711", SourceOptions(pseudonym_key=pseudonym_key()))
    digits = name.removeprefix("sub-")
    assert len(digits) * 4 >= 96
    for n in range(4000, 5000):
        for size in (5, 12):
            assert hashlib.blake2b(f"{n:08d}".encode(), digest_size=size).hexdigest() not in (digits, digits[:10])
    assert pseudonym("00004711", "another key") != name
