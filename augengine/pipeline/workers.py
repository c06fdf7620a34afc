"""What a worker of units is: a unit's plain spec in, tables by output folder out; and what else it may know to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import pyarrow as pa

from augengine.errors import AugengineError


@dataclass(frozen=True)
class Unit:
    """A piece of work with an id from its content, so that a rerun knows it again; `spec` is plain JSON."""

    unit_id: str
    spec: dict[str, Any]


class Worker(Protocol):
    """Made once per actor; turns a unit's spec into tables by output folder. Bad rows are its own business."""

    def __call__(self, spec: dict[str, Any]) -> dict[str, pa.Table]:
        """Tables by folder name."""


@runtime_checkable
class Staged(Worker, Protocol):
    """A worker whose work has three stages: `encode(make(spec, read(spec)))` is what calling it does.

    While one unit is made, the next one is read and the last one is encoded and written, each in a thread of its own.
    """

    def read(self, spec: dict[str, Any]) -> Any:
        """All that can be done before the unit's turn; it uses no model, and nothing that `make` changes."""

    def make(self, spec: dict[str, Any], read: Any) -> Any:
        """What was read, worked on."""

    def encode(self, made: Any) -> dict[str, pa.Table]:
        """What was made as tables by folder; uses nothing that `make` of another unit changes."""


@runtime_checkable
class Divisible(Protocol):
    """A worker whose units can be done row by row, so that the one that kills its process can be told."""

    def divide(self, spec: dict[str, Any]) -> list[dict[str, Any]]:
        """Specs of units of one row each, in an order that is always the same."""

    def quarantine(self, spec: dict[str, Any], why: AugengineError) -> dict[str, pa.Table]:
        """The tables of a unit that cannot be done, without doing it."""


@runtime_checkable
class Explains(Protocol):
    """A worker that can say in short why rows came where they did."""

    def reasons(self, tables: Mapping[str, pa.Table]) -> dict[str, dict[str, int]]:
        """By folder, reasons with their number of rows; of unlike ones only the commonest."""
