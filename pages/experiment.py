"""Records of the phantom experiment in; the page of figures and the block of the README out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pages.layout import Page, Section
from pages.records import Record, record
from pages.tables import NONE, interval, number, table

CELLS = ("GE → Siemens", "Siemens → GE", "GE → GE", "Siemens → Siemens")
ARMS = {
    "real": "real rows",
    "classical": "+ classical",
    "random_contrast": "random contrast",
    "counterfactual": "+ counterfactual",
    "classical+counterfactual": "+ both",
    "counterfactual_untrained": "+ untrained generator",
}
BOTH = "classical+counterfactual"


def page() -> Page:
    """`docs/results/experiment.md`."""
    full, first, quick = record("experiment_random_contrast"), record("experiment"), record("experiment_quick")
    return Page(
        "experiment",
        "Does it help: the phantom experiment",
        "This page answers whether counterfactual rows help a segmenter on another vendor's scanner, and what they "
        "cost at home. All of it is on phantoms, which are not patients. [How the experiment is made and guarded]"
        "(../evidence.md) says what an arm, a cell and an interval are.",
        [
            Section(
                "Mean Dice",
                "Six arms on subjects of two vendors whose habits differ, drawn after every setting was chosen. Cells "
                "are named by the vendor of the training patients and that of the test patients. Tables with every "
                "class and HD95 lie beside the record: [with random contrast]"
                "(../../benchmarks/results/experiment_random_contrast.md), [without]"
                "(../../benchmarks/results/experiment.md).",
                [full, first],
                [_settings(full), mean_dice(full), _gains_picture("experiment_random_contrast")],
            ),
            Section(
                "Gains",
                "Differences of paired patients, with bootstrap intervals over patients and seeds and Wilcoxon's p by "
                "Holm. An arm with classical changes is also compared with these changes alone.",
                [full],
                [_gains(full.figures["comparisons"])],
            ),
            Section(
                "How much of the drop is closed",
                "The drop is what real rows lose on the other vendor's patients; the share closed is an arm's gain in "
                "units of that drop.",
                [full],
                [_gaps(full.figures["gaps"])],
            ),
            Section(
                "What it costs at home",
                "By vendor and field strength, split after the fact: counterfactual rows beside real ones, real rows "
                "of both vendors beside those of one, and the former beside the latter.",
                [record("home")],
                [_home(record("home").figures["rows"])],
            ),
            Section(
                "What was to be reached",
                "Bounds that were set before the test subjects were drawn. Harm is judged by the interval's lower end, "
                "so that a small loss with a wide interval counts as missed.",
                [full],
                [_experiment_targets(full.figures["targets"])],
            ),
            Section(
                "Other ratios of added rows",
                "Gains over real rows by the number of added rows per real row. The generator was trained by minutes "
                "then, and this was not run again.",
                [record("experiment_ratio_curve")],
                [_curve(record("experiment_ratio_curve").figures["curve"])],
            ),
            Section(
                "The quick experiment",
                "A first look with short trainings and one seed (`--quick`).",
                [quick],
                [_settings(quick), mean_dice(quick)],
            ),
            Section(
                "Two faults of an earlier measure, old beside new",
                "HD95 was measured with a lid on both ends of every stack, which flatters; and the classical arm "
                "blurred with zeros beyond the edge. Both were mended, and [Segmenters](../downstream.md) says how. "
                "HD95 is of one and the same set of predictions, gains are of one seed.",
                [record("field_traps")],
                _field_traps(record("field_traps").figures),
            ),
        ],
    )


def readme() -> str:
    """The table of README and what it says, in one block."""
    found = record("experiment_random_contrast")
    gains = {(c["cell"], c["arm"], c["against"]): c["with_seeds"] for c in found.figures["comparisons"]}
    shares = {(g["cell"], g["arm"]): _percent(g["share"]) for g in found.figures["gaps"]}
    out, back, ge, siemens = CELLS
    patients = {r["cell"]: r["patients"] for r in found.figures["rows"]}
    head = (
        f"{patients[back]} test patients of GE, {patients[out]} of Siemens; {found.figures['rows'][0]['seeds']} seeds"
    )

    def pair(arm: str, against: str, cells: tuple[str, str], digits: int = 2) -> str:
        return " and ".join(interval(gains[cell, arm, against], digits) for cell in cells)

    abroad, home = (out, back), (ge, siemens)
    return "\n".join(
        [
            f"Mean Dice ({head}):",
            "",
            mean_dice(found),
            "",
            f"- Abroad, counterfactual rows gain {pair('counterfactual', 'real', abroad)}, which closes "
            f"{shares[out, 'counterfactual']} and {shares[back, 'counterfactual']} of the drop.",
            f"- Beside classical changes they gain {pair(BOTH, 'classical', abroad)}; both together close "
            f"{shares[out, BOTH]} and {shares[back, BOTH]}.",
            f"- At home they change {pair('counterfactual', 'real', home, 3)}; beside classical changes "
            f"{pair(BOTH, 'classical', home, 3)}.",
            f"- Rows of an untrained generator gain {pair('counterfactual_untrained', 'real', abroad, 3)}.",
            f"- Real rows with random contrast gain {pair('random_contrast', 'real', abroad)} abroad, and change "
            f"{pair('random_contrast', 'real', home)} at home.",
        ]
    )


def mean_dice(found: Record) -> str:
    """Mean Dice by cell and arm."""
    values = {
        (r["cell"], r["arm"]): r["mean"] for r in found.figures["rows"] if (r["class"], r["metric"]) == ("mean", "dice")
    }
    arms = [arm for arm in ARMS if (CELLS[0], arm) in values]
    rows = [[c, *(number(values[c, arm]) for arm in arms)] for c in CELLS]
    return table(["mean Dice", *(ARMS[arm] for arm in arms)], rows)


def _settings(found: Record) -> str:
    figures, rows = found.figures, found.figures["rows"]
    patients = {r["cell"]: r["patients"] for r in rows}
    return (
        f"{rows[0]['seeds']} seed{'s' if rows[0]['seeds'] > 1 else ''}, {figures['steps']} steps each, "
        f"{figures['ratio']:g} added rows per real row, {patients[CELLS[2]]} test patients of GE and "
        f"{patients[CELLS[3]]} of Siemens. The generator saw images of both vendors, with pseudo-labels."
    )


def _gains(comparisons: Iterable[Mapping[str, Any]]) -> str:
    rows = [
        [c["cell"], f"`{c['arm']}`", f"`{c['against']}`", interval(c["with_seeds"], sign=True), f"{c['p_holm']:.2g}"]
        for c in comparisons
    ]
    return table(["cell", "arm", "against", "gain", "p (Holm)"], rows)


def _gaps(gaps: Iterable[Mapping[str, Any]]) -> str:
    rows = [[g["cell"], interval(g["drop"]), f"`{g['arm']}`", _percent(g["share"])] for g in gaps if g["arm"] != "real"]
    return table(["cell", "drop of `real`", "arm", "share closed"], rows)


def _home(found: Iterable[Mapping[str, Any]]) -> str:
    rows = [
        [
            r["vendor"],
            "all" if r["field_strength_t"] is None else f"{r['field_strength_t']:g} T",
            str(r["patients"]),
            r["pair"],
            interval(r["difference"], sign=True),
        ]
        for r in found
    ]
    return table(["vendor", "field", "patients", "pair", "difference in mean Dice"], rows)


def _experiment_targets(found: Iterable[Mapping[str, Any]]) -> str:
    rows = [[t["target"], t["found"].replace("-", "−"), "met" if t["met"] else "missed"] for t in found]
    return table(["target", "found", ""], rows)


def _curve(found: Iterable[Mapping[str, Any]]) -> str:
    by = {(r["cell"], r["ratio"]): interval(r["difference"], sign=True) for r in found}
    ratios = sorted({ratio for _, ratio in by})
    return table(
        ["cell", *(f"{ratio:g} per real row" for ratio in ratios)], [[c, *(by[c, r] for r in ratios)] for c in CELLS]
    )


def _field_traps(figures: Mapping[str, Any]) -> list[str]:
    surfaces = [
        [name, tissue, number(found["lids"], 2), number(found["open"], 2)]
        for name, tissues in figures["hd95_mm"].items()
        for tissue, found in tissues.items()
    ]
    changes = figures["classical"]
    gains = [[c, *(number(changes[way][c], 3, sign=True) for way in changes)] for c in changes["monai"]]
    return [
        table(["cell, arm", "class", "HD95 in mm, with lids", "without"], surfaces),
        table(["cell", "gain of `classical`, as MONAI changes", "as nnU-Net changes"], gains),
    ]


def _gains_picture(name: str) -> str:
    return f"![Gains by cell and arm](../../benchmarks/results/{name}_gains.png)"


def _percent(share: Mapping[str, float] | None) -> str:
    if share is None:
        return NONE
    return f"{share['estimate'] * 100:.0f} % [{share['low'] * 100:.0f}, {share['high'] * 100:.0f}]"
