"""The subjects of a phantom cohort: their number in, ids out, and back."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from augengine.errors import DataError
from augengine.yaml_config import Strict


class Subjects(Strict):
    """What cohorts of any organ share.

    Attributes:
        PREFIX, FIRST, DIGITS: an id is the prefix and a number of so many digits, which begins with `FIRST`.
    """

    PREFIX: ClassVar[str]
    FIRST: ClassVar[int]
    DIGITS: ClassVar[int]

    subjects: int = Field(50, ge=1, le=100_000)
    seed: int = Field(7, ge=0)

    def subject_id(self, index: int) -> str:
        """The id of subject `index`, from 0; one that the cohort does not have is a `DataError`."""
        self._check(index)
        return f"{self.PREFIX}{index + self.FIRST:0{self.DIGITS}d}"

    def index_of(self, subject_id: str) -> int:
        """Inverse of `subject_id`; a subject that is not of this cohort is a `DataError`."""
        number = subject_id.removeprefix(self.PREFIX)
        index = int(number) - self.FIRST if number.isdecimal() else -1
        if not 0 <= index < self.subjects or self.subject_id(index) != subject_id:
            raise DataError(
                "the subject is not of this phantom cohort",
                found=subject_id,
                next_step=f"subjects are {self.subject_id(0)} to {self.subject_id(self.subjects - 1)}",
            )
        return index

    def _check(self, index: int) -> None:
        if not 0 <= index < self.subjects:
            raise DataError("no such subject in the cohort", found=index, next_step=f"use 0 to {self.subjects - 1}")
