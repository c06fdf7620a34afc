"""Quality gates: a source row and its edit in, a measured value with pass or fail out. They fail closed."""

from augengine.gates.base import Case, Gate, Tools
from augengine.gates.image import body_mask, image_digest, structure_term
from augengine.gates.verdict import MEASURES, GateResult, Gates, complete, gate_hashes

__all__ = [
    "MEASURES", "Case", "Gate", "GateResult", "Gates", "Tools", "body_mask", "complete", "gate_hashes",
    "image_digest", "structure_term",
]  # fmt: skip
