"""Text of the command line: parsed, checked, refused with the flag's name."""

import pytest

from augengine.commands.flags import checked, each_once, parse_assignments, parse_numbers, parse_pairs
from augengine.errors import ConfigError
from augengine.io.sources import SourceOptions
from augengine.prepare import Preparation


def test_bad_flags_name_themselves() -> None:
    with pytest.raises(ConfigError, match=r"^--drop-end-slices: .*found -1"):
        checked(Preparation, drop_end_slices=-1)
    with pytest.raises(ConfigError, match="field of view"):
        checked(Preparation, size=8, spacing_mm=0.1)
    with pytest.raises(ConfigError, match="did you mean 'echo_time_ms'"):
        checked(SourceOptions, acquisition={"echo_time": "3"})
    with pytest.raises(ConfigError, match="number of 0 to 1000"):
        checked(SourceOptions, acquisition={"echo_time_ms": "-3"})
    for text in ("a=1,a=2", "=1", "a="):
        with pytest.raises(ConfigError, match="--set"):
            parse_assignments(text, "--set", "*")
    with pytest.raises(ConfigError, match="--fractions"):
        parse_numbers("0.7;0.3", "--fractions")


def test_values() -> None:
    assert checked(SourceOptions, acquisition={"echo_time_ms": "3", "model": "X"}).acquisition == {
        "echo_time_ms": 3.0,
        "model": "X",
    }
    assert parse_numbers("0.7,0.1,0.2", "--fractions") == (0.7, 0.1, 0.2)
    assert parse_assignments("", "--set") == {}


def test_a_name_is_given_one_value() -> None:
    with pytest.raises(ConfigError, match=r"^--part: 'a' is given twice; found a=2; leave one of them out"):
        parse_pairs(["a=1", "a=2"], "--part", "for example a=1")
    for text in ("a", "=1", "a=", " = "):
        with pytest.raises(ConfigError, match=r"^--part: give name=value"):
            parse_pairs([text], "--part", "for example a=1")


def test_a_folder_is_given_once_however_it_is_written() -> None:
    each_once(["runs/a", "runs/b", "memory://a"], "RUN")
    for again in ("runs/a/", "./runs/a", "runs/b/../a"):
        with pytest.raises(ConfigError, match=r"^RUN: a folder is given twice"):
            each_once(["runs/a", again], "RUN")
