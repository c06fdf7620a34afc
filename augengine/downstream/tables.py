"""An experiment's scores in; its tables as Markdown, and every figure of them as JSON, out.

The first table has the layout of paper 004's Table 3, the others, one per metric and cell, that of paper 002's Tables
2 and 3.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from augengine.downstream.arms import baselines
from augengine.downstream.contrast_tables import by_thirds, ratios_of, thirds_table
from augengine.downstream.protocols import BACKGROUND, Cell, Protocol
from augengine.downstream.results import (
    MEAN,
    Gain,
    GapClosed,
    Measured,
    Plan,
    Row,
    Scores,
    Shared,
    gains,
    gaps,
    shared,
    summary,
    unpredicted,
)
from augengine.io.store import Store
from augengine.metrics.draws import HALF_WIDTH
from augengine.metrics.intervals import Interval

TABLES, RESULTS = "tables.md", "results.json"
ALPHA = 0.05
PRIMARY: dict[str, Measured] = {"dice": ("dice", MEAN), "lesion_dice": ("lesion_dice", MEAN)}
SURFACE_RULE = (
    "HD95 is between surfaces within the scan: slices that lie beside each other are one volume whose surface has no "
    "lid above and below, and a slice without neighbours has its contours alone."
)
_TITLES = {
    "dice": "Dice",
    "hd95_mm": "HD95, mm",
    "accuracy": "Acc., %",
    "lesion_dice": "Lesion-wise Dice",
    "lesion_hd95_mm": "Lesion-wise HD95, mm",
    "false_positive_lesions": "False-positive lesions",
}
_SCALE = {"accuracy": 100.0}
_DIGITS = {"accuracy": 1, "hd95_mm": 1, "lesion_hd95_mm": 1, "false_positive_lesions": 2}
_LOWER_IS_BETTER = {"hd95_mm", "lesion_hd95_mm", "false_positive_lesions"}


def primary(plan: Plan) -> Measured:
    """The metric that gains and gaps are told in: mean lesion-wise Dice where it is measured, else mean Dice."""
    return main_metric(plan.protocol)


def main_metric(protocol: Protocol) -> Measured:
    """As `primary`, of a protocol."""
    return PRIMARY["lesion_dice" if "lesion_dice" in protocol.metrics else "dice"]


def write_tables(plan: Plan, scores: Scores, out: str) -> dict[str, Any]:
    """Write `tables.md` and `results.json` into the experiment's folder; returns the latter."""
    main = {row: found for row, found in scores.items() if plan.main(row)}
    columns = columns_of(plan.protocol)
    compared = {measured: gains(main, measured, plan, over_seeds=measured == primary(plan)) for measured in columns}
    told, closed = compared[primary(plan)], gaps(main, primary(plan), plan)
    few = few_labels(plan, scores)
    curve, mixed = _curve(plan, scores), shared(main, primary(plan), plan)
    faint = by_thirds(plan, scores, ratios_of(plan, out), primary(plan))
    absent = unpredicted(plan, out)
    results = {
        "protocol": plan.protocol.name,
        "segmenter": plan.segmenter,
        "steps": plan.steps,
        "ratio": plan.ratio,
        "sizes": list(plan.sizes),
        "fresh_draws": plan.fresh_draws,
        "nets": plan.nets,
        "not_predicted": list(absent),
        "rows": [
            {**asdict(row), "metric": metric, "class": name, **summary(found)}
            for row, by_measured in scores.items()
            for (metric, name), found in by_measured.items()
        ],
        "comparisons": [
            {"metric": metric, "class": name, **gain.to_dict()}
            for (metric, name), found in compared.items()
            for gain in found
        ],
        "gaps": [gap.to_dict() for gap in closed],
        "shared": [one.to_dict() for one in mixed],
        "curve": [gain.to_dict() for gain in curve],
        "thirds": [one.to_dict() for one in faint],
        "few_labels": [
            {**gain.to_dict(), "patients": gain.subjects or plan.patients.get(train_of(plan, gain), 0)} for gain in few
        ],
    }
    text = "\n".join(
        [
            f"# {plan.protocol.name}: {plan.segmenter}, {plan.steps} steps per training",
            "",
            *_absent(plan, absent),
            *_segmentation(plan, main, compared),
            *_gain_table(told, plan),
            *_gap_table(closed),
            *_shared_table(mixed, plan),
            *_by_metric(plan, main, compared),
            *_curve_table(curve, plan),
            *_few_table(few, plan),
            *thirds_table(faint, plan, heading(primary(plan))),
        ]
    )
    store = Store(out)
    store.write_json(RESULTS, results)
    store.write(TABLES, (text.rstrip() + "\n").encode())
    return results


def columns_of(protocol: Protocol) -> list[Measured]:
    """Every class of every metric, and the mean of those that a mean makes sense of."""
    classes = list(protocol.classes)
    columns: list[Measured] = []
    for metric in protocol.metrics:
        background = [BACKGROUND] if metric == "accuracy" and protocol.exclusive else []
        columns += [(metric, name) for name in [*background, *classes]]
        columns += [(metric, MEAN)] if metric != "accuracy" else []
    return columns


def _absent(plan: Plan, absent: Sequence[str]) -> Iterable[str]:
    if absent:
        yield f"The segmenter {plan.segmenter} does not predict {', '.join(absent)}: not scored, and in no mean."
        yield ""


def _segmentation(plan: Plan, scores: Scores, compared: dict[Measured, list[Gain]]) -> Iterable[str]:
    """Paper 004's Table 3: one row per cell and arm."""
    order = {metric: n for n, metric in enumerate(("accuracy", "dice", "lesion_dice"))}
    columns = sorted(columns_of(plan.protocol), key=lambda c: order.get(c[0], len(order)))
    yield "## Segmentation by training and test domain"
    yield ""
    if plan.protocol.largest_component:
        yield "Of every class and volume, the largest connected part of the prediction counts alone."
        yield ""
    if any(metric.endswith("hd95_mm") for metric in plan.protocol.metrics):
        yield SURFACE_RULE
        yield ""
    yield line(["Training", "Test", "Arm", *(heading(c) for c in columns)])
    yield line(["---"] * (3 + len(columns)))
    for cell in plan.protocol.cells:
        for row in _rows(scores, cell):
            stars = {c: _star(row, compared[c], c[0]) for c in columns}
            values = (_value(scores[row], c) + stars[c] for c in columns)
            yield line([cell.train, cell.test, row.arm, *values])
    yield ""
    yield (
        "Mean ± deviation over test patients, of each patient's mean over seeds. \\* better, † worse than `real` in "
        f"the same cell: p < {ALPHA:g} by Wilcoxon's signed rank test over patients, Holm-corrected over all "
        "comparisons of the column. Accuracy is the share of a class's voxels that were found."
    )
    yield ""


def _gain_table(found: Sequence[Gain], plan: Plan) -> Iterable[str]:
    yield f"## Gains in {heading(primary(plan))}"
    yield ""
    yield line(
        [
            "Cell",
            "Arm",
            "against",
            "gain",
            "95 % over patients",
            f"95 % over patients and {plan.draws}",
            "p",
            "p (Holm)",
            _needed_heading(plan),
        ]
    )
    yield line(["---"] * 9)
    for gain in found:
        yield line(
            [
                gain.cell,
                gain.arm,
                gain.against,
                f"{gain.difference.estimate:+.4f}",
                _interval(gain.difference),
                _interval(gain.with_seeds) if gain.with_seeds else "–",
                f"{gain.p:.3g}",
                f"{gain.p_holm:.3g}",
                _needed(gain.draws_needed),
            ]
        )
    yield ""


def _gap_table(found: Sequence[GapClosed]) -> Iterable[str]:
    if not found:
        return
    yield "## How much of the drop on the other domain is closed"
    yield ""
    yield line(["Cell", "drop of `real`", "95 %", "Arm", "share closed", "95 %"])
    yield line(["---"] * 6)
    for gap in found:
        share = ["no drop", ""] if gap.share is None else [f"{gap.share.estimate:.2f}", _interval(gap.share, 2)]
        yield line([gap.cell, f"{gap.drop.estimate:.4f}", _interval(gap.drop), gap.arm, *share])
    yield ""


def _shared_table(found: Sequence[Shared], plan: Plan) -> Iterable[str]:
    if not found:
        return
    yield "## What real rows of the other domain cost at home"
    yield ""
    yield "Trained on real rows of both domains less trained on the test domain alone, for as many steps."
    yield ""
    over = f"95 % over patients and {plan.draws}"
    yield line(["Training", "Test", "difference", "95 % over patients", over, _needed_heading(plan)])
    yield line(["---"] * 6)
    for one in found:
        yield line(
            [
                one.train,
                one.test,
                f"{one.difference.estimate:+.4f}",
                _interval(one.difference),
                _interval(one.with_seeds),
                _needed(one.draws_needed),
            ]
        )
    yield ""


def _by_metric(plan: Plan, scores: Scores, compared: dict[Measured, list[Gain]]) -> Iterable[str]:
    """Paper 002's Tables 2 and 3: one row per arm, mean ± deviation (p against `real`)."""
    names = list(plan.protocol.classes)
    for metric in plan.protocol.metrics:
        columns = [column for column in columns_of(plan.protocol) if column[0] == metric]
        for cell in plan.protocol.cells:
            rows = _rows(scores, cell)
            if len(rows) < 2:
                continue
            yield f"## {_TITLES[metric]}: {cell}"
            yield ""
            yield line(["Arm", *(name for _, name in columns)])
            yield line(["---"] * (1 + len(columns)))
            for row in rows:
                values = []
                for column in columns:
                    gain = _against_real(row, compared[column])
                    p = "" if gain is None else f" ({gain.p_holm:.3f})" if gain.p_holm >= 0.001 else " (<0.001)"
                    values.append(_value(scores[row], column, with_sd=column[1] in (*names, BACKGROUND)) + p)
                yield line([row.arm, *values])
            yield ""


def _curve(plan: Plan, scores: Scores) -> list[Gain]:
    """Gains of the arms whose ratio varies over their nearest baselines; nothing if there is but one ratio."""
    varied = {row.arm for row in scores if row.ratio != plan.ratio}
    nearest = {baselines(arm)[-1] for arm in varied}
    chosen = {
        row: found
        for row, found in scores.items()
        if row.subjects == plan.sizes[0] and (row.arm in varied or (row.arm in nearest and row.ratio == plan.ratio))
    }
    found = gains(chosen, primary(plan), plan, over_seeds=True) if varied else []
    own = [gain for gain in found if gain.against == baselines(gain.arm)[-1]]
    return sorted(own, key=lambda g: (g.cell, g.arm, g.ratio))


def _curve_table(found: Sequence[Gain], plan: Plan) -> Iterable[str]:
    if not found:
        return
    yield "## Gain by added rows per real row"
    yield ""
    yield line(["Cell", "Arm", "ratio", "gain", "95 % over patients", _needed_heading(plan)])
    yield line(["---"] * 6)
    for gain in found:
        yield line(
            [
                gain.cell,
                gain.arm,
                f"{gain.ratio:g}",
                f"{gain.difference.estimate:+.4f}",
                _interval(gain.difference),
                _needed(gain.draws_needed),
            ]
        )
    yield ""


def few_labels(plan: Plan, scores: Scores) -> list[Gain]:
    """Gains by number of training subjects, over all numbers as one family; nothing if there is but one number."""
    if len(plan.sizes) < 2:
        return []
    chosen = {row: found for row, found in scores.items() if row.ratio == plan.ratio}
    found = gains(chosen, primary(plan), plan, over_seeds=True)
    return sorted(found, key=lambda g: (g.cell, g.arm, g.against, g.subjects or float("inf")))


def train_of(plan: Plan, gain: Gain) -> str:
    """The training domain of a gain's cell."""
    return next(cell.train for cell in plan.protocol.cells if str(cell) == gain.cell)


def _few_table(found: Sequence[Gain], plan: Plan) -> Iterable[str]:
    if not found:
        return
    yield "## Gain by number of training patients"
    yield ""
    yield (
        "Every draw takes patients of its own, the same for all arms; smaller numbers are among its larger ones."
        if plan.fresh_draws
        else "All seeds train on the same patients; smaller numbers are among larger ones."
    )
    yield ""
    yield line(
        [
            "Cell",
            "Arm",
            "against",
            "patients",
            "gain",
            f"95 % over patients and {plan.draws}",
            "p (Holm)",
            _needed_heading(plan),
        ]
    )
    yield line(["---"] * 8)
    for gain in found:
        patients = gain.subjects or f"all ({plan.patients.get(train_of(plan, gain), '?')})"
        yield line(
            [
                gain.cell,
                gain.arm,
                gain.against,
                str(patients),
                f"{gain.difference.estimate:+.4f}",
                _interval(gain.with_seeds or gain.difference),
                f"{gain.p_holm:.3g}",
                _needed(gain.draws_needed),
            ]
        )
    yield ""


def _needed_heading(plan: Plan) -> str:
    """Of the column that says how many draws would decide."""
    return f"{plan.draws} for ± {HALF_WIDTH:g}"


def _needed(draws: int | None) -> str:
    return "–" if draws is None else str(draws)


def _rows(scores: Scores, cell: Cell) -> list[Row]:
    """A cell's rows in the order in which the arms were given."""
    return [row for row in scores if row.cell == str(cell)]


def heading(measured: Measured) -> str:
    """A column's title."""
    metric, name = measured
    return f"Mean {_TITLES[metric]}" if name == MEAN else f"{_TITLES[metric]} {name}"


def _value(found: Any, measured: Measured, *, with_sd: bool = True) -> str:
    if measured not in found:
        return "–"
    values, scale, digits = summary(found[measured]), _SCALE.get(measured[0], 1.0), _DIGITS.get(measured[0], 3)
    text = f"{values['mean'] * scale:.{digits}f}"
    return f"{text} ± {values['sd_patients'] * scale:.{digits}f}" if with_sd else text


def _against_real(row: Row, found: Sequence[Gain]) -> Gain | None:
    return next(
        (g for g in found if (g.cell, g.arm, g.against, g.ratio) == (row.cell, row.arm, "real", row.ratio)), None
    )


def _star(row: Row, found: Sequence[Gain], metric: str) -> str:
    gain = _against_real(row, found)
    if gain is None or gain.p_holm >= ALPHA:
        return ""
    return "\\*" if (gain.difference.estimate < 0) == (metric in _LOWER_IS_BETTER) else "†"


def _interval(interval: Interval, digits: int = 4) -> str:
    return f"{interval.low:.{digits}f} … {interval.high:.{digits}f}"


def line(cells: Iterable[str]) -> str:
    """A line of a Markdown table."""
    return f"| {' | '.join(cells)} |"
