"""Held-out subjects and augmented rows in; the rows that none of them had a part in, out.

A row whose own subject or donor is excluded is left out. A donor or a generator's training subject that is held out,
by its split or by exclusion, is an error that names it: such a row must not be trained on, and no one may take it for
one that may.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from augengine.errors import AugengineError
from augengine.io.store import Store
from augengine.leakage import check_leakage

INPUTS = "inputs.json"


def check_lineage(
    held_out: Collection[str], rows: Iterable[Mapping[str, Any]], runs: Sequence[Store], checkpoints: Sequence[Store]
) -> None:
    """Take all `rows`; raise if a held-out subject had a part in one, or if that cannot be known.

    Args:
        held_out: subjects that no training row may know; where there are none, there is nothing to be known.
        rows: metadata of augmented rows; provenance with them.
        runs: the folders that they come from, which name the models that made them.
        checkpoints: where these are, if not where the runs say.

    Raises:
        LeakageError: see `augengine.leakage.check_leakage`.
        CheckpointError: a checkpoint that was given cannot be read.
    """
    if held_out:
        check_leakage(held_out, rows, specs_of(runs, checkpoints))
    else:
        for _ in rows:
            pass


def specs_of(runs: Sequence[Store], checkpoints: Sequence[Store]) -> dict[str, Any]:
    """What `model.json` says of the given checkpoints, and of those that runs name where they still are."""
    from augengine.diffusion.checkpoint import read_spec

    found = {store.uri: read_spec(store) for store in checkpoints}
    for run in runs:
        for uri in sorted(set(_named(run)) - set(found)):
            try:
                found[uri] = read_spec(run.like(uri))
            except AugengineError:  # moved since: the guard says which model it does not know, if it matters
                continue
    return found


def _named(run: Store) -> Iterator[str]:
    try:
        inputs = run.read_mapping(INPUTS)
    except (FileNotFoundError, NotADirectoryError):
        return
    yield from _refs(inputs.get("models"))


def _refs(value: Any) -> Iterator[str]:
    """Every `ref` in the roles of a policy, or of the policies of a mix."""
    if isinstance(value, Mapping):
        if isinstance(value.get("ref"), str):
            yield value["ref"]
        else:
            for inner in value.values():
                yield from _refs(inner)
