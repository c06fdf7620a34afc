"""Write the pages of figures, the reference and the marked places of the other pages (`make pages`)."""

from __future__ import annotations

import sys
from pathlib import Path

from pages.records import ROOT

DOCS = ROOT / "docs"


def generated() -> dict[Path, str]:
    """Every file that is written here, and its text."""
    from pages import blocks, reference, results

    found = {DOCS / name: text for name, text in {**results.texts(), **reference.texts()}.items()}
    for path in (ROOT / "README.md", *sorted(DOCS.rglob("*.md"))):
        if path not in found and blocks.used(text := path.read_text(encoding="utf-8")):
            found[path] = blocks.filled(text)
    return found


def main() -> None:
    """Write what has changed, and say which files these are."""
    for path, text in generated().items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            sys.stdout.write(f"{path.relative_to(ROOT)}\n")
    for path in sorted((DOCS / "results").glob("*.md")):
        if path not in generated():
            path.unlink()
            sys.stdout.write(f"{path.relative_to(ROOT)} (removed)\n")


if __name__ == "__main__":
    main()
