"""A survey of lesions in; a table and a plot of their contrast and volume by site, figures as JSON, and a bank, out."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from matplotlib.figure import Figure as Canvas

from augengine.acquisition_terms import manufacturer
from augengine.diffusion.checkpoint import save_model, subject_hash
from augengine.diffusion.intensity_spec import IntensitySpec
from augengine.diffusion.lesion_bank import LesionBankSpec, bank_weights
from augengine.diffusion.spec import ModelSpec
from augengine.edits.lesion_insertion import LEAST_BODY, LEAST_BRIGHTNESS, MOST_ROUGHNESS
from augengine.errors import DataError
from augengine.io.store import Store
from augengine.metrics.lesion_survey import LesionSurvey, Patient

JSON, PLOT, BANK = "lesions.json", "lesions.png", "bank"
FAINT = (0.8, 1.25)
"""A lesion whose ratio lies between these in every channel is faint."""
# Of rows with lesions: what share may be smaller than the least body, or rougher than the roughest.
_LEAST, _MOST = 2.0, 90.0


def site_rows(survey: LesionSurvey) -> tuple[list[str], list[list[str]]]:
    """Column names, and a row for each site: patients, rows with lesions, volume, and the ratio of each channel.

    Medians over patients with a lesion, with quartiles.
    """
    head = ["site", "patients", "with lesion", "rows with lesion", "volume ml", *survey.channels, "faint"]
    sites = sorted({patient.site for patient in survey.patients.values()})
    rows = []
    for site in sites:
        own = [p for p in survey.patients.values() if p.site == site]
        ill = [p for p in own if p.lesion_rows]
        share = sum(p.lesion_rows for p in own) / max(1, sum(p.rows for p in own))
        ratios = [[p.contrast.ratios[c] for p in ill] for c in range(len(survey.channels))]
        rows.append(
            [
                site or "not stated",
                str(len(own)),
                str(len(ill)),
                f"{share:.0%}",
                _quartiles([p.volume_ml for p in ill]),
                *(_quartiles(values) for values in ratios),
                str(sum(faint(p) for p in ill)),
            ]
        )
    return head, rows


def faint(patient: Patient) -> bool:
    """True if no channel shows the lesions clearly."""
    return bool(patient.contrast.voxels) and all(FAINT[0] < ratio < FAINT[1] for ratio in patient.contrast.ratios)


def write_survey(survey: LesionSurvey, about: Mapping[str, Any], store: Store) -> list[str]:
    """Write figures and plot; returns their paths. Patients stand by their pseudonymous ids."""
    patients = {
        name: {
            **{k: v for k, v in asdict(p).items() if k != "contrast"},
            "ratio": {
                c: None if math.isnan(r) else round(r, 4)
                for c, r in zip(survey.channels, p.contrast.ratios, strict=True)
            },
        }
        for name, p in sorted(survey.patients.items())
    }
    store.write_json(JSON, {"about": dict(about), "patients": patients, "faint_between": list(FAINT)})
    store.write(PLOT, _plot(survey))
    return [store.path(JSON), store.path(PLOT)]


def write_bank(survey: LesionSurvey, asked: Sequence[str], labels: Sequence[str], size: int, store: Store) -> ModelSpec:
    """Write the sample of training lesions as a checkpoint of kind lesion_bank into the folder `bank`.

    Args:
        survey: made with the labels `asked` and boxes of `size` voxels.
        labels: those of `asked` that rows know, in its order.

    Raises:
        DataError: no lesion was kept.
    """
    if not survey.lesions:
        raise DataError(
            "a bank needs lesions of training subjects",
            found=f"none that fits {size} voxels, {survey.too_large} larger",
            next_step="raise --box, lower --least-ml, or check the splits of the data",
        )
    table = np.array([0, *(labels.index(name) + 1 if name in labels else 0 for name in asked)], np.uint8)
    crops = [replace(found.crop, label=table[found.crop.label]) for found in survey.lesions]
    bodies, brightness, roughness = (np.array([r[n] for r in survey.recipients]) for n in (1, 2, 3))
    makers = [found.manufacturer for found in survey.lesions]
    spec = ModelSpec(
        kind="lesion_bank",
        network=LesionBankSpec(lesions=len(survey.lesions), size=size),
        channels=survey.channels,
        labels=tuple(labels),
        lesion=tuple(labels),
        image_size=survey.shape,
        spacing_mm=survey.spacing_mm,
        intensity=IntensitySpec.model_validate(asdict(survey.rule)),
        subject_hashes=tuple(sorted({subject_hash(found.subject_id) for found in survey.lesions})),
        manufacturers=tuple(sorted({manufacturer(m) for m in makers if m})) if all(makers) else None,
        metrics={
            LEAST_BODY: float(np.percentile(bodies, _LEAST)),
            LEAST_BRIGHTNESS: float(np.percentile(brightness, _LEAST)),
            MOST_ROUGHNESS: float(np.percentile(roughness, _MOST)),
        },
        recipe="lesion_bank",
    )
    return save_model(store.folder(BANK), spec, bank_weights(crops))


def _quartiles(values: list[float]) -> str:
    known = [v for v in values if not math.isnan(v)]
    if not known:
        return "–"
    low, middle, high = np.percentile(known, (25, 50, 75))
    return f"{middle:.3g} [{low:.3g}, {high:.3g}]"


def _plot(survey: LesionSurvey) -> bytes:
    """A panel per channel: each patient's ratio against the volume, a colour per site, the faint ones between lines."""
    ill = [p for p in survey.patients.values() if p.contrast.voxels]
    sites = sorted({p.site for p in ill})
    canvas = Canvas(figsize=(4.5 * len(survey.channels), 3.6), layout="constrained")
    for n, channel in enumerate(survey.channels):
        axes = canvas.add_subplot(1, len(survey.channels), n + 1)
        for k, site in enumerate(sites):
            own = [p for p in ill if p.site == site]
            axes.scatter(
                [p.volume_ml for p in own],
                [p.contrast.ratios[n] for p in own],
                s=14,
                color=f"C{k}",
                label=site or "not stated",
            )
        for level in FAINT:
            axes.axhline(level, color="0.7", linewidth=0.8)
        axes.set(xscale="log", yscale="log", xlabel="lesion volume of the patient, ml", title=channel)
        axes.set_ylabel("lesion / ring")
        if len(sites) > 1 and n == 0:
            axes.legend(frameon=False)
    png = io.BytesIO()
    canvas.savefig(png, dpi=110)
    return png.getvalue()
