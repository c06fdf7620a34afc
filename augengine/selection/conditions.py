"""A condition as text in; whether a row's metadata meet it, out.

A condition is a field, an operator and a value: `manufacturer = GE`, `field_strength_t >= 1.5`, `site != A|B`,
`policy = tumor_removal|tumor_relocation`, `gate.label_agreement >= 0.8`. Alternatives are joined by `|`.
"""

from __future__ import annotations

import json
import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from augengine.errors import ConfigError
from augengine.records import ACQUISITION_CATEGORICAL, ACQUISITION_NUMERIC
from augengine.yaml_config import unknown_name

ROW = ("sample_id", "subject_id", "volume_id", "slice_index", "site", "split", "synthetic")
ACQUISITION = (*ACQUISITION_CATEGORICAL, *ACQUISITION_NUMERIC)
MADE = ("policy", "policy_digest", "edit", "parent_id", "replicate")
GATE = "gate."
_NUMERIC = ("slice_index", "replicate", *ACQUISITION_NUMERIC)
_ORDER: Mapping[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_PATTERN = re.compile(r"\s*(?P<field>[^\s=<>!]+)\s*(?P<operator>!=|<=|>=|=|<|>)\s*(?P<value>\S.*?)\s*")


@dataclass(frozen=True)
class Condition:
    """One condition on the metadata of a row.

    What an augmented row was made by (`policy`, `policy_digest`, `edit`, `parent_id`, `replicate`, and the value of
    a gate, `gate.NAME`) is asked of augmented rows alone; all else of every row. A row that does not state a value
    meets no condition on it, whatever the operator.
    """

    field: str
    operator: str
    values: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Condition:
        """The condition that a text says.

        Raises:
            ConfigError: not a condition, or an unknown field, or an order among words.

        >>> Condition.parse("field_strength_t >= 1.5")
        Condition(field='field_strength_t', operator='>=', values=('1.5',))
        """
        found = _PATTERN.fullmatch(text)
        if not found:
            raise ConfigError(
                "a condition is a field, an operator (= != < <= > >=) and a value",
                found=text,
                next_step="for example: manufacturer = GE",
            )
        name, sign = found["field"], found["operator"]
        fields = (*ROW, *ACQUISITION, *MADE)
        if name not in fields and not (name.startswith(GATE) and name != GATE):
            raise unknown_name("field of a condition", name, [*fields, f"{GATE}NAME"], text)
        values = tuple(part.strip() for part in found["value"].split("|"))
        numeric = name in _NUMERIC or name.startswith(GATE)
        if (numeric or sign in _ORDER) and not (numeric and all(map(_is_number, values))):
            raise ConfigError(f"'{name} {sign}' needs {'numbers' if numeric else '= or !='}", found=text)
        if sign in _ORDER and len(values) > 1:
            raise ConfigError(f"'{sign}' takes one number", found=text)
        return cls(name, sign, values)

    def __str__(self) -> str:
        return f"{self.field} {self.operator} {'|'.join(self.values)}"

    @property
    def of_making(self) -> bool:
        """True if it asks how a row was made, which real rows were not."""
        return self.field in MADE or self.field.startswith(GATE)

    @property
    def column(self) -> str:
        """The shards' column that holds the field."""
        return "provenance" if self.of_making else "acquisition" if self.field in ACQUISITION else self.field

    def value(self, row: Mapping[str, Any]) -> Any:
        """What a row says; None where it says nothing."""
        if self.field in ACQUISITION:
            return row["acquisition"][self.field]
        if not self.of_making:
            return row[self.field]
        made = json.loads(row["provenance"])
        if self.field.startswith(GATE):
            return {gate["name"]: gate["value"] for gate in made["gates"]}.get(self.field.removeprefix(GATE))
        return made["plan"].get("replicate") if self.field == "replicate" else made[self.field]

    def holds(self, row: Mapping[str, Any]) -> bool:
        """True if a row of which it is asked meets it; the row has the column `column`."""
        return self.met_by(self.value(row))

    def met_by(self, value: Any) -> bool:
        """True if a value meets it."""
        if value is None:
            return False
        if self.operator in _ORDER:
            return _ORDER[self.operator](float(value), float(self.values[0]))
        return any(_same(value, wanted) for wanted in self.values) == (self.operator == "=")


def columns_of(conditions: Iterable[Condition]) -> list[str]:
    """The shards' columns that some conditions need."""
    return sorted({condition.column for condition in conditions})


def _same(value: Any, wanted: str) -> bool:
    if isinstance(value, bool):
        return str(value).lower() == wanted.lower()
    if isinstance(value, str):
        return value == wanted
    return math.isclose(float(value), float(wanted), rel_tol=1e-6)


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
