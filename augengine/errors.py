"""One exception family: every message says the rule, the value found and the next step."""

from __future__ import annotations

LONGEST_FOUND = 400
"""Characters of a value that are shown."""


class AugengineError(Exception):
    """A mistake in the input that a user can mend; shown as one line, never as a traceback.

    Args:
        rule: what must hold, in a short sentence.
        found: the offending value, shown with `repr` unless it is a string.
        next_step: what the user can do about it.
        where: the file, `file:line`, row or folder that the value stands in.
    """

    def __init__(
        self, rule: str, *, found: object = None, next_step: str | None = None, where: str | None = None
    ) -> None:
        self.rule, self.found, self.next_step, self.where = rule, found, next_step, where
        super().__init__(str(self))

    def __str__(self) -> str:
        text = self.rule if self.where is None else f"{self.where}: {self.rule}"
        if self.found is not None:
            found = self.found if isinstance(self.found, str) else repr(self.found)
            text += f"; found {found if len(found) <= LONGEST_FOUND else found[:LONGEST_FOUND] + '…'}"
        if self.next_step is not None:
            text += f"; {self.next_step}"
        return text if text.isprintable() else "".join(map(_visible, text))

    def to_dict(self) -> dict[str, str | None]:
        """Its parts as texts, for programs."""
        found = self.found if self.found is None or isinstance(self.found, str) else repr(self.found)
        return {"rule": self.rule, "found": found, "where": self.where, "next_step": self.next_step}

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only arguments do not survive the default pickling between Ray processes.
        return _rebuild, (type(self), self.rule, self.found, self.next_step, self.where)


def _visible(character: str) -> str:
    """A character that a terminal shows as one; others, which could start a line or hide one, by their escape."""
    return character if character.isprintable() or character == "\xa0" else ascii(character)[1:-1]


def _rebuild(
    kind: type[AugengineError], rule: str, found: object, next_step: str | None, where: str | None
) -> AugengineError:
    return kind(rule, found=found, next_step=next_step, where=where)


class DataError(AugengineError):
    """An image, mask, table or shard that cannot be used; quarantines its subject or row."""


class ConfigError(AugengineError):
    """A policy, recipe or flag that cannot be obeyed; `where` is `file:line`."""


class CheckpointError(AugengineError):
    """A checkpoint that is damaged or made for other data."""


class RunError(AugengineError):
    """An output folder or cluster in a state that this command must not touch."""


class ContractError(AugengineError):
    """A plug-in that does not keep what everything of its kind must keep."""
