"""Label names in; what the codes of a label map are to mean, and a table from a row's codes to them, out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from augengine.errors import ConfigError, DataError
from augengine.yaml_config import unknown_name

Wanted = Sequence[str] | Mapping[str, str | Sequence[str]] | None
NO_LABEL = 255


@dataclass(frozen=True)
class Labels:
    """Names of wanted labels, each a union of the labels of the rows; code n + 1 is that of the n-th.

    Attributes:
        unions: wanted name to the names in the rows; None takes every label of the rows, in the order of their
            codes: all rows must have the same then.
    """

    unions: Mapping[str, tuple[str, ...]] | None = None
    _known: dict[tuple[tuple[str, ...], tuple[int, ...]], np.ndarray] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @classmethod
    def of(cls, wanted: Wanted) -> Labels:
        """Labels by name (`["csf", "lesion"]`), as unions (`{"lesion": ["core", "oedema"]}`), or None for all.

        Raises:
            ConfigError: none, or one name in two unions, which one label map cannot hold.
        """
        if wanted is None:
            return cls()
        if isinstance(wanted, str):
            wanted = [wanted]
        unions = dict(wanted) if isinstance(wanted, Mapping) else {name: (name,) for name in wanted}
        cleaned = {name: (parts,) if isinstance(parts, str) else tuple(parts) for name, parts in unions.items()}
        names = [part for parts in cleaned.values() for part in parts]
        if not names or not all(cleaned.values()) or len(cleaned) >= NO_LABEL:
            raise ConfigError("labels are names, or unions of names, one at least", found=wanted)
        if len(set(names)) < len(names) or (not isinstance(wanted, Mapping) and len(cleaned) < len(wanted)):
            raise ConfigError(
                "a label stands in one union alone, since a voxel has one code",
                found=", ".join(names),
                next_step="take the parts as labels, and put them together in the loss",
            )
        return cls(cleaned)

    def within(self, scheme: Mapping[str, int]) -> tuple[str, ...]:
        """Names of the wanted labels among rows of a scheme (name to code); code n + 1 is that of the n-th.

        Raises:
            ConfigError: a label that the rows do not know.
        """
        if self.unions is None:
            return tuple(sorted(scheme, key=lambda name: scheme[name]))
        for parts in self.unions.values():
            for part in parts:
                if part not in scheme:
                    raise unknown_name("label", part, list(scheme), None)
        return tuple(self.unions)

    def table(self, names: Sequence[str], codes: Sequence[int]) -> np.ndarray:
        """uint8 (256,): a row's code to the wanted one; 0 for labels that are not wanted, 255 for no label at all."""
        key = (tuple(names), tuple(codes))
        if key not in self._known:
            scheme = dict(zip(*key, strict=True))
            unions = self.unions or {name: (name,) for name in self.within(scheme)}
            table = np.full(256, NO_LABEL, np.uint8)
            table[[0, *codes]] = 0
            for n, parts in enumerate(unions.values(), 1):
                table[[scheme[part] for part in parts if part in scheme]] = n
            table.setflags(write=False)
            self._known[key] = table
        return self._known[key]

    def mapped(self, label: np.ndarray, names: Sequence[str], codes: Sequence[int], where: str) -> np.ndarray:
        """A row's label map (uint8) in wanted codes; a code that has no name is a `DataError`."""
        # `translate` is several times as fast as indexing; of a bytearray it gives one that can be written to.
        found = bytearray(label.tobytes()).translate(self.table(names, codes).tobytes())
        if NO_LABEL in found:
            stray = np.setdiff1d(label, [0, *codes]).tolist()
            raise DataError("every code of a label map must have a name", found=f"code {stray[0]}", where=where)
        return np.frombuffer(found, np.uint8).reshape(label.shape)
