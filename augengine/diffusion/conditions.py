"""Acquisition parameters to tokens: a vocabulary fitted on training rows, and the network part that embeds them.

One token per parameter. With the paper's single context token the softmax of the cross-attention has one entry
and is always 1, so the attention could not choose anything.
Legend: B rows, F features, P parameters, D token width.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from augengine.records import Acquisition
from augengine.yaml_config import Strict

CATEGORICAL = ("manufacturer", "model", "field_strength_t")
MULTI_LABEL = "scan_options"
NUMERIC = ("flip_angle_deg", "slice_thickness_mm", "echo_time_ms", "repetition_time_ms")
PARAMETERS = (*CATEGORICAL, MULTI_LABEL, *NUMERIC)


@dataclass(frozen=True)
class Condition:
    """Encoded acquisitions: `features` (B, F) float32, `present` (B, P) bool; an absent parameter is a null token."""

    features: Tensor
    present: Tensor

    def unconditional(self) -> Condition:
        """The same rows with every parameter absent."""
        return Condition(torch.zeros_like(self.features), torch.zeros_like(self.present))

    def drop(self, rows_B: Tensor) -> Condition:
        """Every parameter absent in the rows where `rows_B` is True."""
        keep = ~rows_B[:, None]
        return Condition(self.features * keep, self.present & keep)

    def to(self, device: torch.device | str) -> Condition:
        """A copy on `device`."""
        return Condition(self.features.to(device), self.present.to(device))

    def cat(self, other: Condition) -> Condition:
        """Rows of both."""
        return Condition(torch.cat([self.features, other.features]), torch.cat([self.present, other.present]))


class Vocabulary(Strict):
    """Values seen in training, in sorted order.

    Scan options are DICOM's multi-valued (0018,0022). The paper one-hot encodes whole strings, which in Duke is
    nearly the vendor's name over again and says nothing of a new string. Here every single option is a feature of
    its own (multi-hot), so that fat saturation (`FS`, `SFS`) is visible whatever stands beside it, and a
    combination that training never held still means something.

    Attributes:
        categories: values (as text) of each categorical parameter.
        options: single scan options.
        maxima: largest value of each numeric parameter; a feature is value / maximum, and 0 is unconditional
            (paper 004, 2.2).
    """

    categories: dict[str, tuple[str, ...]]
    options: tuple[str, ...]
    maxima: dict[str, float]

    @classmethod
    def fit(cls, acquisitions: Iterable[Acquisition]) -> Vocabulary:
        """Collect the values of training rows; reads its argument once."""
        seen: dict[str, set[str]] = {name: set() for name in (*CATEGORICAL, MULTI_LABEL)}
        maxima = dict.fromkeys(NUMERIC, 0.0)
        for acquisition in acquisitions:
            for name in CATEGORICAL:
                seen[name].update(_text(getattr(acquisition, name)))
            seen[MULTI_LABEL].update(_options(acquisition) or ())
            for name in NUMERIC:
                maxima[name] = max(maxima[name], getattr(acquisition, name) or 0.0)
        return cls(
            categories={name: tuple(sorted(seen[name])) for name in CATEGORICAL},
            options=tuple(sorted(seen[MULTI_LABEL])),
            maxima=maxima,
        )

    @property
    def widths(self) -> dict[str, int]:
        """Number of features of each parameter, in the order of `PARAMETERS`."""
        wide = {name: len(values) for name, values in self.categories.items()}
        return {**{n: wide[n] for n in CATEGORICAL}, MULTI_LABEL: len(self.options), **dict.fromkeys(NUMERIC, 1)}

    def encode(self, acquisitions: Sequence[Acquisition]) -> Condition:
        """(B, F) features and (B, P) presence; a value that training never held counts as absent."""
        widths = self.widths
        features = torch.zeros(len(acquisitions), sum(widths.values()))
        present = torch.zeros(len(acquisitions), len(widths), dtype=torch.bool)
        for row, acquisition in enumerate(acquisitions):
            start = 0
            for column, (name, width) in enumerate(widths.items()):
                values = self._features(name, acquisition)
                if values is not None:
                    features[row, start : start + width] = torch.tensor(values)
                    present[row, column] = True
                start += width
        return Condition(features, present)

    def decode(self, features: Tensor) -> list[Acquisition]:
        """The acquisitions that rows (B, F) of features, or logits of them, stand for: an inverse of `encode`."""
        found = []
        for parts in zip(*torch.split(features, list(self.widths.values()), dim=1), strict=True):
            values: dict[str, str | float | None] = {}
            for (name, width), part in zip(self.widths.items(), parts, strict=True):
                if name in NUMERIC:
                    values[name] = float(part) * self.maxima[name] if self.maxima[name] else None
                elif name == MULTI_LABEL:
                    values[name] = "\\".join(o for o, value in zip(self.options, part, strict=True) if value > 0.5)
                else:
                    text = self.categories[name][int(part.argmax())] if width else None
                    values[name] = float(text) if text is not None and name == "field_strength_t" else text
            found.append(Acquisition(**values))  # type: ignore[arg-type]
        return found

    def _features(self, name: str, acquisition: Acquisition) -> list[float] | None:
        value = getattr(acquisition, name)
        if name == MULTI_LABEL:
            options = _options(acquisition)
            return None if options is None else [float(option in options) for option in self.options]
        if name in NUMERIC:
            return None if not value or not self.maxima[name] else [value / self.maxima[name]]
        known = self.categories[name]
        return None if value is None or _name(value) not in known else [float(_name(value) == k) for k in known]


def _text(value: str | float | None) -> tuple[str, ...]:
    return () if value is None else (_name(value),)


def _name(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:g}"


def _options(acquisition: Acquisition) -> tuple[str, ...] | None:
    text = acquisition.scan_options
    return None if text is None else tuple(part for part in text.split("\\") if part)


class TokenEmbedding(nn.Module):
    """A `Condition` to tokens (B, P, D): one linear map per parameter, a learned null token where it is absent."""

    def __init__(self, vocabulary: Vocabulary, token_dim: int) -> None:
        super().__init__()
        self.widths = list(vocabulary.widths.values())
        self.maps = nn.ModuleList([nn.Linear(max(width, 1), token_dim) for width in self.widths])
        self.null = nn.Parameter(torch.randn(len(self.widths), token_dim) * 0.02)

    def nothing(self, rows: int) -> Condition:
        """Rows with every parameter absent, on this module's device."""
        device = self.null.device
        present = torch.zeros(rows, len(self.widths), dtype=torch.bool, device=device)
        return Condition(torch.zeros(rows, sum(self.widths), device=device), present)

    def forward(self, condition: Condition) -> Tensor:
        """Tokens (B, P, D)."""
        parts = torch.split(condition.features, self.widths, dim=1)
        tokens = [m(p if p.shape[1] else p.new_zeros(len(p), 1)) for m, p in zip(self.maps, parts, strict=True)]
        return torch.where(condition.present[:, :, None], torch.stack(tokens, dim=1), self.null)
