"""The installed packages in; a bill of materials as CycloneDX 1.6 JSON out (`make sbom`)."""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

from augengine import __version__
from augengine.errors import AugengineError
from supply.installed import Package, packages
from supply.terms import licence


def _purl(package: Package) -> str:
    return f"pkg:pypi/{package.key}@{package.version.replace('+', '%2B')}"


def _licences(terms: str) -> list[dict[str, Any]]:
    if terms.startswith("unknown"):
        return [{"license": {"name": terms}}]
    return [{"expression": terms}] if re.search(r"[\s(]", terms) else [{"license": {"id": terms}}]


def bill(found: list[Package]) -> dict[str, Any]:
    """The document; equal for equal packages: it holds no time and no serial number."""
    here = {package.key: _purl(package) for package in found}
    root = f"pkg:pypi/augengine@{__version__}"
    components = [
        {
            "type": "library",
            "bom-ref": _purl(package),
            "name": package.name,
            "version": package.version,
            "purl": _purl(package),
            "scope": "required" if package.use == "runtime" else "excluded",
            "licenses": _licences(licence(package)),
        }
        for package in found
    ]
    needs = [{"ref": _purl(p), "dependsOn": [here[key] for key in p.needs]} for p in found]
    top = {"ref": root, "dependsOn": sorted(_purl(p) for p in found if p.pinned)}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "library",
                "bom-ref": root,
                "name": "augengine",
                "version": __version__,
                "purl": root,
                "licenses": [{"license": {"id": "Apache-2.0"}}],
            }
        },
        "components": components,
        "dependencies": [top, *needs],
    }


def main() -> int:
    """Write the bill to `--out`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    out: Path = parser.parse_args().out
    try:
        found = bill(packages())
    except AugengineError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
