"""Tumour removal against the true healthy anatomy: M1, M2, M3 and PCF beside fills, on held-out phantom subjects.

    python benchmarks/removal_truth.py

Paper 001's table with its corrections: residual inside the lesion beside the referee's floor on truly healthy tissue,
DiffMap IoU at a threshold chosen on validation rows, error against the same subject rendered without its lesion, all
with patient-level bootstrap intervals. Trains what is missing (about half an hour on two cores).
"""

from __future__ import annotations

import dataclasses
import itertools
import zlib
from collections.abc import Callable

import numpy as np
import torch
from _generators import LESION, Row, batches, flags, model, rows
from _record import RESULTS, record
from matplotlib.figure import Figure
from scipy import ndimage
from skimage.restoration import inpaint_biharmonic

from augengine import rng
from augengine.diffusion.checkpoint import Generator, untrained
from augengine.diffusion.guidance import Guidance
from augengine.diffusion.painting import Sampling, generate, healthy, paint, unhealthy
from augengine.diffusion.segmentation import probabilities
from augengine.metrics.intervals import bootstrap_interval, paired_interval, per_subject
from augengine.metrics.removal import (
    Edited,
    choose_threshold,
    diffmap_iou,
    gen_dice,
    local_variance_ratio,
    rmse,
    tumor_residual,
    void_fraction,
    voids,
)  # fmt: skip
from augengine.report.console import console, stage, table

MARGIN = 1  # pixels of 3 mm around the lesion that are filled, too
SAMPLING = Sampling(solver="ddpm", steps=25)
GENERATORS = ("m1", "m2", "m3_paper", "m3", "pcf_unet", "pcf_dit")
TARGET_ORDER = ("m3", "m3_paper", "m2")
CLASSES = ("csf", "grey_matter", "white_matter", "tumour")
Fill = Callable[[list[Row]], np.ndarray]


def main() -> None:
    """Heal, measure, print, draw and record."""
    parser = flags(__doc__)
    parser.add_argument("--per-subject", type=int, default=4, help="slices of each subject")
    given = parser.parse_args()
    referee = model(given.root, "referee")
    generators = {name: model(given.root, name) for name in GENERATORS}
    fills: dict[str, Fill] = {
        "none": lambda chosen: np.stack([r.image for r in chosen]),
        "mean": lambda chosen: np.stack([_mean(r) for r in chosen]),
        "mirror": lambda chosen: np.stack([_mirror(r) for r in chosen]),
        "biharmonic": lambda chosen: np.stack([_biharmonic(r) for r in chosen]),
        **{name: _healed(generator) for name, generator in generators.items()},
        "m3, untrained": _healed(untrained(generators["m3"], seed=1)),
        "truth": lambda chosen: np.stack([r.truth for r in chosen]),
    }
    test = list(rows(given.root, "brain", "test", with_truth=True, per_subject=given.per_subject, min_lesion=20))
    validation = list(rows(given.root, "brain", "val", with_truth=True, per_subject=1, min_lesion=20))
    subjects = [r.sample.subject_id for r in test]
    dark = _void_level(validation)
    figures: dict[str, dict[str, object]] = {}
    residual: dict[str, dict[str, float]] = {}
    shown: dict[str, np.ndarray] = {}
    with stage("removal") as report:
        for n, (name, fill) in enumerate(fills.items()):
            report(n, len(fills), {"method": name})
            after = np.concatenate([fill(part) for part in batches(test)])
            before = [Edited(r.image, x, r.lesion) for r, x in zip(validation, _all(fill, validation), strict=True)]
            values = _measured(referee, test, after, choose_threshold(before), dark)
            if name in generators:
                values["gen_dice"] = _gen_dice(referee, generators[name], test)
            means = {measure: per_subject(found, subjects) for measure, found in values.items()}
            residual[name] = means["tumor_residual"]
            shown[name] = after
            figures[name] = {
                measure: dataclasses.asdict(bootstrap_interval(found, rng=rng.generator("removal", name, measure)))
                for measure, found in means.items()
            }
    pairs = {}
    for less, more in itertools.pairwise(TARGET_ORDER):
        interval = paired_interval(residual[less], residual[more], rng=rng.generator("removal", less, more))
        pairs[f"{less} - {more}"] = {**dataclasses.asdict(interval), "below_zero": interval.high < 0}
    columns = {"tumor_residual": "residual", "void_fraction": "void", "rmse": "RMSE", "diffmap_iou": "DiffMap IoU",
               "variance_ratio": "variance", "gen_dice": "GenDice"}  # fmt: skip
    table(
        f"Removal on {len(test)} slices of {len(set(subjects))} test subjects, mean and 95 % interval",
        ["method", *columns.values()],
        [[name, *(_text(found.get(c)) for c in columns)] for name, found in figures.items()],
    )  # fmt: skip
    for pair, found in pairs.items():
        verdict = "" if found["below_zero"] else "  (not below 0)"
        console.print(f"residual, {pair}: {found['estimate']:.3f} [{found['low']:.3f}, {found['high']:.3f}]{verdict}")
    _draw(test, shown, figures)
    console.print(
        record(
            "removal_truth",
            {"slices": len(test), "void_below": dark, "methods": figures, "residual_differences": pairs},
        )
    )


def _void_level(validation: list[Row]) -> float:
    """The intensity that one in a thousand healthy brain pixels stays below in all channels: less is a void."""
    brightest = [r.truth.max(axis=0)[r.brain] for r in validation]
    return float(np.quantile(np.concatenate(brightest), 0.001))


def _measured(
    referee: Generator, test: list[Row], after: np.ndarray, threshold: float, dark: float
) -> dict[str, list[float]]:
    """Every measure, one value per row."""
    values: dict[str, list[float]] = {}
    found = np.concatenate([_segmented(referee, part) for part in batches(list(after))])
    tumour = len(CLASSES)
    for row, image, labels in zip(test, after, found, strict=True):
        assert row.truth is not None
        healthy_side = row.brain & ~ndimage.binary_dilation(row.lesion, iterations=3)
        measured = {
            "tumor_residual": tumor_residual(labels == tumour, row.lesion, voids(image, row.brain, dark)),
            "void_fraction": void_fraction(image, row.lesion, dark),
            "rmse": rmse(image, row.truth, row.lesion),
            "diffmap_iou": diffmap_iou(row.image, image, row.lesion, threshold),
            "variance_ratio": local_variance_ratio(image, row.lesion, healthy_side),
        }
        for name, value in measured.items():
            values.setdefault(name, []).append(value)
    return values


def _segmented(referee: Generator, images: list[np.ndarray]) -> np.ndarray:
    """Class numbers (B, I, J): 0 background, then `CLASSES`."""
    with torch.no_grad():
        found = probabilities(referee.spec, referee.network(torch.from_numpy(np.stack(images))))
    background = 1 - found.sum(1, keepdim=True)
    return torch.cat([background, found], dim=1).argmax(1).numpy()


def _prompt(chosen: list[Row]) -> torch.Tensor:
    grown = [ndimage.binary_dilation(r.lesion, iterations=MARGIN) for r in chosen]
    return torch.from_numpy(np.stack(grown))[:, None]


def _seeds(chosen: list[Row]) -> list[int]:
    return [zlib.crc32(r.sample.sample_id.encode()) for r in chosen]


def _healed(generator: Generator) -> Fill:
    guidance = Guidance(2.0) if generator.spec.kind == "counterfactual" else Guidance()

    def fill(chosen: list[Row]) -> np.ndarray:
        x, edit = torch.from_numpy(np.stack([r.image for r in chosen])), _prompt(chosen)
        tissue = torch.from_numpy(np.stack([r.tissue for r in chosen]))
        wanted = healthy(generator, tissue, edit)
        sampling = dataclasses.replace(SAMPLING, guidance=guidance)
        return paint(generator, x, edit, wanted, _seeds(chosen), sampling).numpy()

    return fill


def _gen_dice(referee: Generator, generator: Generator, test: list[Row]) -> list[float]:
    """Whole images drawn for the rows' masks (or for none), judged by the referee."""
    found: list[float] = []
    groups = {**{name: (name,) for name in CLASSES[:-1]}, "tumour": LESION}
    for part in batches(test):
        tissue = torch.from_numpy(np.stack([r.tissue for r in part]))
        drawn = generate(generator, unhealthy(generator, tissue), _seeds(part), SAMPLING).numpy()
        for row, labels in zip(part, _segmented(referee, list(drawn)), strict=True):
            asked = np.zeros_like(labels)
            for code, names in enumerate(groups.values(), 1):
                asked[np.isin(row.sample.label, [row.sample.labels[n] for n in names])] = code
            found.append(gen_dice(labels, asked, {name: code for code, name in enumerate(groups, 1)}))
    return found


def _mean(row: Row) -> np.ndarray:
    edit = _prompt([row])[0, 0].numpy()
    filled = row.image.copy()
    filled[:, edit] = row.image[:, row.brain & ~edit].mean(axis=1, keepdims=True)
    return filled


def _mirror(row: Row) -> np.ndarray:
    edit = _prompt([row])[0, 0].numpy()
    return np.where(edit, row.image[:, ::-1], row.image)


def _biharmonic(row: Row) -> np.ndarray:
    edit = _prompt([row])[0, 0].numpy()
    filled = inpaint_biharmonic(row.image, edit, channel_axis=0).astype(np.float32)
    return np.where(edit, filled, row.image)


def _all(fill: Fill, chosen: list[Row]) -> np.ndarray:
    return np.concatenate([fill(part) for part in batches(chosen)])


def _text(found: object) -> str:
    if not isinstance(found, dict):
        return "–"
    low, high = (f"{found[end]:.2f}".replace("0.", ".") for end in ("low", "high"))
    return f"{found['estimate']:.3f}\n{low}–{high}"


def _draw(test: list[Row], shown: dict[str, np.ndarray], figures: dict[str, dict[str, object]]) -> None:
    """FLAIR of a few rows under every method, and the residuals with their intervals."""
    picks = np.linspace(0, len(test) - 1, 4).round().astype(int)
    figure = Figure(figsize=(1.5 * len(shown), 8.5), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(4, 1.4))
    axes = top.subplots(len(picks), len(shown))
    for line, pick in zip(axes, picks, strict=True):
        for axis, (name, images) in zip(line, shown.items(), strict=True):
            axis.imshow(images[pick, -1].T, cmap="gray", vmin=-0.1, vmax=1.3, origin="lower")
            axis.contour(test[pick].lesion.T, levels=[0.5], colors="orange", linewidths=0.5)
            axis.set_axis_off()
            axis.set_title(name if pick == picks[0] else "", fontsize=7)
    axis = bottom.subplots()
    for place, found in enumerate(figures.values()):
        value = found["tumor_residual"]
        assert isinstance(value, dict)
        axis.plot([place, place], [value["low"], value["high"]], color="tab:blue")
        axis.plot(place, value["estimate"], "o", color="tab:blue")
    axis.set_xticks(range(len(figures)), list(figures), fontsize=7)
    axis.set_ylabel("tumour residual", fontsize=7)
    figure.savefig(RESULTS / "removal_truth.png", dpi=90)


if __name__ == "__main__":
    main()
