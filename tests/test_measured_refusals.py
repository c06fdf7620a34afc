"""The seconds that docs/refusals.md tells are those that `benchmarks/refusals.py` recorded."""

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_documented_seconds_are_the_recorded_ones() -> None:
    recorded = json.loads((ROOT / "benchmarks/results/refusals.json").read_text())["figures"]
    assert len(recorded["refusals"]) == recorded["cases"]
    table = (ROOT / "docs/refusals.md").read_text().partition("## Measured")[2].partition("\n## ")[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in re.findall(r"^\| `.*$", table, re.MULTILINE)
    ]
    assert rows == [
        [
            f"`{case['command']}`",
            case["refused"],
            case["moment"],
            f"{case['seconds']:.1f}",
            f"{case['cpu_seconds']:.1f}",
        ]
        for case in recorded["refusals"]
    ]
