"""Figures in; numbers, intervals and tables of Markdown out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

NONE = "–"
"""What stands in a cell that has no figure."""

# What the columns of tables by method are called, by the names that records give their measures.
TITLES = {
    "rmse_body": "RMSE, body",
    "rmse_tissue": "RMSE, labelled tissue",
    "ssim_body": "SSIM, body",
    "structure_source": "structure SSIM, source",
    "structure_clean": "structure SSIM, noiseless truth",
    "texture_ratio": "texture ratio",
    "texture": "texture ratio",
    "vendor_gain": "vendor gain",
    "psnr_db_body": "PSNR dB, body",
    "rmse_lesion": "RMSE, lesion",
    "ssim_lesion": "SSIM, lesion",
    "referee_dice": "referee's Dice",
    "fat": "Dice, fat",
    "fibroglandular": "Dice, fibroglandular",
    "dice": "Dice",
    "sensitivity": "sensitivity",
    "precision": "precision",
    "rmse_brain": "RMSE, brain",
    "ssim_brain": "SSIM, brain",
    "spearman": "Spearman with truth",
    "right_sign": "right sign",
    "monotone": "monotone",
    "true_monotone": "truth monotone",
    "z_difference": "difference along z, of the truth's",
    "rmse": "RMSE",
    "seconds_per_slice": "s per slice",
    "frechet": "Fréchet",
    "ratio": "Fréchet ÷ upper end of real–real",
    "real_real": "real–real",
    "memorised": "memorised",
    "empty": "empty",
    "nested": "nested",
    "ks_volume": "KS volume",
    "ks_components": "KS components",
    "ks_place": "KS place",
    "tumor_residual": "residual",
    "void_fraction": "holes",
    "diffmap_iou": "difference map's IoU",
    "rmse_outside": "RMSE, outside",
    "rmse_new": "RMSE, new lesion",
    "ssim_new": "SSIM, new lesion",
    "rmse_margin": "RMSE, beside it",
    "rmse_old": "RMSE, old place",
    "old_residual": "residual, old place",
    "changed_outside": "largest change outside",
    "change": "change",
    "true_change": "true change",
}


def number(value: float, digits: int = 3, sign: bool = False) -> str:
    """A number with so many decimals, halves rounded up, and a true minus; 0 has no sign."""
    exact = Decimal(repr(float(value))).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP)
    text = f"{exact:+f}" if sign else f"{exact:f}"
    if not float(text):
        text = text.lstrip("+-")
    return text.replace("-", "−")


def interval(found: Mapping[str, float], digits: int = 3, sign: bool = False) -> str:
    """An estimate with its interval: `0.43 [0.38, 0.49]`."""
    low, high = number(found["low"], digits), number(found["high"], digits)
    return f"{number(found['estimate'], digits, sign)} [{low}, {high}]"


def cell(found: Any, digits: int = 3) -> str:
    """A figure as a cell: an interval, a number, a text, or nothing."""
    if found is None:
        return NONE
    if isinstance(found, Mapping):
        return interval(found, digits)
    if isinstance(found, bool):
        return "yes" if found else "no"
    if isinstance(found, float):
        return number(found, digits)
    return f"{found:,}" if isinstance(found, int) else str(found)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of Markdown; `|` in a cell is escaped."""
    lines = [head, ["---"] * len(head), *rows]
    assert all(len(line) == len(head) for line in lines)
    return "\n".join(f"| {' | '.join(text.replace('|', chr(92) + '|') for text in line)} |" for line in lines)


def by_method(methods: Mapping[str, Mapping[str, Any]], measures: Sequence[str] = (), digits: int = 3) -> str:
    """One row for each method, one column for each measure (all of the first method's where none is named)."""
    measures = measures or list(next(iter(methods.values())))
    rows = [[name, *(cell(found.get(m), digits) for m in measures)] for name, found in methods.items()]
    return table(["method", *(TITLES.get(m, m) for m in measures)], rows)


def targets(found: Iterable[Mapping[str, Any]]) -> str:
    """What was to be reached, what was, and whether; the bound was set before the figure was measured."""
    rows = []
    for target in found:
        bound = f"{'≤' if target['at_most'] else '≥'} {target['bound']:g}"
        rows.append([target["name"], bound, cell(target["found"]), "met" if target["met"] else "missed"])
    return table(["target", "bound", "found", ""], rows)


def counts(found: Mapping[str, Mapping[str, int]], first: str) -> str:
    """Counts by row and column; columns that are 0 everywhere stay, since that is what they say."""
    columns = list(next(iter(found.values())))
    return table([first, *columns], [[name, *(f"{row[c]:,}" for c in columns)] for name, row in found.items()])
