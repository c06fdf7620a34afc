"""A package's metadata in; its licence as an SPDX expression out, and whether augengine accepts it."""

from __future__ import annotations

import re

from supply.installed import Package

PERMISSIVE = frozenset(
    {
        "0BSD",
        "Apache-2.0",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "BSL-1.0",
        "CC0-1.0",
        "CNRI-Python",
        "HPND",
        "ISC",
        "MIT",
        "MIT-0",
        "MIT-CMU",
        "PSF-2.0",
        "Unlicense",
        "Zlib",
    }
)
WEAK_COPYLEFT = frozenset({"MPL-2.0"})
"""Changes to files of such a package must be published; using it unchanged asks for nothing."""
EXCEPTIONS = frozenset({"LLVM-exception"})
ALLOWED = PERMISSIVE | WEAK_COPYLEFT

_WRITTEN = {
    "Apache 2.0": "Apache-2.0",
    "Apache 2.0 License": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "Apache License, Version 2.0": "Apache-2.0",
    "BSD 3": "BSD-3-Clause",
    "BSD 3-Clause License": "BSD-3-Clause",
    "3-Clause BSD License": "BSD-3-Clause",
    "BSD 2-Clause License": "BSD-2-Clause",
    "ISC License": "ISC",
    "MIT license": "MIT",
}
_CLASSIFIERS = {
    "Apache Software License": "Apache-2.0",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}
# Metadata that says "BSD", or a whole text; read from the package's own licence file.
_READ = {
    "antlr4-python3-runtime": "BSD-3-Clause",
    "colorama": "BSD-3-Clause",
    "itsdangerous": "BSD-3-Clause",
    "jinja2": "BSD-3-Clause",
    "kiwisolver": "BSD-3-Clause",
    "mpmath": "BSD-3-Clause",
    "pyasn1-modules": "BSD-2-Clause",
    "python-dateutil": "Apache-2.0 OR BSD-3-Clause",
    "s3fs": "BSD-3-Clause",
    "scikit-image": "BSD-3-Clause",
    "scipy": "BSD-3-Clause",
    "sympy": "BSD-3-Clause",
    "matplotlib": "PSF-2.0",
    "cycler": "BSD-3-Clause",
}


def licence(package: Package) -> str:
    """SPDX expression; `unknown: …` with what the metadata says, where that is not exact."""
    if package.key in _READ:
        return _READ[package.key]
    info = package.info
    if "License-Expression" in info:
        return info["License-Expression"]
    text = info["License"].strip().splitlines() if "License" in info else []
    first = text[0].strip() if text else ""
    if first in _WRITTEN or accepted(first):
        return _WRITTEN.get(first, first)
    labels = [
        value.rpartition("::")[2].strip()
        for value in info.get_all("Classifier") or []
        if value.startswith("License ::")
    ]
    known = [_CLASSIFIERS.get(label) for label in labels]
    if known and None not in known:
        return " AND ".join(sorted(set(filter(None, known))))
    return f"unknown: {'; '.join([first, *labels]).strip('; ')}"


def accepted(expression: str) -> bool:
    """True if the terms can be met: all of those joined by AND, one of those joined by OR."""
    if expression.startswith("unknown"):
        return False
    tokens = re.findall(r"\(|\)|[^\s()]+", expression)
    value, rest = _either(tokens)
    return value and not rest


def _either(tokens: list[str]) -> tuple[bool, list[str]]:
    value, tokens = _both(tokens)
    while tokens[:1] == ["OR"]:
        other, tokens = _both(tokens[1:])
        value = value or other
    return value, tokens


def _both(tokens: list[str]) -> tuple[bool, list[str]]:
    value, tokens = _one(tokens)
    while tokens[:1] == ["AND"]:
        other, tokens = _one(tokens[1:])
        value = value and other
    return value, tokens


def _one(tokens: list[str]) -> tuple[bool, list[str]]:
    if not tokens:
        return False, []
    if tokens[0] == "(":
        value, tokens = _either(tokens[1:])
        return value and tokens[:1] == [")"], tokens[1:]
    value, tokens = tokens[0] in ALLOWED, tokens[1:]
    if tokens[:1] == ["WITH"]:
        return value and tokens[1] in EXCEPTIONS, tokens[2:]
    return value, tokens
