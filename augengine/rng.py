"""Seeds from content: the same inputs give the same random numbers on any worker, in any order."""

from __future__ import annotations

import hashlib
import json

import numpy as np


def canonical_json(value: object) -> str:
    """JSON text that is equal for equal values: sorted keys, no blanks, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(*parts: object, length: int = 32) -> str:
    """Hex digest (blake2b, `length` characters) of JSON-able parts."""
    return hashlib.blake2b(canonical_json(parts).encode(), digest_size=length // 2).hexdigest()


def derive(*parts: object) -> int:
    """A 63-bit seed from JSON-able parts, e.g. `derive(policy_digest, sample_id, replicate, attempt)`.

    >>> derive("a", 1) == derive("a", 1), derive("a", 1) == derive("a", 2)
    (True, False)
    """
    return int(digest(*parts, length=16), 16) >> 1


def generator(*parts: object) -> np.random.Generator:
    """A numpy generator seeded by `derive(*parts)`; Philox, so that streams do not overlap."""
    return np.random.Generator(np.random.Philox(derive(*parts)))
