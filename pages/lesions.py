"""Records of lesion edits and synthetic labels in; their page of figures out."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from scipy import stats

from pages.layout import Page, Section
from pages.records import part_of, record
from pages.tables import NONE, by_method, cell, interval, number, table, targets

REMOVAL = (
    "tumor_residual",
    "rmse_lesion",
    "ssim_lesion",
    "texture_ratio",
    "void_fraction",
    "diffmap_iou",
    "rmse_outside",
)
RELOCATION = (
    "referee_dice",
    "rmse_new",
    "ssim_new",
    "texture_ratio",
    "rmse_margin",
    "rmse_old",
    "old_residual",
    "changed_outside",
)
LABELS = ("frechet", "real_real", "ratio", "memorised", "empty", "nested", "ks_volume", "ks_components", "ks_place")


def page() -> Page:
    """`docs/results/lesions.md`."""
    removal, relocation, labels = (part_of("truth", part) for part in ("removal", "relocation", "labels"))
    prompts, slices, style = record("pcf_segmentation"), record("slice_consistency"), record("synthetic_style")
    glioma, sites, first = record("real_glioma"), record("lesion_sites"), record("lesion_sites_first")
    return Page(
        "lesions",
        "Lesions: removal, relocation, synthetic labels",
        "This page says what the lesion edits reach against the truth that a phantom knows, and what they do on one "
        "real glioma. [Policies](../policies.md) has the edits, [Training](../training.md) the generators behind them.",
        [
            Section(
                "Tumour removal",
                "FLAIR of held-out phantom subjects, against the true healthy anatomy. The residual is the share of "
                "the lesion that is still abnormal; holes count. The last rows know what no method may know.",
                [removal],
                [*_truth(removal, REMOVAL), "![Tumour removal](../../benchmarks/results/truth_removal.png)"],
            ),
            Section(
                "Tumour relocation",
                "The same lesion in a new place, against the rendered truth; the referee is a segmenter trained on "
                "other subjects.",
                [relocation],
                [
                    *_truth(relocation, RELOCATION),
                    "![Tumour relocation](../../benchmarks/results/truth_relocation.png)",
                ],
            ),
            Section(
                "Synthetic label maps",
                "New label maps beside those of held-out subjects: Fréchet distance of shape features at equal n, in "
                "units of what real maps score against real ones, copies of training maps, and Kolmogorov–Smirnov "
                "distances of size, pieces and place.",
                [labels],
                [*_truth(labels, LABELS), "![Label maps](../../benchmarks/results/truth_labels.png)"],
            ),
            Section(
                "Synthetic labels in a donor's style",
                "Rows whose lesion is synthetic and whose style is another site's, beside the same brain and lesion "
                "rendered there.",
                [style],
                [
                    by_method(style.figures["methods"]),
                    targets(style.figures["targets"]),
                    table(["outcome", "rows"], [[k, str(v)] for k, v in style.figures["counts"].items()]),
                    "![Synthetic labels in a donor's style](../../benchmarks/results/synthetic_style.png)",
                ],
            ),
            Section(
                "Segmentation by counterfactual",
                "Promptable against plain counterfactual segmentation (paper 000). Much of the gain is the prompt "
                "itself, so what copying it scores stands beside.",
                [prompts],
                [
                    table(["way", "Dice"], [[k, cell(v)] for k, v in prompts.figures["dice"].items()]),
                    table(
                        ["promptable over plain", "ratio"],
                        [[k, cell(v, 2)] for k, v in prompts.figures["promptable_over_plain"].items()],
                    ),
                    "![Counterfactual segmentation](../../benchmarks/results/pcf_segmentation.png)",
                ],
            ),
            Section(
                "Slice by slice",
                "How much healed regions differ along z, in units of the truth's own difference, by how noise is drawn "
                "and what is shown.",
                [slices],
                [by_method(slices.figures["ways"])],
            ),
            Section(
                "One real glioma",
                "One patient, no truth. The distance is that of the healed place from its mirror image, in standard "
                "deviations of the brain.",
                [glioma],
                [_glioma(glioma.figures)],
            ),
            Section(
                "Real gliomas of two hospitals",
                "Segmenters of FLAIR slices, trained on ten patients of one hospital and tested on another's, beside "
                "the same transforms without augmented rows. A draw takes ten patients afresh; bank, augmented rows "
                "and networks follow from them alone. Lesion rows take the place of lesion rows (`data.balance`); "
                "`oversampled` shows real ones once more. Few draws: an interval over them is rough.",
                [sites, first],
                [
                    *_sites(sites.figures),
                    "![Difference by draw](../../benchmarks/results/lesion_sites.png)",
                    "Four earlier draws of the same experiment, whose patients have other numbers:",
                    _sites(first.figures)[1],
                    "All draws together, intervals over draws alone (t):",
                    _together([sites.figures, first.figures]),
                ],
            ),
        ],
    )


def _truth(part: Any, measures: tuple[str, ...]) -> list[str]:
    found = part.figures["tables"][0]
    return [f"### {found['title']}", by_method(found["methods"], measures), targets(found["targets"])]


def _glioma(figures: Mapping[str, Any]) -> str:
    runs = {name: found for name, found in figures.items() if isinstance(found, Mapping)}
    channels = list(next(iter(runs.values()))["off_mirror_before"])
    before = next(iter(runs.values()))["off_mirror_before"]
    rows = [["the tumour itself", "", "", *(number(before[c], 2) for c in channels)]]
    for name, found in runs.items():
        outcome = found["rows"]
        after = [number(found["off_mirror_after"][c], 2) for c in channels]
        rows.append([name, str(outcome["accepted"]), str(outcome["rejected"]), *after])
    return table(["run", "accepted", "rejected", *channels], rows)


def _sites(figures: Mapping[str, Any]) -> list[str]:
    """Dice abroad and at home, and its differences to `classical` with intervals over draws and patients."""
    asked, rows = figures["settings"], []
    for arm, found in figures["arms"].items():
        differences = [
            interval({"estimate": of["mean"], **of}, sign=True) if (of := found[where].get("difference")) else NONE
            for where in ("abroad", "faint", "home")
        ]
        false = number(found["abroad"]["false_positive"])
        rows.append([arm, str(found["draws"]), number(found["abroad"]["dice"]), *differences, false])
    trained = (
        f"{asked['patients']} patients of {asked['train']}, tested on {asked['test']} (abroad) and on the others of "
        f"{asked['train']} (home); {asked['steps']} steps, {asked['nets']} networks averaged. The faint third has the "
        f"lowest contrast, below {number(figures['contrast_thirds'][0], 2)}."
    )
    head = ["arm", "draws", "Dice abroad", "less `classical`", "faint third", "home", "healthy slices with a lesion"]
    return [trained, table(head, rows)]


def _together(records: Sequence[Mapping[str, Any]]) -> str:
    """Differences to `classical` over the draws of several records that drew independently."""
    rows = []
    for arm in records[0]["arms"]:
        if arm == "classical":
            continue
        cells = []
        for where in ("abroad", "faint", "home"):
            draws = [draw for found in records for draw in found["arms"][arm][where]["difference"]["by_draw"]]
            half = float(stats.t.ppf(0.975, len(draws) - 1)) * statistics.stdev(draws) / len(draws) ** 0.5
            mean = statistics.fmean(draws)
            cells.append(interval({"estimate": mean, "low": mean - half, "high": mean + half}, sign=True))
        rows.append([arm, str(len(draws)), *cells])
    return table(["arm", "draws", "abroad, less `classical`", "faint third", "home"], rows)
