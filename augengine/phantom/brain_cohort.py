"""A brain cohort description in, scans and exact truths (no tumour, another site) out."""

from __future__ import annotations

from functools import lru_cache
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field, field_validator

from augengine.errors import DataError
from augengine.phantom.brain import SITES, render
from augengine.phantom.brain_anatomy import BrainAnatomy, Labels, draw_brain
from augengine.phantom.subjects import Subjects
from augengine.records import Sample
from augengine.rng import derive, generator


class BrainCohort(Subjects):
    """A cohort of phantom brains, as JSON-able as it is small.

    Subject i depends on `seed` and i alone (and on the list of sites, for where it is scanned); `labels` changes its
    label map, never its images.
    """

    PREFIX: ClassVar[str] = "BraTS2021_"
    FIRST: ClassVar[int] = 0
    DIGITS: ClassVar[int] = 5

    kind: Literal["brain"] = "brain"
    matrix: int = Field(128, ge=32, le=512, description="voxels along i and along j, of 192 mm")
    slices: int = Field(48, ge=1, le=256)
    slice_spacing_mm: float | None = Field(None, gt=0, le=25, description="None: cover the whole brain")
    lesion_fraction: float = Field(1.0, ge=0, le=1, description="share of subjects with a tumour")
    labels: Labels = Field("lesion", description="label maps: parts of the tumour; or these over the brain's tissues")
    sites: tuple[str, ...] = Field(("north", "south"), min_length=1, description="scanned in turn at random")

    @field_validator("sites")
    @classmethod
    def _known(cls, sites: tuple[str, ...]) -> tuple[str, ...]:
        unknown = sorted(set(sites) - set(SITES))
        if unknown:
            raise ValueError(f"unknown site {unknown[0]!r}; known: {', '.join(SITES)}")
        return sites

    def site(self, index: int) -> str:
        """Name of the site that subject `index` is scanned at."""
        self._check(index)
        return self.sites[int(generator(self.seed, index, "site").integers(len(self.sites)))]

    def anatomy(self, index: int) -> BrainAnatomy:
        """The subject itself; the last two drawn are kept in memory."""
        self._check(index)
        ill = bool(generator(self.seed, index, "lesion").random() < self.lesion_fraction)
        return _anatomy(self.seed, index, self.matrix, self.slices, self.slice_spacing_mm, ill)

    def scan(self, index: int) -> Sample:
        """The subject's scan as a volume (4, I, J, K) with label."""
        return self._render(index, self.site(index), lesion=True, noise=True, shared_noise=True)

    def truth(
        self,
        subject_id: str,
        *,
        site: str | None = None,
        lesion: bool | np.ndarray = False,
        noise: bool = True,
        shared_noise: bool = False,
    ) -> Sample:
        """The same subject otherwise: without its tumour, with another one, or at another site.

        Args:
            subject_id: of this cohort.
            site: name of a site; the subject's own by default.
            lesion: keep the tumour; or a label map (I, J, K) of the one to have instead.
            noise: False gives the noiseless truth.
            shared_noise: take the scan's own noise, so that a removal pair differs at the tumour alone.
        """
        index = self.index_of(subject_id)
        return self._render(index, site or self.site(index), lesion=lesion, noise=noise, shared_noise=shared_noise)

    def _render(self, index: int, site: str, *, lesion: bool | np.ndarray, noise: bool, shared_noise: bool) -> Sample:
        if site not in SITES:
            raise DataError("no such site", found=site, next_step=f"known: {', '.join(SITES)}")
        subject, anatomy, shown = self.subject_id(index), self.anatomy(index), "lesion" if lesion is True else "healthy"
        if isinstance(lesion, np.ndarray):
            anatomy, shown, lesion = anatomy.with_lesion(lesion), "other-lesion", True
        scan = shown == "lesion" and shared_noise and site == self.site(index)
        return render(
            anatomy,
            SITES[site],
            noise_seed=derive(self.seed, index, "noise", "scan" if shared_noise else f"truth {site} {lesion}"),
            bias_seed=derive(self.seed, index, "coil"),
            subject_id=subject,
            volume_id=subject if scan else f"{subject}-truth-{site}-{shown}",
            lesion=lesion,
            noise=noise,
            labels=self.labels,
        )


@lru_cache(maxsize=2)
def _anatomy(
    seed: int, index: int, matrix: int, slices: int, slice_spacing_mm: float | None, ill: bool
) -> BrainAnatomy:
    return draw_brain(
        seed, index, "anatomy", matrix=matrix, slices=slices, slice_spacing_mm=slice_spacing_mm, lesion=ill
    )
