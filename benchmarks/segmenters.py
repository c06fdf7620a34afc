"""The papers' segmenters against what they have to beat, on a cohort that no network of theirs was trained on.

    python benchmarks/segmenters.py [--subjects 30]

DMCIE against the U-Nets whose masks it corrects (paper 003), the ensemble of LDM-seg against its single samples (paper
002), PCF within a predicted prompt and within the true lesion's box against the plain counterfactual and against the
prompt itself (paper 000). Whole tumour, a subject's slices taken together; by subject, paired. Trains what is missing.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from _generators import Row, batches, flags, model, regions, rows
from _record import record

from augengine.diffusion.guidance import Guidance
from augengine.diffusion.painting import Sampling
from augengine.downstream.segmenters.dmcie import Dmcie
from augengine.downstream.segmenters.ldm_seg import LdmSeg
from augengine.downstream.segmenters.pcf import Pcf, PcfOptions, copy_the_prompt, prompt
from augengine.downstream.segmenters.unet import UNet
from augengine.metrics.overlap import dice
from augengine.report.comparison import Comparison, draw, intervals, target
from augengine.report.console import console, stage

SLICES, ENSEMBLE, BOX_MARGIN_MM = 3, 9, 6.0
TUMOUR = {"whole_tumour": ("necrosis", "oedema", "enhancing")}
PCF = PcfOptions(
    prompted=Sampling(solver="ddpm", steps=25, guidance=Guidance(3.0)),
    plain=Sampling(solver="ddim", steps=25, strength=0.75, guidance=Guidance(3.0)),
)
MEASURES = {"dice": "Dice", "sensitivity": "sensitivity", "precision": "precision"}
TO_BEAT = {
    "DMCIE": "DMCIE's own U-Nets",
    f"LDM-seg, {ENSEMBLE} samples": "LDM-seg, one sample",
    "PCF, predicted prompt": "PCF, plain",
    "PCF, predicted prompt ": "the predicted prompt, copied",
    "PCF, box of the truth": "PCF, plain",
    "PCF, box of the truth ": "the box, copied",
}
"""Whose Dice is compared with whose; a space at the end tells two comparisons of one method apart."""
Masks = list[np.ndarray]
"""Bool (I, J) of every row."""


def main() -> None:
    """Predict, compare, print, draw and record."""
    parser = flags(__doc__)
    parser.add_argument("--subjects", type=int, default=30, help="of the held-out cohort")
    given = parser.parse_args()
    test = list(rows(given.root, "held_out", "all", with_truth=False, per_subject=SLICES, min_lesion=5))
    subjects = sorted({r.sample.subject_id for r in test})[: given.subjects]
    test = [r for r in test if r.sample.subject_id in subjects]
    masks: dict[str, Masks] = {}
    for name, predict in (("DMCIE", _dmcie), ("LDM-seg", _ldm_seg), ("PCF", _pcf)):
        with stage(name):
            masks |= predict(given.root, test)
    truth = [regions(r, TUMOUR)[0] for r in test]
    found = {name: _measured(test, subjects, made, truth) for name, made in masks.items()}
    targets = tuple(
        target(
            f"Dice, {ours.strip()} − {other}",
            found[ours.strip()]["dice"],
            found[other]["dice"],
            subjects,
            0.0,
            ratio=False,
            at_most=False,
        )
        for ours, other in TO_BEAT.items()
    )
    picks = np.linspace(0, len(test) - 1, 4).round().astype(int)
    shown = {"FLAIR": [r.image[-1] for r in test], "truth": truth, **masks}
    comparison = Comparison(
        f"Whole tumour, {len(test)} slices of {len(subjects)} held-out subjects",
        MEASURES,
        intervals(found, subjects),
        targets,
        {"ensemble": ENSEMBLE},
        {name: [images[p] for p in picks] for name, images in shown.items()},
    )
    comparison.show()
    path = record("segmenters", comparison.to_dict())
    path.with_suffix(".png").write_bytes(draw([comparison]))
    console.print(path)


def _masks(test: list[Row], predict: Callable[[np.ndarray], np.ndarray]) -> Masks:
    """The first region of what a segmenter's `predict` says of every row."""
    return [mask for part in batches(test) for mask in predict(np.stack([r.image for r in part]))[:, 0] > 0.5]


def _dmcie(root: str, test: list[Row]) -> dict[str, Masks]:
    corrector = Dmcie(model(root, "dmcie"))
    return {"DMCIE's own U-Nets": _masks(test, corrector.initial), "DMCIE": _masks(test, corrector.predict)}


def _ldm_seg(root: str, test: list[Row]) -> dict[str, Masks]:
    generator = model(root, "ldm_seg")
    return {
        "LDM-seg, one sample": _masks(test, LdmSeg(generator, samples=1).predict),
        f"LDM-seg, {ENSEMBLE} samples": _masks(test, LdmSeg(generator, samples=ENSEMBLE).predict),
    }


def _pcf(root: str, test: list[Row]) -> dict[str, Masks]:
    """`predict` sees no truth; the boxes show it in part, so that their copy stands beside them."""
    prompter = model(root, "fold_0")
    pcf = Pcf(model(root, "pcf_unet"), prompter, PCF)
    boxes = [prompt("box", r.lesion, r.sample.spacing_mm[:2], BOX_MARGIN_MM, brain=r.brain) for r in test]
    within: Masks = []
    for part in batches(list(zip(test, boxes, strict=True))):
        images, given = (np.stack(of) for of in ([r.image for r, _ in part], [box for _, box in part]))
        within += list(pcf.predict_within(images, given)[:, 0] > 0.5)
    return {
        "the prompter, a U-Net": _masks(test, UNet(prompter).predict),
        "PCF, plain": _masks(test, lambda images: pcf.predict_within(images, None)),
        "the predicted prompt, copied": _masks(test, lambda images: pcf.predicted_prompts(images)[:, None]),
        "PCF, predicted prompt": _masks(test, pcf.predict),
        "the box, copied": [copy_the_prompt(box) for box in boxes],
        "PCF, box of the truth": within,
    }


def _measured(test: list[Row], subjects: list[str], made: Masks, truth: Masks) -> dict[str, list[float]]:
    """Every measure, one value per subject over all of its slices."""
    values: dict[str, list[float]] = {name: [] for name in MEASURES}
    for subject in subjects:
        own = [n for n, r in enumerate(test) if r.sample.subject_id == subject]
        found, true = np.stack([made[n] for n in own]), np.stack([truth[n] for n in own])
        both = np.count_nonzero(found & true)
        values["dice"].append(dice(found, true))
        values["sensitivity"].append(both / np.count_nonzero(true))
        values["precision"].append(both / np.count_nonzero(found) if found.any() else np.nan)
    return values


if __name__ == "__main__":
    main()
