"""The edits by the name that policies use: those of this folder, and of installed packages (`augengine.edits`)."""

from typing import Any

from augengine.edits.acquisition import AcquisitionEdit
from augengine.edits.base import Edit
from augengine.edits.lesion_insertion import LesionInsertionEdit
from augengine.edits.reconstruction import ReconstructionEdit
from augengine.edits.synthetic_labels import SyntheticLabelsEdit
from augengine.edits.tumor_relocation import TumorRelocationEdit
from augengine.edits.tumor_removal import TumorRemovalEdit
from augengine.plugins import Registry, named, with_methods
from augengine.yaml_config import Strict


def _edit(name: str, cls: Any) -> Edit:
    """An edit from the class that an entry point names."""
    edit: Edit = with_methods(Edit, named(name, cls))()
    if not (isinstance(edit.Params, type) and issubclass(edit.Params, Strict)):
        raise TypeError(f"its Params are {edit.Params!r}, no subclass of augengine.yaml_config.Strict")
    dict(edit.MODELS)
    return edit


EDITS: Registry[Edit] = Registry(
    "edit",
    {
        edit.name: edit
        for edit in (
            AcquisitionEdit(),
            TumorRemovalEdit(),
            TumorRelocationEdit(),
            SyntheticLabelsEdit(),
            ReconstructionEdit(),
            LesionInsertionEdit(),
        )
    },
    _edit,
)
