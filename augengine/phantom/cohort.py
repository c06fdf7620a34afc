"""A cohort description in, scans and exact counterfactual truths out; everything follows from the description."""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from augengine.phantom.breast import render
from augengine.phantom.breast_anatomy import BreastAnatomy, draw_breast
from augengine.phantom.protocols import (
    GE,
    SIEMENS,
    draw_protocol,
    duke_at_hand,
    duke_protocols,
    plausible_protocols,
    without_fat_saturation,
)
from augengine.phantom.subjects import Subjects
from augengine.records import Acquisition, Sample
from augengine.rng import derive, digest, generator
from augengine.yaml_config import unset

Share = Annotated[float, Field(ge=0, le=1)]
Swept = Literal["echo_time_ms", "repetition_time_ms", "flip_angle_deg"]


class Cohort(Subjects):
    """A cohort of phantom subjects, as JSON-able as it is small.

    Subject i depends on `seed` and i alone, so a larger cohort begins with the subjects of a smaller one.
    """

    PREFIX: ClassVar[str] = "Breast_MRI_"
    FIRST: ClassVar[int] = 1
    DIGITS: ClassVar[int] = 3

    kind: Literal["breast"] = "breast"
    matrix: int = Field(128, ge=32, le=512, description="voxels along i and along j")
    slices: int = Field(24, ge=1, le=256)
    slice_spacing_mm: float | None = Field(None, gt=0, le=20, description="None: 4 mm, more for coarse voxels")
    lesion_fraction: float = Field(0.3, ge=0, le=1, description="share of subjects with a lesion")
    lesion_label: bool = Field(False, description="give the lesion its own label instead of fibroglandular")
    no_fat_saturation_fraction: Share | dict[str, Share] = Field(
        0.5, description="share scanned without fat saturation; by manufacturer, where their habits differ"
    )
    siemens_fraction: float | None = Field(None, ge=0, le=1, description="share of Siemens scans; None: as in Duke")
    independent: dict[Swept, tuple[float, float]] = Field(
        {},
        exclude_if=unset,
        description="ranges of parameters that vary alone, uniformly; in Duke scanners couple them",
    )

    protocols: Literal["plausible"] | None = Field(
        None,
        exclude_if=unset,
        description="plausible: the package's invented protocols; None: Duke's, which must be at hand. Without Duke's "
        "table it is plausible",
    )

    @model_validator(mode="before")
    @classmethod
    def _at_hand(cls, values: Any) -> Any:
        """Stated, so that phantoms of the two tables never pass for each other."""
        if isinstance(values, dict) and values.get("protocols") is None and not duke_at_hand():
            return {**values, "protocols": "plausible"}
        return values

    @field_validator("no_fat_saturation_fraction")
    @classmethod
    def _manufacturers(cls, share: float | dict[str, float]) -> float | dict[str, float]:
        if isinstance(share, dict) and (unknown := share.keys() - {GE, SIEMENS}):
            raise ValueError(f"unknown manufacturer {min(unknown)!r}; known: {GE}, {SIEMENS}")
        return share

    @field_validator("independent")
    @classmethod
    def _ranges(cls, ranges: dict[Swept, tuple[float, float]]) -> dict[Swept, tuple[float, float]]:
        for name, (low, high) in ranges.items():
            if not 0 < low < high:
                raise ValueError(f"the range of {name} rises from above 0, found {low:g} to {high:g}")
        return ranges

    def acquisition(self, index: int) -> Acquisition:
        """The protocol that subject `index` is scanned with."""
        self._check(index)
        rng = generator(self.seed, index, "acquisition")
        manufacturer = None
        if self.siemens_fraction is not None:
            manufacturer = SIEMENS if rng.random() < self.siemens_fraction else GE
        table = plausible_protocols() if self.protocols else duke_protocols()
        acquisition = draw_protocol(rng, manufacturer=manufacturer, protocols=table)
        alone = {name: round(float(rng.uniform(*self.independent[name])), 3) for name in sorted(self.independent)}
        acquisition = acquisition.replace(**alone)
        share = self.no_fat_saturation_fraction
        if isinstance(share, dict):
            share = share.get(acquisition.manufacturer or "", 0.0)
        return without_fat_saturation(acquisition) if rng.random() < share else acquisition

    def anatomy(self, index: int) -> BreastAnatomy:
        """The subject itself; the last two drawn are kept in memory."""
        self._check(index)
        ill = bool(generator(self.seed, index, "lesion").random() < self.lesion_fraction)
        return _anatomy(self.seed, index, self.matrix, self.slices, self.slice_spacing_mm, ill)

    def scan(self, index: int) -> Sample:
        """The subject's scan as a volume (1, I, J, K) with label."""
        return self._render(index, self.acquisition(index), noise=True, purpose="scan")

    def truth(self, subject_id: str, acquisition: Acquisition, *, noise: bool = True) -> Sample:
        """The same subject scanned with other parameters: same anatomy, B0 map and coil position, own noise.

        Args:
            subject_id: of this cohort, e.g. that of an augmented row.
            acquisition: the parameters to scan with.
            noise: False gives the noiseless truth.
        """
        return self._render(self.index_of(subject_id), acquisition, noise=noise, purpose="truth")

    def _render(self, index: int, acquisition: Acquisition, *, noise: bool, purpose: str) -> Sample:
        subject = self.subject_id(index)
        key = digest(acquisition.to_dict(), length=8)
        return render(
            self.anatomy(index),
            acquisition,
            noise_seed=derive(self.seed, index, "noise", purpose, key),
            bias_seed=derive(self.seed, index, "coil"),
            subject_id=subject,
            volume_id=subject if purpose == "scan" else f"{subject}-truth-{key}",
            noise=noise,
            lesion_label=self.lesion_label,
        )


@lru_cache(maxsize=2)
def _anatomy(
    seed: int, index: int, matrix: int, slices: int, slice_spacing_mm: float | None, ill: bool
) -> BreastAnatomy:
    return draw_breast(
        seed, index, "anatomy", matrix=matrix, slices=slices, slice_spacing_mm=slice_spacing_mm, lesion=ill
    )
