"""Markdown in, the commands of its shell blocks out; and a way to run one of them in this process."""

from __future__ import annotations

import re
import runpy
import shlex
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md")))
_FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_BLOCK = re.compile(r"^```(?:sh|bash|shell)\n(.*?)^```", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Command:
    """One command of a page, as one line; the heading under which it stands, and the number of its block there."""

    page: str
    section: str
    block: int
    text: str

    @property
    def argv(self) -> list[str]:
        """Its words."""
        return shlex.split(self.text, comments=True)


def commands(page: Path) -> list[Command]:
    """Every command of a page, in order; comments are left out and continued lines joined."""
    text, found = page.read_text(encoding="utf-8"), []
    prose = _FENCED.sub(lambda block: " " * len(block[0]), text)  # a comment in a script is no heading
    headings = [(m.start(), m[1].strip()) for m in re.finditer(r"^#+ (.*)$", prose, re.MULTILINE)]
    counts: Counter[str] = Counter()
    for block in _BLOCK.finditer(text):
        section = next((name for start, name in reversed(headings) if start < block.start()), "")
        counts[section] += 1
        for line in block[1].replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words:
                found.append(Command(called(page), section, counts[section] - 1, " ".join(line.split())))
    return found


def called(page: Path) -> str:
    """What a page is called here: its path below `docs`, or that of a page in the root."""
    return page.relative_to(DOCS if page.is_relative_to(DOCS) else ROOT).as_posix()


def section(page: str, begins: str, block: int) -> list[Command]:
    """The commands of a block in the section of a page whose heading begins so."""
    found = [c for path in PAGES if called(path) == page for c in commands(path) if c.section.startswith(begins)]
    chosen = [command for command in found if command.block == block]
    assert chosen, f"no block {block} under '{begins}' in {page}"
    return chosen


def run(argv: list[str]) -> int:
    """Run `.venv/bin/python jobs/x.py …` or `.venv/bin/augengine …` in this process; its exit code."""
    program, *rest = argv
    before = sys.argv, list(sys.path)
    try:
        if program.endswith("/augengine"):
            from augengine.cli import main

            call: Callable[[], Any] = main
            sys.argv = [program, *rest]
        else:
            assert program.endswith("/python"), f"a command of this project, not {program}"
            sys.argv = rest
            sys.path.insert(0, str(Path(rest[0]).parent.resolve()))

            def call() -> None:
                runpy.run_path(rest[0], run_name="__main__")

        call()
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        sys.argv, sys.path[:] = before
    return 0
