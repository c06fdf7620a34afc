"""The edits by the name that policies use; a new one is a file here, a line below and a YAML in augengine/policies/."""

from augengine.edits.acquisition import AcquisitionEdit
from augengine.edits.base import Edit
from augengine.edits.lesion_insertion import LesionInsertionEdit
from augengine.edits.reconstruction import ReconstructionEdit
from augengine.edits.synthetic_labels import SyntheticLabelsEdit
from augengine.edits.tumor_relocation import TumorRelocationEdit
from augengine.edits.tumor_removal import TumorRemovalEdit

EDITS: dict[str, Edit] = {
    edit.name: edit
    for edit in (
        AcquisitionEdit(), TumorRemovalEdit(), TumorRelocationEdit(), SyntheticLabelsEdit(), ReconstructionEdit(),
        LesionInsertionEdit(),
    )
}  # fmt: skip
