"""A brain anatomy and a site in, the four co-registered MR channels of a BraTS case out.

Rendering with and without the lesion gives a true removal pair; rendering at two sites a true site pair.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from augengine.phantom import physics
from augengine.phantom.brain_anatomy import LESION_LABELS, TISSUE_LABELS, BrainAnatomy, Labels
from augengine.phantom.tissues import TISSUES
from augengine.random_fields import smooth_field
from augengine.records import Acquisition, Sample
from augengine.rng import generator

CHANNELS = ("t1", "t1c", "t2", "flair")
BLOOD_CONTRAST_MMOL_L = 1.0  # shortly after injection [E]
_TISSUE_OF_PART = {"core": "tumour", "necrosis": "necrosis", "enhancing": "tumour", "oedema": "oedema"}


@dataclass(frozen=True)
class Sequence:
    """Spin echo, or inversion recovery where `inversion_time_ms` is set."""

    repetition_time_ms: float
    echo_time_ms: float
    inversion_time_ms: float | None = None

    def signal(self, tissue: str, field_strength_t: float, t1_scale: float, contrast_mmol_l: float) -> float:
        """Signal of a pure tissue, in units of the equilibrium magnetisation of fat or water."""
        entry = TISSUES[tissue]
        t1 = physics.contrast_enhanced_t1_ms(entry.t1_ms(field_strength_t) * t1_scale, contrast_mmol_l)
        t2 = entry.t2_ms(field_strength_t)
        if self.inversion_time_ms is None:
            return float(
                physics.spin_echo(
                    entry.pd.value,
                    t1,
                    t2,
                    repetition_time_ms=self.repetition_time_ms,
                    echo_time_ms=self.echo_time_ms,
                )
            )
        return float(
            physics.inversion_recovery(
                entry.pd.value,
                t1,
                t2,
                repetition_time_ms=self.repetition_time_ms,
                echo_time_ms=self.echo_time_ms,
                inversion_time_ms=self.inversion_time_ms,
            )
        )


@dataclass(frozen=True)
class Site:
    """One hospital: scanner, sequences by channel, and how its images look.

    Attributes:
        noise: SD relative to the brightest percent of the channel.
        bias: SD of the logarithm of the coil field.
        sharpness_mm: SD of the in-plane point spread.
        full_scale: intensity that the brightest percent of a channel is scaled to.
    """

    name: str
    acquisition: Acquisition
    sequences: dict[str, Sequence]
    noise: float
    bias: float
    sharpness_mm: float
    full_scale: float


def _scanner(manufacturer: str, model: str, field_strength_t: float, slice_thickness_mm: float) -> Acquisition:
    return Acquisition(
        manufacturer=manufacturer,
        model=model,
        field_strength_t=field_strength_t,
        slice_thickness_mm=slice_thickness_mm,
    )


# Typical clinical protocols [E]; FLAIR of "north" as in the signal equation's source.
SITES: dict[str, Site] = {
    "north": Site(
        "north",
        _scanner("GE MEDICAL SYSTEMS", "Signa HDxt", 1.5, 3.0),
        {
            "t1": Sequence(2000, 4, 800),
            "t1c": Sequence(600, 12),
            "t2": Sequence(5000, 102),
            "flair": Sequence(9000, 120, 2500),
        },
        noise=0.018,
        bias=0.10,
        sharpness_mm=0.8,
        full_scale=1400.0,
    ),
    "south": Site(
        "south",
        _scanner("SIEMENS", "TrioTim", 3.0, 1.0),
        {
            "t1": Sequence(2300, 3, 1100),
            "t1c": Sequence(2300, 3, 1100),
            "t2": Sequence(6000, 88),
            "flair": Sequence(8500, 135, 2440),
        },
        noise=0.012,
        bias=0.20,
        sharpness_mm=0.55,
        full_scale=520.0,
    ),
    "west": Site(
        "west",
        _scanner("Philips Medical Systems", "Ingenia", 3.0, 5.0),
        {
            "t1": Sequence(1900, 8, 950),
            "t1c": Sequence(480, 15),
            "t2": Sequence(3200, 80),
            "flair": Sequence(11000, 125, 2800),
        },
        noise=0.035,
        bias=0.28,
        sharpness_mm=1.1,
        full_scale=900.0,
    ),
}


def render(
    anatomy: BrainAnatomy,
    site: Site,
    *,
    noise_seed: int,
    bias_seed: int,
    subject_id: str,
    volume_id: str | None = None,
    lesion: bool = True,
    noise: bool = True,
    labels: Labels = "lesion",
) -> Sample:
    """Scan a subject.

    Args:
        anatomy: the subject.
        site: where; see `SITES`.
        noise_seed, bias_seed: seeds of the receiver noise and of the coil field.
        subject_id, volume_id: written to the sample; the volume takes the subject's id by default.
        lesion: False renders the same subject without the tumour.
        noise: False gives the noiseless truth.
        labels: what the label map holds: parts of the tumour in BraTS-2021 codes, or these over CSF, grey and white
            matter (`TISSUE_LABELS`). The image does not depend on it.

    Returns:
        A volume (4, I, J, K) of whole numbers, channels t1, t1c, t2, flair, 0 outside the brain, with its label map.
        Acquisition holds the fields that all channels share.
    """
    shown = anatomy if lesion else anatomy.without_lesion()
    voxel = anatomy.affine[0, 0]
    shape, spacing = anatomy.fractions["csf"].shape, tuple(np.diag(anatomy.affine)[:3])
    noises, biases = generator("brain noise", noise_seed), generator("brain bias", bias_seed)
    mask = anatomy.brain_mask
    image = np.zeros((len(CHANNELS), *shape), np.float32)
    for c, name in enumerate(CHANNELS):
        signal = _signal(shown, site, name)
        signal = ndimage.gaussian_filter(signal, site.sharpness_mm / voxel, axes=(0, 1), truncate=3.0)
        signal = signal * np.exp(site.bias * smooth_field(biases, shape, spacing, 120))
        # The scale comes from the healthy subject, so that a removal pair differs at the lesion alone.
        reference = float(np.percentile(_signal(anatomy.without_lesion(), site, name)[mask], 99))
        signal = signal / reference
        if noise:
            signal = physics.add_rician_noise(signal, site.noise, noises)
        image[c] = np.clip(np.rint(signal * site.full_scale * mask), 0, 32767)
    return Sample(
        image=image,
        affine=anatomy.affine.copy(),
        channels=CHANNELS,
        subject_id=subject_id,
        volume_id=volume_id or subject_id,
        label=shown.label() if labels == "lesion" else shown.tissue_map(),
        labels=LESION_LABELS if labels == "lesion" else TISSUE_LABELS,
        acquisition=site.acquisition,
        site=site.name,
    )


def _signal(anatomy: BrainAnatomy, site: Site, channel: str) -> np.ndarray:
    """Noiseless magnitude (I, J, K) of one channel before coil field and gain."""
    field, sequence, contrast = site.acquisition.field_strength_t or 1.5, site.sequences[channel], channel == "t1c"
    signal = np.zeros(anatomy.fractions["csf"].shape, np.float32)
    for name, fraction in anatomy.fractions.items():
        agent = BLOOD_CONTRAST_MMOL_L if contrast and name == "blood" else 0.0
        signal += fraction * np.float32(sequence.signal(name, field, anatomy.t1_scale.get(name, 1.0), agent))
    if not anatomy.lesion:
        return signal
    signal *= 1 - anatomy.lesion_share()
    for part, share in anatomy.lesion.items():
        tissue = _TISSUE_OF_PART[part]
        agent = anatomy.contrast_mmol_l if contrast and part == "enhancing" else 0.0
        signal += share * np.float32(sequence.signal(tissue, field, anatomy.t1_scale.get(tissue, 1.0), agent))
    return signal
