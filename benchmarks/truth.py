"""Every edit and its baselines against the phantoms' rendered truth, in one command.

    python benchmarks/truth.py [--edit acquisition removal relocation labels] [--quick]
    python benchmarks/truth.py --edit acquisition --methods structure local_contrast --name truth_local_contrast
    python benchmarks/truth.py --edit removal relocation --generators m3 --name truth_m3

Prints the tables and writes truth.json, truth.md and truth_<edit>.png to benchmarks/results; all intervals are by
subject. Cohorts and models are made where missing; the acquisition edit is that of `make demo`. An edit left out keeps
its former figures with the command and commit that made them. `--quick` takes a few subjects and writes truth_quick*.
"""

from __future__ import annotations

import importlib
import json
import time
from pathlib import Path
from typing import Any

from _generators import flags
from _record import RESULTS, record

from augengine.report.comparison import Comparison, draw
from augengine.report.console import console

EDITS = ("acquisition", "removal", "relocation", "labels")


def main() -> None:
    """Measure, print and record."""
    parser = flags(__doc__)
    parser.add_argument("--edit", nargs="+", choices=EDITS, default=EDITS)
    parser.add_argument("--run", default="runs/duke_phantom", help="output of `make demo`, for the acquisition edit")
    parser.add_argument("--model", help="checkpoint of the acquisition edit, instead of the run's own")
    parser.add_argument("--methods", nargs="+", help="of the acquisition edit, these alone, without the sweeps")
    parser.add_argument("--generators", nargs="+", help="of removal and relocation, m3 among them, instead of all")
    parser.add_argument("--name", help="of the files that are written, by default truth")
    parser.add_argument("--quick", action="store_true", help="a few subjects: to see that it runs")
    given = parser.parse_args()
    name = given.name or ("truth_quick" if given.quick else "truth")
    figures = _former(RESULTS / f"{name}.json")
    for edit in given.edit:
        started = time.monotonic()
        found: list[Comparison] = importlib.import_module(f"truth_{edit}").measure(given)
        for comparison in found:
            comparison.show()
        figures[edit] = {
            "seconds": round(time.monotonic() - started),
            "tables": [c.to_dict() for c in found],
            "markdown": "\n".join(c.markdown() for c in found),
        }
        # After every edit, so that none is lost if a later one fails.
        path = record(name, {edit: figures[edit] for edit in EDITS if edit in figures})
        text = [f"## {edit.capitalize()}\n\n{figures[edit]['markdown']}" for edit in EDITS if edit in figures]
        path.with_suffix(".md").write_text("# Error against the rendered truth\n\n" + "\n".join(text))
        path.with_name(f"{name}_{edit}.png").write_bytes(draw(found))
        console.print(path)


def _former(path: Path) -> dict[str, Any]:
    """The figures of an earlier run by edit, each with what that run's file says of it."""
    if not path.exists():
        return {}
    value = json.loads(path.read_text())
    figures = value.pop("figures")
    return {edit: {"made_by": value, **found} for edit, found in figures.items()}


if __name__ == "__main__":
    main()
