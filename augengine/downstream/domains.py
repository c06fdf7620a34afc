"""What a protocol's domains are told apart by: a key and a row of a shard in, the row's domain value as text out."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Annotated, Any

import pyarrow as pa
from pydantic import Discriminator, Tag, model_validator

from augengine.acquisition_terms import manufacturer
from augengine.io.shards import LINEAGE, SCHEMA
from augengine.records import ACQUISITION_CATEGORICAL, ACQUISITION_NUMERIC
from augengine.yaml_config import Strict

ALL = "all"
"""The one domain value where rows are not told apart."""
ACQUISITION = "acquisition."
SHORT = {"manufacturer": f"{ACQUISITION}manufacturer", "field_strength": f"{ACQUISITION}field_strength_t"}
"""Keys with a name of their own."""
_NO_DOMAIN = {*LINEAGE, "sample_id", "image_dtype", "provenance"}
COLUMNS = tuple(f.name for f in SCHEMA if f.type in (pa.string(), pa.int32()) and f.name not in _NO_DOMAIN)
NUMBERS = {f"{ACQUISITION}{name}" for name in ACQUISITION_NUMERIC} | {f.name for f in SCHEMA if f.type == pa.int32()}
_FIELDS = tuple(f"{ACQUISITION}{name}" for name in (*ACQUISITION_CATEGORICAL, *ACQUISITION_NUMERIC))
KEYS = ("none", *SHORT, *COLUMNS, *_FIELDS)


class Range(Strict):
    """Numbers from one on (that included) and below another."""

    at_least: float
    below: float

    @model_validator(mode="after")
    def _rises(self) -> Range:
        if not self.at_least < self.below:
            raise ValueError(f"a range rises: {self.at_least:g} is not below {self.below:g}")
        return self

    def __str__(self) -> str:
        return f"{self.at_least:g} to {self.below:g}"

    def holds(self, number: float) -> bool:
        """True for a number in it."""
        return self.at_least <= number < self.below


def _kind(value: Any) -> str:
    if isinstance(value, dict | Range):
        return "range"
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else "text"


Value = Annotated[
    Annotated[str, Tag("text")] | Annotated[float, Tag("number")] | Annotated[Range, Tag("range")], Discriminator(_kind)
]
"""A text, a number or a range of numbers."""


def told(value: Value) -> str:
    """A domain value as text: by it rows, chunks of subjects and tables know their domain.

    >>> told(1.5), told(Range(at_least=1, below=2)), told("Bonn")
    ('1.5', '1 to 2', 'Bonn')
    """
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def domain_value(key: str, row: Mapping[str, Any], ranges: tuple[Range, ...] = ()) -> str:
    """The domain value of a shard's row; all spellings of a manufacturer are one.

    Args:
        key: one of `KEYS`.
        row: holds the column that the key names.
        ranges: of numbers, at most one of which holds any.
    """
    if key == "none":
        return ALL
    stated = _stated(SHORT.get(key, key), row)
    if SHORT.get(key, key) == SHORT["manufacturer"]:
        return manufacturer(stated) if stated else str(stated)
    if isinstance(stated, int | float):
        return next((told(one) for one in ranges if one.holds(stated)), told(stated))
    return str(stated)


def column_of(key: str) -> str | None:
    """The column of a shard that a key needs; None for `none`."""
    full = SHORT.get(key, key)
    return None if key == "none" else "acquisition" if full.startswith(ACQUISITION) else full


def check_values(key: str, values: list[Value]) -> None:
    """Refuse domain values that no row of that key can have.

    Raises:
        ValueError: with the value.
    """
    full = SHORT.get(key, key)
    for value in values:
        if isinstance(value, str) == (full in NUMBERS):
            wanted = "numbers or ranges {at_least: 1, below: 2}" if full in NUMBERS else "texts, numbers in quotes"
            raise ValueError(f"domains of {key} are named by {wanted}, not by {value!r}")
        if full == SHORT["manufacturer"] and manufacturer(str(value)) != value:
            raise ValueError(
                f"domains name manufacturers by their normal form: {manufacturer(str(value))}, not {value}"
            )
    for a, b in combinations(values, 2):
        if a != b and _overlap(a, b):
            raise ValueError(f"two domain values hold no number in common: {told(a)} and {told(b)} do")


def _overlap(a: Value, b: Value) -> bool:
    if isinstance(a, Range) and isinstance(b, Range):
        return a.at_least < b.below and b.at_least < a.below
    if isinstance(b, Range):
        a, b = b, a
    return isinstance(a, Range) and isinstance(b, int | float) and a.holds(b)


def _stated(key: str, row: Mapping[str, Any]) -> Any:
    if key.startswith(ACQUISITION):
        return row["acquisition"][key.removeprefix(ACQUISITION)]
    return row[key]
