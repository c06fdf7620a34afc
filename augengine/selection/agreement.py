"""Channels and label schemes of the rows found in; those that all items will have, out, or an error."""

from __future__ import annotations

from collections.abc import Mapping

from augengine.errors import DataError
from augengine.selection.labels import Labels
from augengine.yaml_config import unknown_name

Scheme = tuple[tuple[str, ...], tuple[int, ...]]


def common_channels(wanted: tuple[str, ...] | None, found: Mapping[tuple[str, ...], str]) -> tuple[str, ...]:
    """The channels of every item.

    Args:
        wanted: names, or None for those that the rows have.
        found: each list of channels with the id of a row that has it.

    Raises:
        DataError: rows that lack a wanted channel, or differ where none was named.
    """
    first, *others = found
    if wanted is None:
        for other in others:
            raise DataError(
                f"rows must have the same channels; {found[first]} has {', '.join(first)}",
                found=", ".join(other),
                where=found[other],
                next_step="name the channels that are wanted",
            )
        return first
    for channels, where in found.items():
        for name in wanted:
            if name not in channels:
                raise DataError(
                    f"every row must have channel '{name}'",
                    found=", ".join(channels),
                    where=where,
                    next_step="leave the channel out, or the data set",
                )
    return wanted


def common_labels(labels: Labels, found: Mapping[Scheme, str]) -> tuple[str, ...]:
    """The names of every item's labels; code n + 1 is that of the n-th.

    Args:
        found: each label scheme, names and codes, with the id of a row that has it.

    Raises:
        ConfigError: a wanted label that no row knows.
        DataError: rows that know nothing of a wanted label, or differ where none was named.
    """
    if not found:  # rows without label maps alone
        return tuple(labels.unions or ())
    if labels.unions is None:
        return _same(labels, found)
    known = sorted({name for names, _ in found for name in names})
    for union, parts in labels.unions.items():
        for part in parts:
            if part not in known:
                raise unknown_name("label", part, known, None)
        for (names, _), where in found.items():
            if not set(parts) & set(names):
                raise DataError(
                    f"every row must know the label '{union}'",
                    found=", ".join(names) or "no labels",
                    where=where,
                    next_step="leave the label out, or the data set",
                )
    return tuple(labels.unions)


def _same(labels: Labels, found: Mapping[Scheme, str]) -> tuple[str, ...]:
    first, *others = [(labels.within(dict(zip(*scheme, strict=True))), where) for scheme, where in found.items()]
    for names, where in others:
        if names != first[0]:
            raise DataError(
                f"rows must have the same labels; {first[1]} has {', '.join(first[0])}",
                found=", ".join(names),
                where=where,
                next_step="name the labels that are wanted",
            )
    return first[0]
