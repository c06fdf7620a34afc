"""The ID/OOD experiment on phantoms against its targets; what `jobs/evaluate.py` is given comes after `--`.

    python benchmarks/experiment.py [--name NAME] [--out FOLDER] [-- --protocol phantom_transductive --quick …]

Runs the job (or what is missing of it in the folder), and keeps its primary figures, tables and plot in
benchmarks/results. Targets: a drop of at least .05 of `real` on the other vendor; `counterfactual` closes half of it;
`classical+counterfactual` beats `classical`; a generator without training does not help; nothing is lost at home.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from _record import RESULTS, record

ROOT = Path(__file__).parents[1]
DROP, CLOSED, HARM = 0.05, 0.5, -0.005
PICTURES = ("gains.png", "patients.png", "ratio_curve.png")


def main() -> None:
    """Run, judge, print and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", default="experiment", help="of the results")
    parser.add_argument("--out", default="runs/evaluate")
    parser.add_argument("job", nargs="*", help="flags of jobs/evaluate.py")
    given = parser.parse_args()
    out = Path(given.out).resolve()
    flags = given.job or ["--protocol", "phantom_transductive"]
    subprocess.run([sys.executable, "jobs/evaluate.py", "--phantom", "--out", str(out), *flags], cwd=ROOT, check=True)
    results = json.loads((out / "results.json").read_text())
    figures = {
        "flags": flags,
        "minutes": round(json.loads((out / "elapsed.json").read_text())["seconds"] / 60, 1),
        **{k: results[k] for k in ("protocol", "segmenter", "steps", "ratio", "gaps", "shared", "curve")},
        "rows": [r for r in results["rows"] if r["metric"] == "dice"],
        "comparisons": [c for c in results["comparisons"] if (c["metric"], c["class"]) == ("dice", "mean")],
    }
    figures["targets"] = targets(figures)
    for line in figures["targets"]:
        print(f"{'met   ' if line['met'] else 'missed'} {line['target']}: {line['found']}")
    path = record(given.name, figures)
    shutil.copy(out / "tables.md", RESULTS / f"{given.name}.md")
    for name in PICTURES:
        if (out / name).exists():
            shutil.copy(out / name, RESULTS / f"{given.name}_{name}")
    print(path)


def targets(figures: dict[str, Any]) -> list[dict[str, Any]]:
    """Every target in every cell, with what was found."""
    lines: list[dict[str, Any]] = []

    def add(target: str, found: dict[str, Any], met: bool) -> None:
        text = "{estimate:.3f} [{low:.3f}, {high:.3f}]".format(**found)
        lines.append({"target": target, "found": text, "met": met})

    for gap in figures["gaps"]:
        cell = gap["cell"]
        if gap["arm"] == "real":
            add(f"{cell}: drop of real ≥ {DROP}", gap["drop"], gap["drop"]["estimate"] >= DROP)
        elif gap["arm"] == "counterfactual" and gap["share"]:
            add(f"{cell}: counterfactual closes ≥ {CLOSED}", gap["share"], gap["share"]["estimate"] >= CLOSED)
    for c in figures["comparisons"]:
        train, test = c["cell"].split(" → ")
        gain, pair = c["with_seeds"] or c["difference"], (c["arm"], c["against"])
        if train == test and c["arm"].endswith("counterfactual") and c["against"] == "real":
            add(f"{c['cell']}: {c['arm']} harms by less than {-HARM}", gain, gain["low"] > HARM)
        if train != test and pair == ("classical+counterfactual", "classical"):
            add(f"{c['cell']}: classical+counterfactual > classical", gain, gain["low"] > 0)
        if train != test and pair == ("counterfactual_untrained", "real"):
            add(f"{c['cell']}: counterfactual_untrained does not help", gain, gain["low"] <= 0)
    return lines


if __name__ == "__main__":
    main()
