"""A network's normalisations and how a row was acquired in; normalisations whose scale and shift follow from that out.

Feature-wise linear modulation (Perez et al. 2018): what is the contrast of one scanner and not of tissue is told to the
network rather than left for it to guess. At first it changes nothing; rows that state nothing get what was learnt from
training rows whose acquisition was hidden.
Legend: B rows, F features, D token width, `*` spatial axes.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn
from torch.nn.modules.instancenorm import _InstanceNorm

from augengine.diffusion.conditions import Condition, TokenEmbedding, Vocabulary
from augengine.yaml_config import Strict, Width


class FilmSpec(Strict):
    """Conditioning on the row's acquisition.

    Attributes:
        token_dim: of the acquisition tokens, whose mean every normalisation reads.
        dropout: share of the training rows whose acquisition is hidden, so that rows that state none are served.
    """

    token_dim: Width = 32
    dropout: float = Field(default=0.2, ge=0, lt=1)


class Film(nn.Module):
    """Takes over every instance and group normalisation of `body`; call `tell` before each pass of the body."""

    def __init__(self, spec: FilmSpec, vocabulary: Vocabulary, body: nn.Module) -> None:
        super().__init__()
        self.tokens = TokenEmbedding(vocabulary, spec.token_dim)
        self.mixed = nn.Sequential(nn.Linear(spec.token_dim, spec.token_dim), nn.SiLU())
        self._modulated = tuple(_take_over(body, spec.token_dim))

    def tell(self, acquired: Condition | None, rows: int) -> None:
        """Hand the acquisitions of the next pass's `rows` to the normalisations; None: nothing is known of any."""
        known = self.tokens.nothing(rows) if acquired is None else acquired.to(self.tokens.null.device)
        mixed = self.mixed(self.tokens(known).mean(1))
        for norm in self._modulated:
            norm.told = mixed


class _Modulated(nn.Module):
    """A normalisation, then (1 + scale) x + shift, both linear in what was told; at first both are 0."""

    told: Tensor | None = None

    def __init__(self, norm: nn.Module, features: int, token_dim: int) -> None:
        super().__init__()
        self.norm = norm
        self.change = nn.Linear(token_dim, 2 * features)
        nn.init.zeros_(self.change.weight)
        nn.init.zeros_(self.change.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, F, *)."""
        assert self.told is not None  # `Film.tell` goes before every pass
        told, self.told = self.told, None
        scale, shift = self.change(told).view(len(x), 2, -1, *[1] * (x.ndim - 2)).unbind(1)
        changed: Tensor = self.norm(x) * (1 + scale) + shift
        return changed


def _take_over(module: nn.Module, token_dim: int) -> list[_Modulated]:
    found: list[_Modulated] = []
    for name, child in module.named_children():
        if isinstance(child, _InstanceNorm | nn.GroupNorm):
            features = child.num_features if isinstance(child, _InstanceNorm) else child.num_channels
            found.append(_Modulated(child, features, token_dim))
            setattr(module, name, found[-1])
        else:
            found += _take_over(child, token_dim)
    return found
