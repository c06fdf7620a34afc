"""Segmentation by counterfactuals (paper 000): promptable against plain, UNet and DiT, on held-out phantom subjects.

    python benchmarks/pcf_segmentation.py

Plain: the whole slice noised to .75 of the chain and denoised as "healthy" under guidance. Promptable: the same, but
what lies outside the prompt is held at its known value at every step. Prompts are boxes or dilations of the true
lesion, so the baseline that copies the prompt stands beside them; Dice by patient with bootstrap intervals.
Trains what is missing.
"""

from __future__ import annotations

import dataclasses
import zlib

import numpy as np
import torch
from _generators import Row, batches, flags, model, rows
from _record import RESULTS, record
from matplotlib.figure import Figure

from augengine import rng
from augengine.diffusion.checkpoint import Generator, untrained
from augengine.diffusion.guidance import Guidance
from augengine.diffusion.painting import Sampling, counterfactual, healthy, paint
from augengine.downstream.segmenters.pcf import PAPER, PromptKind, Vote, copy_the_prompt, prompt, segment
from augengine.metrics.intervals import bootstrap_interval, paired_interval, per_subject
from augengine.metrics.overlap import dice
from augengine.report.console import console, stage, table

MARGIN_MM = 6.0
STRENGTH, STEPS, GUIDANCE = 0.75, 25, 3.0
PROMPTS: tuple[PromptKind, ...] = ("box", "dilated")
TARGET_RATIO = 1.5


def main() -> None:
    """Segment, measure, print, draw and record."""
    parser = flags(__doc__)
    parser.add_argument("--per-subject", type=int, default=3, help="slices of each subject")
    given = parser.parse_args()
    generators = {name: model(given.root, name) for name in ("pcf_unet", "pcf_dit")}
    generators["pcf_unet, untrained"] = untrained(generators["pcf_unet"], seed=1)
    test = list(rows(given.root, "brain", "test", with_truth=True, per_subject=given.per_subject, min_lesion=20))
    subjects = [r.sample.subject_id for r in test]
    found: dict[str, list[float]] = {}
    shown: dict[str, list[np.ndarray]] = {}

    def add(name: str, masks: list[np.ndarray]) -> None:
        found[name] = [dice(mask, row.lesion) for mask, row in zip(masks, test, strict=True)]
        shown[name] = masks

    with stage("segmentation") as report:
        for kind in PROMPTS:
            add(f"copy the prompt, {kind}", [copy_the_prompt(p) for p in _prompts(test, kind)])
            add(f"true counterfactual, {kind}", _votes(test, [r.truth for r in test], _prompts(test, kind), Vote()))
        add("true counterfactual, none", _votes(test, [r.truth for r in test], _prompts(test, "none"), Vote()))
        for n, (name, generator) in enumerate(generators.items()):
            report(n, len(generators), {"model": name})
            plain = _counterfactuals(generator, test, None)
            add(f"{name}, plain", _votes(test, plain, _prompts(test, "none"), Vote()))
            add(f"{name}, plain, paper's vote", _votes(test, plain, _prompts(test, "none"), PAPER))
            for kind in PROMPTS:
                prompts = _prompts(test, kind)
                images = _counterfactuals(generator, test, prompts)
                add(f"{name}, {kind}", _votes(test, images, prompts, Vote()))
                add(f"{name}, {kind}, paper's vote", _votes(test, images, prompts, PAPER))
    means = {name: per_subject(values, subjects) for name, values in found.items()}
    figures = {
        name: dataclasses.asdict(bootstrap_interval(values, rng=rng.generator("pcf", name)))
        for name, values in means.items()
    }
    ratios = {}
    for name in ("pcf_unet", "pcf_dit"):
        for kind in PROMPTS:
            for vote in ("", ", paper's vote"):
                pair = f"{name}, {kind}{vote}"
                interval = paired_interval(
                    means[pair], means[f"{name}, plain{vote}"], "ratio", rng=rng.generator("pcf ratio", pair)
                )
                ratios[pair] = {**dataclasses.asdict(interval), "met": interval.estimate >= TARGET_RATIO}
    lines = [[name, f"{v['estimate']:.3f} [{v['low']:.3f}, {v['high']:.3f}]"] for name, v in figures.items()]
    table(f"Dice on {len(test)} slices of {len(set(subjects))} test subjects", ["method", "mean [95 %]"], lines)
    lines = [[name, f"{v['estimate']:.2f} [{v['low']:.2f}, {v['high']:.2f}]", v["met"]] for name, v in ratios.items()]
    table(f"Promptable / plain, target {TARGET_RATIO}", ["method", "ratio [95 %]", "met"], lines)
    _draw(test, shown)
    console.print(record("pcf_segmentation", {"slices": len(test), "dice": figures, "promptable_over_plain": ratios}))


def _prompts(test: list[Row], kind: PromptKind) -> list[np.ndarray]:
    return [prompt(kind, r.lesion, r.sample.spacing_mm[:2], MARGIN_MM, brain=r.brain) for r in test]


def _votes(test: list[Row], images: list, prompts: list[np.ndarray], vote: Vote) -> list[np.ndarray]:
    return [
        segment(row.image, image, asked, vote, brain=row.brain)
        for row, image, asked in zip(test, images, prompts, strict=True)
    ]


def _counterfactuals(generator: Generator, test: list[Row], prompts: list[np.ndarray] | None) -> list[np.ndarray]:
    """Healthy versions of all rows: of the whole slice, or inside the prompts."""
    sampling = Sampling(solver="ddim", steps=STEPS, strength=STRENGTH, guidance=Guidance(GUIDANCE))
    out: list[np.ndarray] = []
    for places in batches(list(range(len(test)))):
        part = [test[n] for n in places]
        x = torch.from_numpy(np.stack([r.image for r in part]))
        seeds = [zlib.crc32(r.sample.sample_id.encode()) for r in part]
        tissue = torch.from_numpy(np.stack([r.tissue for r in part]))
        edit = torch.from_numpy(
            np.stack([r.brain if prompts is None else prompts[n] for r, n in zip(part, places, strict=True)])
        )
        wanted = healthy(generator, tissue, edit[:, None])
        if prompts is None:
            drawn = counterfactual(generator, x, wanted, seeds, sampling)
        else:
            # From pure noise: what lies inside the prompt must not be remembered.
            inside = dataclasses.replace(sampling, strength=1.0, solver="ddpm")
            drawn = paint(generator, x, edit[:, None], wanted, seeds, inside)
        out += list(drawn.numpy())
    return out


def _draw(test: list[Row], shown: dict[str, list[np.ndarray]]) -> None:
    """Masks of a few rows on FLAIR, truth in orange."""
    names = [n for n in shown if "paper" not in n]
    picks = np.linspace(0, len(test) - 1, 3).round().astype(int)
    figure = Figure(figsize=(1.6 * len(names), 5.2), layout="constrained")
    for line, pick in zip(figure.subplots(len(picks), len(names)), picks, strict=True):
        for axis, name in zip(line, names, strict=True):
            axis.imshow(test[pick].image[-1].T, cmap="gray", vmin=-0.1, vmax=1.3, origin="lower")
            for mask, colour in ((shown[name][pick], "deepskyblue"), (test[pick].lesion, "orange")):
                axis.contour(mask.T, levels=[0.5], colors=colour, linewidths=0.8)
            axis.set_axis_off()
            axis.set_title(name if pick == picks[0] else "", fontsize=6)
    figure.savefig(RESULTS / "pcf_segmentation.png", dpi=90)


if __name__ == "__main__":
    main()
