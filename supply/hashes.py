"""A report of `pip install --dry-run --report` in; requirements with versions and sha256 out (`make hashes`).

The file holds what pip takes on this platform, so that `pip install --require-hashes -r FILE` takes nothing else.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from augengine.errors import AugengineError, DataError


def requirements(report: dict[str, Any]) -> str:
    """One line per package, sorted by name; augengine itself, which is a folder, is left out.

    Raises:
        DataError: the report has a package without a sha256.
    """
    lines = []
    for item in report["install"]:
        name, version = item["metadata"]["name"], item["metadata"]["version"]
        if name == "augengine":
            continue
        sha256 = item["download_info"].get("archive_info", {}).get("hashes", {}).get("sha256")
        if not sha256:
            raise DataError("every package has a sha256", found=name, next_step="install it from an index")
        lines.append(f"{name.lower()}=={version} --hash=sha256:{sha256}")
    return "\n".join(sorted(lines)) + "\n"


def main() -> int:
    """Read the report from standard input, write the requirements to `--out`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    out: Path = parser.parse_args().out
    try:
        text = requirements(json.load(sys.stdin))
    except AugengineError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
