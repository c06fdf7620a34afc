"""Folders of augmented rows in; the description of every model that had a part in them out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from augengine.diffusion.checkpoint import SPEC, read_spec
from augengine.diffusion.spec import ModelSpec
from augengine.io.store import Store
from augengine.pipeline.augment import INPUTS, POLICY
from augengine.yaml_config import Document


def models_of(folders: Iterable[str], checkpoints: Sequence[str] = ()) -> dict[str, ModelSpec]:
    """What `model.json` says of the generators that runs took and of the judges that their gates asked, by folder.

    A checkpoint that is no longer where the run read it is left out, and `check_leakage` then names the model that is
    missing; `checkpoints` says where it is now.
    """
    found = {uri: read_spec(uri) for uri in checkpoints}
    for folder in folders:
        store = Store(folder)
        texts: list[Any] = [store.read_mapping(INPUTS)] if store.exists(INPUTS) else []
        if store.exists(POLICY):
            texts.append(Document(store.read_text(POLICY), store.path(POLICY)).data)
        for uri in _refs(texts):
            if uri not in found and Store(uri).exists(SPEC):
                found[uri] = read_spec(uri)
    return found


def _refs(value: Any) -> Iterator[str]:
    """Every `ref` of plain JSON, however deep."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "ref" and isinstance(inner, str):
                yield inner
            else:
                yield from _refs(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _refs(inner)
