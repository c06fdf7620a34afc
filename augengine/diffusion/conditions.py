"""Acquisition parameters to tokens: a vocabulary fitted on training rows, and the network part that embeds them.

One token per parameter. With the paper's single context token the softmax of the cross-attention has one entry
and is always 1, so the attention could not choose anything.
Legend: B rows, F features, P parameters, D token width.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from pydantic import Field
from torch import Tensor, nn

from augengine.acquisition_terms import nearest, normal, scan_options, shown
from augengine.records import Acquisition
from augengine.yaml_config import Strict

CATEGORICAL = ("manufacturer", "model", "field_strength_t")
MULTI_LABEL = "scan_options"
NUMERIC = ("flip_angle_deg", "slice_thickness_mm", "echo_time_ms", "repetition_time_ms")
PARAMETERS = (*CATEGORICAL, MULTI_LABEL, *NUMERIC)
# A number may lie outside the range of training by this factor; what is further away was never learnt.
REACH = 1.25


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
    """Values seen in training, in sorted order; what differs in spelling alone (`acquisition_terms`) is one value.

    Scan options are DICOM's multi-valued (0018,0022). The paper one-hot encodes whole strings, which in Duke is
    nearly the vendor's name over again and says nothing of a new string. Here every single option is a feature of
    its own (multi-hot), so that fat saturation (`FS`, `SFS`) is visible whatever stands beside it, and a
    combination that training never held still means something.

    Attributes:
        categories: values (as text) of each categorical parameter. Those of older models may hold several spellings
            of one value, each with weights of its own: a value is then the spelling that it has, or else the first.
        options: single scan options.
        maxima: largest value of each numeric parameter; a feature is value / maximum, and 0 is unconditional
            (paper 004, 2.2).
        minima: smallest value above 0 of each numeric parameter; older models do not state it.
    """

    categories: dict[str, tuple[str, ...]]
    options: tuple[str, ...]
    maxima: dict[str, float]
    minima: dict[str, float] = Field(default_factory=dict)

    @classmethod
    def fit(cls, acquisitions: Iterable[Acquisition]) -> Vocabulary:
        """Collect the values of training rows; reads its argument once."""
        spellings: dict[str, dict[str | float, set[str]]] = {name: {} for name in CATEGORICAL}
        options: set[str] = set()
        numbers: dict[str, set[float]] = {name: set() for name in NUMERIC}
        for acquisition in acquisitions:
            for name in CATEGORICAL:
                if (value := getattr(acquisition, name)) is not None:
                    spellings[name].setdefault(normal(name, value), set()).add(shown(name, value))
            options.update(_options(acquisition) or ())
            for name in NUMERIC:
                numbers[name].add(getattr(acquisition, name) or 0.0)
        return cls(
            categories={name: tuple(sorted(map(min, found.values()))) for name, found in spellings.items()},
            options=tuple(sorted(options)),
            maxima={name: max(found, default=0.0) for name, found in numbers.items()},
            minima={name: min(found - {0.0}, default=0.0) for name, found in numbers.items()},
        )

    @property
    def widths(self) -> dict[str, int]:
        """Number of features of each parameter, in the order of `PARAMETERS`."""
        wide = {name: len(values) for name, values in self.categories.items()}
        return {**{n: wide[n] for n in CATEGORICAL}, MULTI_LABEL: len(self.options), **dict.fromkeys(NUMERIC, 1)}

    def encode(self, acquisitions: Sequence[Acquisition]) -> Condition:
        """(B, F) features and (B, P) presence; a value that training never held counts as absent: see `unseen`."""
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

    def unseen(self, acquisition: Acquisition) -> dict[str, str]:
        """What is stated and was never learnt, by parameter, each with the value and what is nearest to it.

        `encode` hides a value that training never held, and of a number far from those of training it makes a feature
        that the network never met.
        """
        found: dict[str, str] = {}
        for name in PARAMETERS:
            value = getattr(acquisition, name)
            if value is None:
                continue
            if name == MULTI_LABEL:
                if strange := [option for option in scan_options(value) if option not in self._heard(value)]:
                    found[name] = f"{', '.join(strange)} of scan_options (seen: {', '.join(self.options) or 'none'})"
            elif name in NUMERIC:
                low, high = self.minima.get(name, 0.0), self.maxima[name]
                if value <= 0 or not low / REACH <= value <= high * REACH:
                    seen = f"{low:g} to {high:g}" if low else f"up to {high:g}"
                    found[name] = f"{name} {value:g} (seen: {seen if high else 'none'})"
            elif self._column(name, value) is None:
                stated = repr(value) if isinstance(value, str) else f"{value:g}"
                known = nearest(name, value, _stated(name, self.categories[name]))
                found[name] = f"{name} {stated} (nearest seen: {known})"
        return found

    def seen_part(self, acquisition: Acquisition) -> Acquisition:
        """The acquisition without what training never held: absent, or of scan options the known ones."""
        changes: dict[str, str | float | None] = dict.fromkeys(self.unseen(acquisition))
        if MULTI_LABEL in changes and acquisition.scan_options is not None:
            changes[MULTI_LABEL] = "\\".join(self._heard(acquisition.scan_options)) or None
        return acquisition.replace(**changes)

    def nearest_part(self, acquisition: Acquisition) -> Acquisition:
        """As `seen_part`, but of numbers that lie beyond those of training the nearest of these."""
        changes: dict[str, float] = {}
        for name in self.unseen(acquisition):
            value = getattr(acquisition, name)
            if name in NUMERIC and value > 0 and self.maxima[name]:
                changes[name] = max(self.minima.get(name, 0.0), min(value, self.maxima[name]))
        return self.seen_part(acquisition.replace(**changes))

    def _features(self, name: str, acquisition: Acquisition) -> list[float] | None:
        value = getattr(acquisition, name)
        if name == MULTI_LABEL:
            return None if value is None else list(_switched(self.options, value))
        if name in NUMERIC:
            return None if not value or not self.maxima[name] else [value / self.maxima[name]]
        column = None if value is None else self._column(name, value)
        return None if column is None else [float(n == column) for n in range(len(self.categories[name]))]

    def _column(self, name: str, value: str | float) -> int | None:
        """The place of a category: of its own spelling, or the first that means the same; None if there is none."""
        return _place(name, self.categories[name], value)

    def _heard(self, text: str) -> list[str]:
        """The scan options of a text that have a feature; those of older models may stand for several at once."""
        given = scan_options(text)
        parts = [set(scan_options(option)) for option in self.options]
        return [option for option in given if any(option in part <= set(given) for part in parts)]


@lru_cache(maxsize=4096)
def _place(name: str, categories: tuple[str, ...], value: str | float) -> int | None:
    text = value if isinstance(value, str) else f"{value:g}"
    if text in categories:
        return categories.index(text)
    wanted = normal(name, value)
    return next((n for n, known in enumerate(_stated(name, categories)) if normal(name, known) == wanted), None)


def _stated(name: str, categories: tuple[str, ...]) -> list[str | float]:
    """Categories as values of the parameter."""
    return [float(text) if name == "field_strength_t" else text for text in categories]


@lru_cache(maxsize=4096)
def _switched(options: tuple[str, ...], text: str) -> tuple[float, ...]:
    """1 for every option that a text names, all of it where it stands for several."""
    given = set(scan_options(text))
    return tuple(float(given.issuperset(scan_options(option))) for option in options)


def _options(acquisition: Acquisition) -> tuple[str, ...] | None:
    text = acquisition.scan_options
    return None if text is None else scan_options(text)


class TokenEmbedding(nn.Module):
    """A `Condition` to tokens (B, P, D): one linear map per parameter, a learned null token where it is absent."""

    def __init__(self, vocabulary: Vocabulary, token_dim: int) -> None:
        super().__init__()
        self.widths = list(vocabulary.widths.values())
        self.maps = nn.ModuleList([_Aligned(max(width, 1), token_dim) for width in self.widths])
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


class _Aligned(nn.Linear):
    """A linear map of rows (B, K), the same bits wherever in the batch a row stands.

    Rows whose length is no multiple of a vector register start unaligned but for the first, and MKL (torch 2.13, AMD
    EPYC) sums those in another order: so rows are filled up with zeros.
    """

    def forward(self, input: Tensor) -> Tensor:
        more = -input.shape[1] % 16
        weight = nn.functional.pad(self.weight, (0, more))
        return nn.functional.linear(nn.functional.pad(input, (0, more)), weight, self.bias)
