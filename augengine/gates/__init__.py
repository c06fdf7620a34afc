"""Quality gates: a source row and its edit in, a measured value with pass or fail out. They fail closed."""

from augengine.body import body_mask
from augengine.gates.base import Case, Gate, Tools
from augengine.gates.image import image_digest
from augengine.gates.verdict import MEASURES, GateResult, Gates, complete, gate_hashes
from augengine.metrics.structure import structure_term

__all__ = [
    "MEASURES",
    "Case",
    "Gate",
    "GateResult",
    "Gates",
    "Tools",
    "body_mask",
    "complete",
    "gate_hashes",
    "image_digest",
    "structure_term",
]
