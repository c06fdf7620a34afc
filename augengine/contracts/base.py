"""What checks of every kind share: how a broken promise is told, and that nothing draws from shared generators."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch

from augengine.errors import AugengineError, ContractError

T = TypeVar("T")
Checks = Mapping[str, Callable[[T], None]]
"""The promise in words to the function that raises a `ContractError` where it is broken."""


def must(holds: bool, rule: str, *, mend: str, found: object = None) -> None:
    """Raise a `ContractError` with the rule unless it holds; `mend` says how whoever wrote the code can mend it."""
    if not holds:
        raise ContractError(rule, found=found, next_step=mend)


@contextmanager
def own_code(what: str) -> Iterator[None]:
    """Turn whatever the checked code raises into a `ContractError` of one line."""
    try:
        yield
    except ContractError:
        raise
    except AugengineError as error:
        raise ContractError(f"{what} fails", found=error.rule + (f" ({error.found})" if error.found else "")) from error
    except Exception as error:  # of code that is not ours: it may be anything
        raise ContractError(f"{what} fails", found=f"{type(error).__name__}: {error}") from error


@contextmanager
def without_global_randomness() -> Iterator[None]:
    """Refuse code that draws from, or seeds, the generators that a process shares: other rows would change it."""
    before = _random_state()
    yield
    must(
        _random_state() == before,
        "nothing is drawn from the random generators that the process shares",
        mend="draw from the rng that plan is given, and in apply from np.random.Philox(plan.seed)",
    )


def _random_state() -> tuple[Any, ...]:
    numpy: Any = np.random.get_state()  # noqa: NPY002  (to see that nobody else does)
    return random.getstate(), numpy[1].tobytes(), numpy[2:], torch.get_rng_state().numpy().tobytes()
