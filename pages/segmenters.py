"""Records of the segmenters and of the gates in; their pages of figures out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pages.layout import Page, Section
from pages.records import Record, record
from pages.tables import by_method, number, table, targets

DEFECTS = ("void", "shifted_label", "swapped_label", "checkerboard", "duplicate")


def page() -> Page:
    """`docs/results/segmenters.md`."""
    found = record("segmenters")
    return Page(
        "segmenters",
        "What the papers' segmenters are worth",
        "This page puts each segmenter of the papers beside what it has to beat, on phantoms and after minutes of "
        "training. [Segmenters](../downstream.md) says what they are.",
        [
            Section(
                "Whole tumour",
                f"{found.figures['title']}; Dice over a subject's slices, differences paired by subject. None of them "
                "beats a plain U-Net here.",
                [found],
                [
                    by_method(found.figures["methods"]),
                    targets(found.figures["targets"]),
                    "![Dice by segmenter](../../benchmarks/results/segmenters.png)",
                ],
            )
        ],
    )


def gates_page() -> Page:
    """`docs/results/gates.md`."""
    found = record("planted_defects")
    cohorts = {name: cohort for name, cohort in found.figures.items() if name != "target"}
    return Page(
        "gates",
        "What gates find",
        "This page says which planted defects the gates find, and how many good rows they reject. "
        "[Calibrate gates](../how-to/calibrate-gates.md) does the same on your data.",
        [
            Section(
                "All gates of a policy together",
                "Bounds of the policy (given) and bounds proposed on the other half of the subjects (proposed); for "
                "the glioma, which is one patient, halves are of its rows.",
                [found],
                [
                    _together(cohorts),
                    f"Asked for: recall ≥ {found.figures['target']['recall']:g}, false rejects "
                    f"≤ {found.figures['target']['false_rejects']:g}.",
                ],
            ),
            *(
                Section(f"Gate by gate: {name}", "Recall with the proposed bounds.", [found], [_gates(cohort["gates"])])
                for name, cohort in cohorts.items()
            ),
            _copies(record("copied_lesions")),
        ],
    )


def _together(cohorts: Mapping[str, Mapping[str, Any]]) -> str:
    rows = []
    for name, cohort in cohorts.items():
        for bounds, prefix in (("given", ""), ("proposed", "proposed_")):
            recall = [number(cohort[f"{prefix}recall"][d], 2) for d in DEFECTS]
            rows.append([name, bounds, str(cohort["rows"]), number(cohort[f"{prefix}false_rejects"]), *recall])
    return table(["rows of", "bounds", "rows", "false rejects", *(d.replace("_", " ") for d in DEFECTS)], rows)


def _copies(found: Record) -> Section:
    """Recall of copies of training lesions."""
    figures = found.figures
    kinds = [
        [kind, str(of["rows"]), number(of["median"]), number(of["recall"], 2)] for kind, of in figures["copies"].items()
    ]
    real = figures["held_out"]
    return Section(
        "Copies of training lesions",
        f"`copy_distance` on brain phantoms: lesions of training rows, pasted into held-out rows beside "
        f"{figures['training_rows']} training rows. The bound, {figures['bound']:g}, was proposed on the lesions of "
        f"one half of the held-out subjects; of the other half it rejects {number(figures['false_rejects'])}.",
        [found],
        [
            table(
                ["lesions", "rows", "median distance", "rejected"],
                [
                    ["held out", str(real["rows"]), number(real["median"]), number(figures["false_rejects"], 2)],
                    *kinds,
                ],
            )
        ],
    )


def _gates(gates: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [
        [
            f"`{name}`",
            _bounds(gate["given"]),
            _bounds(gate["proposed"]),
            number(gate["proposed_false_rejects"]),
            *(number(gate["proposed_recall"][d], 2) for d in DEFECTS),
        ]
        for name, gate in gates.items()
    ]
    return table(["gate", "given", "proposed", "false rejects", *(d.replace("_", " ") for d in DEFECTS)], rows)


def _bounds(bounds: Mapping[str, float]) -> str:
    return ", ".join(f"{'≥' if end == 'min' else '≤'} {value:g}" for end, value in bounds.items())
