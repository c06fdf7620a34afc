"""Records of counterfactual acquisition in; its page of figures and its blocks out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pages.layout import Page, Section
from pages.records import part_of, record
from pages.tables import by_method, cell, number, table, targets

PHANTOM = ("rmse_body", "rmse_tissue", "psnr_db_body", "ssim_body", "structure_source", "texture_ratio", "vendor_gain")
DOSE = ("spearman", "right_sign", "monotone", "true_monotone", "change", "true_change")
REAL = {
    "identity": "the source itself",
    "gamma": "gamma towards the pool's histogram",
    "histogram": "histogram of other scanners of the vendor",
    "local_contrast": "`local_contrast`",
}
PAIRED = {
    "local_contrast, paired": "`local_contrast`, volumes",
    "local_contrast, paired, seed 1": "the same, another seed",
}
PAIRED_SLICES = {
    "local_contrast, paired": "single slices, without their place in the slab",
    "local_contrast, paired, seed 1": "the same, another seed",
}
WAYS = ("9° → 15°", "15° → 9°")


def page() -> Page:
    """`docs/results/acquisition.md`."""
    phantom, local = part_of("truth", "acquisition"), part_of("truth_local_contrast", "acquisition")
    real, people, study = record("truth_real"), record("other_person"), record("study")
    paired, slices = record("truth_real_volumes_paired"), record("truth_real_paired")
    tables = phantom.figures["tables"]
    return Page(
        "acquisition",
        "Counterfactual acquisition against the truth",
        "This page says how near edited images are to what the other scanner would have shown: on phantoms, which can "
        "be rendered twice, and on one volunteer who was scanned twice. [Methods](../methods.md) says how the methods "
        "work and what this does not prove.",
        [
            Section(
                "One volunteer on several scanners",
                "Each scanner is left out in turn, and no pair is used in training. RMSE in units of the 99th "
                "percentile within the body, with intervals over scanners; texture is the fine detail in units of the "
                "truth's. The same scanners served to find the method's settings, so these are figures of development. "
                "These networks saw pseudo-scans that vary more in fine detail than the recipe's do now "
                "([why](../methods.md#on-real-scans)).",
                [real],
                [
                    real_rmse(),
                    "![One volunteer: source, gamma, histogram, local_contrast, truth]"
                    "(../../benchmarks/results/truth_real.png)",
                    "Moving the truth onto the source costs by itself, since the volunteer moved between the scans:",
                    table(
                        ["scanner", "RMSE of motion alone"],
                        [[k, number(v)] for k, v in real.figures["motion_floor"].items()],
                    ),
                ],
            ),
            Section(
                "The same volunteer, learnt from pairs",
                "As before, but training saw the other scanners' real pairs and no pseudo-scan. Rows are volumes, of "
                "which each slice is looked at beside its neighbours, or single slices.",
                [paired, slices],
                [
                    paired_rmse(),
                    "![Source, histogram, local_contrast of two trainings, truth]"
                    "(../../benchmarks/results/truth_real_volumes_paired.png)",
                ],
            ),
            Section(
                "Other people, never learnt from",
                "Spinal cords of another sequence whose headers state neither repetition time nor flip angle. Every "
                "row is refused with that reason, and made with `unseen: nearest`.",
                [people],
                [_people(people.figures["sessions"]), "![Other people](../../benchmarks/results/other_person.png)"],
            ),
            Section(
                "The phantom, `structure`",
                "Targets are drawn from protocol rows that training scans were made with (seen) and from others (held "
                "out). Pairs that flip change the order of fat and fibroglandular tissue. All measures: [table]"
                "(../../benchmarks/results/truth.md).",
                [phantom],
                [
                    text
                    for found in tables[:6]
                    for text in (
                        f"### {_short(found['title'])}",
                        by_method(found["methods"], PHANTOM),
                        targets(found["targets"]),
                    )
                ]
                + ["![Source, methods and truth](../../benchmarks/results/truth_acquisition.png)"],
            ),
            Section(
                "The phantom, single parameters",
                "One parameter is swept while the others stay. Spearman compares the change with the rendered truth's.",
                [phantom],
                [
                    text
                    for found in tables[6:]
                    for text in (f"### {_short(found['title'])}", by_method(found["methods"], DOSE))
                ],
            ),
            Section(
                "The phantom, `local_contrast` beside `structure`",
                "On phantoms whose fat saturation changes it stays near the source: it paints nothing, and its "
                "training keeps the order of brightness.",
                [local],
                [
                    text
                    for found in local.figures["tables"]
                    for text in (
                        f"### {_short(found['title'])}",
                        by_method(found["methods"], PHANTOM),
                        targets(found["targets"]),
                    )
                ],
            ),
            Section(
                "The experiment's own generators and labels",
                "How good the pseudo-labels of the other vendor are, and how near the augmented rows of [the "
                "experiment](experiment.md) are to the rendered truth.",
                [study],
                [
                    text
                    for found in study.figures
                    for text in (
                        f"### {found['title']}",
                        by_method(found["methods"]),
                        *([targets(found["targets"])] if found["targets"] else []),
                    )
                ]
                + ["![Labels and augmented rows](../../benchmarks/results/study.png)"],
            ),
        ],
    )


def real_rmse() -> str:
    """RMSE and texture of each method without pairs, both ways, on the real volunteer."""
    return _both_ways(record("truth_real").figures, REAL)


def paired_rmse() -> str:
    """The same of what learnt from real pairs."""
    whole = _both_ways(record("truth_real_volumes_paired").figures, PAIRED)
    single = _both_ways(record("truth_real_paired").figures, PAIRED_SLICES)
    return "\n".join([whole, *single.splitlines()[2:]])


def _both_ways(figures: Mapping[str, Any], methods: Mapping[str, str]) -> str:
    rows = []
    for method, title in methods.items():
        row = [title]
        for way in WAYS:
            found = figures[way][method]
            low, high = (number(end) for end in found["rmse_interval"])
            row += [f"{number(found['rmse'])} [{low}, {high}]", number(found["texture"], 2)]
        rows.append(row)
    head = [text for way in WAYS for text in (f"RMSE, {way}", "texture")]
    return table(["method", *head], rows)


def _people(sessions: Mapping[str, Mapping[str, Any]]) -> str:
    columns = (
        "rows",
        "accepted",
        "structure_ssim",
        "changed",
        "void_fraction",
        "out_of_range",
        "sharpness",
        "detail_structure",
    )
    rows = [[name, *(cell(found[c], 4) for c in columns)] for name, found in sessions.items()]
    return table(["session", *columns], rows)


def _short(title: str) -> str:
    return title.removeprefix("Acquisition, ")
