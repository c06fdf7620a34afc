"""The error of every edit method against the phantom's true counterfactual, beside its targets.

    python benchmarks/counterfactual_truth.py --run runs/duke_phantom

Reads the table of a finished `jobs/augment_duke.py` run (`make demo` makes one).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from _record import record

# Decibels by which the trained default edit must beat the baselines on pairs whose tissue order flips.
OVER_IDENTITY_DB, OVER_HISTOGRAM_DB = 6.0, 2.0


def main() -> None:
    """Compare with the targets, print and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", default="runs/duke_phantom")
    flags = parser.parse_args()
    truth = json.loads((Path(flags.run) / "truth/truth.json").read_text())
    lines = [json.loads(line) for line in (Path(flags.run) / "model/metrics.jsonl").read_text().splitlines()]
    verdicts = {}
    for direction, methods in truth["direction"].items():
        before, after = direction.split(" → ")
        if before == after:
            continue
        psnr = {m: v["psnr_db"] for m, v in methods.items()}
        gains = {m: round(psnr[m] - psnr["identity"], 2) for m in psnr}
        verdicts[direction] = {
            "over_identity_db": gains["structure"],
            "over_histogram_matching_db": round(psnr["structure"] - psnr["histogram matching"], 2),
            "untrained_over_identity_db": gains["structure, untrained"],
            "met": gains["structure"] >= OVER_IDENTITY_DB
            and psnr["structure"] - psnr["histogram matching"] >= OVER_HISTOGRAM_DB
            and gains["structure, untrained"] < OVER_IDENTITY_DB,
        }
    figures = {"flipping_pairs": verdicts, "last_training_line": lines[-1], **truth}
    print(json.dumps(verdicts, indent=1, ensure_ascii=False))
    print(record("counterfactual_truth", figures))


if __name__ == "__main__":
    main()
