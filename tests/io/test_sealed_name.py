"""A checksum whose own name is damaged is no checksum of an older version that had none."""

from __future__ import annotations

import pytest

from augengine.errors import DataError
from augengine.io.sealed import SEAL, sealed, unsealed


@pytest.mark.parametrize("name", ["checksuM", "chgcksum", "chEcksu!", "checksum "])
def test_a_damaged_name_of_the_checksum_is_refused(name: str) -> None:
    values = sealed({"rows": 3})
    values[name] = values.pop(SEAL)
    with pytest.raises(DataError, match="as it was written"):
        unsealed(values, "here")


def test_older_files_have_none() -> None:
    values = {"rows": 3, "counts": {}, "chunks": 2, "checkpoint": 1}
    assert unsealed(values, "here") == values
