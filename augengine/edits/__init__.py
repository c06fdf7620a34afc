"""The edits by the name that policies use; a new one is a file here, a line below and a YAML in policies/."""

from augengine.edits.acquisition import AcquisitionEdit
from augengine.edits.base import Edit

EDITS: dict[str, Edit] = {edit.name: edit for edit in (AcquisitionEdit(),)}
