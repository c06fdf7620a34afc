"""`pyproject.toml` in; the lowest version of each dependency that it allows out, as constraints (`make test-floors`).

What dependencies need themselves is left to pip: it takes their newest versions that fit.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterable

from packaging.requirements import Requirement

from augengine.errors import AugengineError, ConfigError
from supply.installed import ROOT


def floors(requirements: Iterable[str]) -> dict[str, str]:
    """Name to lowest version, of those that state one.

    >>> floors(["numpy>=2", "ray[data]>=2.54,<3", "types-PyYAML"])
    {'numpy': '2', 'ray': '2.54'}

    Raises:
        ConfigError: a requirement with another kind of lower bound, or two floors of one name.
    """
    found: dict[str, str] = {}
    for text in requirements:
        asked = Requirement(text)
        least = [bound for bound in asked.specifier if bound.operator not in ("<", "<=", "!=")]
        if [bound.operator for bound in least] not in ([], [">="]) or asked.name in found:
            raise ConfigError(
                "a dependency states one floor, as name>=version",
                found=text,
                where="pyproject.toml",
                next_step="write it so",
            )
        if least:
            found[asked.name] = least[0].version
    return found


def main(*others: str) -> int:
    """Print them, of the package and of its tests, but for `others`; 2 for a requirement without a plain floor."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    try:
        found = floors([*project["dependencies"], *project["optional-dependencies"]["test"]])
    except AugengineError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    sys.stdout.writelines(f"{name}=={version}\n" for name, version in found.items() if name not in others)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
