"""Who labelled a data set: a folder in; role and weights of the models that made its label maps out."""

from __future__ import annotations

from augengine.io.store import Store

LABELLERS = "labelled_by.json"
"""File of a data set whose label maps are a model's: role → sha256 of its weights."""


def labellers(store: Store) -> dict[str, str]:
    """Role to sha256 of the models that labelled a data set; none if its label maps are its own."""
    if not store.exists(LABELLERS):
        return {}
    found = store.read_mapping(LABELLERS)
    return dict(store.read_mapping(LABELLERS, **dict.fromkeys(found, str)))
