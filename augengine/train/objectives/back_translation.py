"""Changing contrast without pairs: training scans in; pseudo-scans of other settings, and the way back to real ones.

No two scans of one anatomy are needed: a real scan is made to look like another setting's, roughly, and what the
network learns is to make the real scan of it again. What it is shown is wrong, what it is to make is right.
Legend: K members, N voxels, D inputs, C channels, `*` spatial axes.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional

from augengine import rng
from augengine.diffusion import settings
from augengine.diffusion.band_transport import levels, matched, transport
from augengine.diffusion.local_contrast import SLAB, LocalContrast, View, inputs, render
from augengine.diffusion.local_features import FEATURES, body, brightened, local_features
from augengine.diffusion.spec import ModelSpec
from augengine.errors import DataError
from augengine.records import Acquisition
from augengine.train.config import Recipe
from augengine.train.data import Batch, BatchReader
from augengine.train.objectives.base import PICTURE_ROWS, Objective, Picture, Stream
from augengine.train.objectives.scans import Partner, Pool, Scan, partners_of, scan_of, spread, tables_of, targets_of

_AVERAGE = 0.98  # of the weights that make the next round's pseudo-scans
_NOISE = 0.03  # of every input, in standard deviations
_HIDDEN = 0.1  # share of the rows whose place in the slab is not shown
# Voxels of each scan under each setting that say what inputs are like, and the share of them beyond either end.
_LOOKED_AT, _EXTREME = 50, 1e-3


@dataclass(frozen=True)
class Pairs:
    """Inputs (N, D) of pseudo-scans and the real intensities (N, C)."""

    inputs: Tensor
    truth: Tensor


@dataclass(frozen=True)
class Voxels:
    """How many voxels a step takes."""

    count: int

    def __len__(self) -> int:
        return self.count

    def part(self, rows: slice) -> Voxels:
        """Some of them."""
        return Voxels(rows.stop - rows.start)


@dataclass(frozen=True)
class _Steps:
    """Steps take voxels of the round's pairs; nothing has to be read for them."""

    count: int

    def batch(self, step: int, rank: int = 0, world: int = 1) -> Voxels:
        return Voxels(len(range(rank, self.count, world)))


class BackTranslation(Objective):
    """Trains a `LocalContrast` network; the pseudo-scans of a round follow from the recipe and `teacher` alone."""

    network: LocalContrast

    def __init__(self, recipe: Recipe, spec: ModelSpec, network: nn.Module, parts: object = None) -> None:
        super().__init__(recipe, spec, network)
        assert recipe.back_translation is not None  # the recipe's checks see to it
        self.how = recipe.back_translation
        self.teacher = copy.deepcopy(self.network).requires_grad_(False)
        self.average = copy.deepcopy(self.network).requires_grad_(False)
        self.scans: list[Scan] = []
        self.made: tuple[int, Pairs] | None = None
        self.slab = self.network.spec.slab

    def begin(self, reader: BatchReader) -> Stream:
        """Look at the sample of training scans that all rounds use."""
        volumes = reader.volumes()
        ranked = sorted(volumes, key=lambda volume: rng.derive("scan", self.recipe.seed, volume))[: self.how.scans]
        for volume in sorted(ranked):
            references = volumes[volume].references
            count = min(len(references), self.how.rows_per_scan)
            places = spread(len(references), count)
            if (scan := scan_of(volume, reader.take([references[n] for n in places]), self.slab)) is None:
                continue
            if self.how.pairs:
                scan = replace(scan, partners=partners_of(reader, volumes, volume, places, scan))
            self.scans.append(scan)
        if self.how.pairs and not any(scan.partners for scan in self.scans):
            raise DataError(
                "back_translation.pairs needs subjects that were scanned twice on one voxel grid, with other settings",
                found=f"none among {len(self.scans)} scans",
                next_step="set back_translation.pairs false",
            )
        if not any(targets_of(scan, self.scans) for scan in self.scans):
            raise DataError(
                "network.body local_contrast learns from scans of different settings, of different subjects",
                found=f"{len(self.scans)} scans, no two of them",
                next_step="train on data of other settings, too",
            )
        self._measure_inputs()
        return _Steps(self.recipe.optimiser.batch_size)

    def forward(self, batch: Voxels | Batch, seed: int, step: int) -> dict[str, Tensor]:
        """Squared error of the way back; of the validation rows, which are no training scans, from a first guess."""
        if isinstance(batch, Batch):
            return {"total": self._validation(batch)}
        pairs = self._pairs(step)
        generator = torch.Generator().manual_seed(seed)
        members = self.network.spec.members
        index = torch.randint(len(pairs.truth), (members, len(batch)), generator=generator)
        x = pairs.inputs[index].to(self.device)
        noise = torch.randn(x.shape, generator=generator).to(self.device)
        x = x + _NOISE * self.network.deviation * noise
        loss = functional.mse_loss(self.network(x).float(), pairs.truth[index].to(self.device))
        with torch.no_grad():
            for mine, theirs in zip(self.average.parameters(), self.network.parameters(), strict=True):
                mine.lerp_(theirs.detach(), 1 - min(_AVERAGE, (1 + step) / (10 + step)))
        return {"total": loss}

    @torch.no_grad()
    def pictures(self, batch: Batch, seed: int) -> list[Picture]:
        """Validation rows, and the same under the settings of the scans nearest to them."""
        found = []
        for row in range(min(PICTURE_ROWS, len(batch))):
            scan = scan_of(batch.subjects[row], batch.part(slice(row, row + 1)), self.slab)
            for target in targets_of(scan, self.scans)[:1] if scan else ():
                image, spacing, source = batch.images[row], batch.spacings_mm[row], batch.acquisitions[row]
                made = render(self.network, image, spacing, source, target.acquisition, 0.0, batch.slab_ends_mm[row])
                found.append(
                    (
                        f"{_short(batch.acquisitions[row])} to {_short(target.acquisition)}",
                        [batch.images[row], made.mean],
                    )
                )
        return found

    def _pairs(self, step: int) -> Pairs:
        """Those of the step's round; at its first step `teacher` becomes what has been learnt."""
        rounds, steps = self.how.rounds, self.recipe.steps
        number = min(rounds - 1, step * rounds // steps)
        if number and step == math.ceil(number * steps / rounds):
            self.teacher.load_state_dict(self.average.state_dict())
        if self.made is None or self.made[0] != number:
            self.made = (number, self._make(number))
        return self.made[1]

    @torch.no_grad()
    def _make(self, number: int) -> Pairs:
        random = rng.generator("pairs", self.recipe.seed, number)
        found: list[tuple[np.ndarray, np.ndarray]] = []
        for scan in self.scans:
            if scan.partners and number == self.how.rounds - 1:
                found += [row for partner in scan.partners for row in self._real(scan, partner, random)]
                continue
            targets = targets_of(scan, self.scans)
            if not targets:
                continue
            for target in self._drawn(scan, targets, random):
                found += self._pseudo(scan, target, number > 0, random)
        x, y = zip(*found, strict=True)
        return Pairs(torch.from_numpy(np.concatenate(x)), torch.from_numpy(np.concatenate(y)))

    def _drawn(self, scan: Scan, targets: Sequence[Pool], random: np.random.Generator) -> list[Pool]:
        """Some of the scan's own vendor and as many of others: what vendors change must not crowd out the rest."""
        own = [t for t in targets if settings.same_vendor(scan.acquisition, t.acquisition)]
        found: list[Pool] = []
        for group in (own, [t for t in targets if not any(t is o for o in own)]):
            if group:
                apart = np.array([settings.distance(scan.acquisition, t.acquisition) for t in group])
                weights = np.exp(-(apart - apart.min()) / 2)
                drawn = random.choice(len(group), self.how.targets_per_scan, p=weights / weights.sum())
                found += [group[n] for n in drawn]
        return found

    def _pseudo(
        self, scan: Scan, target: Pool, learnt: bool, random: np.random.Generator
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Inputs and truth of a sample of voxels of one pseudo-scan, row by row."""
        features = [view.features for view in scan.views]  # of each row, of each channel
        tables = scan.tables
        if learnt:
            predicted = self._predicted(self.teacher, scan, target)
            features = self._seen(scan, _matched(scan, predicted, target))
            tables = tables_of(features, [view.slab_mm for view in scan.views])
        guesses = [
            np.stack([transport(f, t, p) for f, t, p in zip(row, tables, target.tables, strict=True)], axis=-1)
            for row in features
        ]
        shown, kept = self._shown(scan, _matched(scan, guesses, target), random)
        condition = settings.condition(target.acquisition, scan.acquisition, self.network.vocabulary)
        truths = [
            np.stack([f[same, 0] for f in view.features], axis=-1) for view, same in zip(scan.views, kept, strict=True)
        ]
        slab_mm = [view.slab_mm[same] for view, same in zip(scan.views, kept, strict=True)]
        return self._sampled(shown, truths, slab_mm, (target.clipped, scan.clipped), condition, random)

    def _real(self, scan: Scan, partner: Partner, random: np.random.Generator) -> list[tuple[np.ndarray, np.ndarray]]:
        """The same from a scan to its partner, of voxels of the scan's body."""
        condition = settings.condition(scan.acquisition, partner.acquisition, self.network.vocabulary)
        truths = [
            np.maximum(np.stack([channel[view.where] for channel in image], axis=-1), 0)
            for view, image in zip(scan.views, partner.images, strict=True)
        ]
        shown = [view.features for view in scan.views]
        slab_mm = [view.slab_mm for view in scan.views]
        return self._sampled(shown, truths, slab_mm, (scan.clipped, partner.clipped), condition, random)

    def _sampled(
        self,
        shown: Sequence[tuple[np.ndarray, ...]],
        truths: Sequence[np.ndarray],
        slab_mm: Sequence[np.ndarray],
        clipped: tuple[Sequence[bool], Sequence[bool]],
        condition: np.ndarray,
        random: np.random.Generator,
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Inputs and truth of some voxels of every row, as they are and at another gain."""
        total, found = sum(map(len, truths)), []
        for row, truth, distances in zip(shown, truths, slab_mm, strict=True):
            count = min(len(truth), round(self.how.voxels_per_scan * len(truth) / max(total, 1)))
            if not count:
                continue
            for changed in (False, True):
                chosen = np.sort(random.choice(len(truth), count, replace=False))
                factor = math.exp(random.normal(0, self.how.gain_sd)) if changed else 1.0
                parts = [brightened(f[chosen], factor) for f in row]
                found.append((self._inputs(parts, clipped, condition, distances[chosen], random), truth[chosen]))
        return found

    def _inputs(
        self,
        features: Sequence[np.ndarray],
        clipped: tuple[Sequence[bool], Sequence[bool]],
        condition: np.ndarray,
        slab_mm: np.ndarray,
        random: np.random.Generator | None = None,
    ) -> np.ndarray:
        """As the network wants them; with `random`, now and then as of a row that does not know its place."""
        if not self.slab:
            return inputs(features, clipped, condition)
        hidden = random is not None and random.random() < _HIDDEN
        return inputs(features, clipped, condition, np.full_like(slab_mm, np.nan) if hidden else slab_mm)

    def _seen(self, scan: Scan, rows: Sequence[np.ndarray]) -> list[tuple[np.ndarray, ...]]:
        """Features of each row, given as intensities (N, C) of the scan's body, of each channel."""
        return [
            tuple(local_features(plane, view.where, scan.spacing_mm) for plane in _painted(np.zeros_like(i), view, v))
            for i, view, v in zip(scan.images, scan.views, rows, strict=True)
        ]

    def _shown(
        self, scan: Scan, rows: Sequence[np.ndarray], random: np.random.Generator
    ) -> tuple[list[tuple[np.ndarray, ...]], list[np.ndarray]]:
        """The same of pseudo-scans as the network meets scans: moved a little, with the body that they themselves show.

        The second is bool (N,) of each row: which voxels of the scan's body these features, (M, F), are of.
        """
        found, kept = [], []
        for image, view, values in zip(scan.images, scan.views, rows, strict=True):
            shift = np.zeros(view.where.ndim)
            if self.how.motion_mm:
                shift[:2] = random.normal(0, self.how.motion_mm, 2) / np.array(scan.spacing_mm[:2])
            planes = _painted(image, view, values)
            if shift.any():
                planes = np.stack([ndimage.shift(plane, shift, order=3, mode="nearest") for plane in planes])
            where = body(planes, scan.spacing_mm)
            both = (view.where & where)[where]
            found.append(tuple(local_features(plane, where, scan.spacing_mm)[both] for plane in planes))
            kept.append(where[view.where])
        return found, kept

    def _predicted(self, network: LocalContrast, scan: Scan, target: Pool) -> list[np.ndarray]:
        """Intensities (N, C) of each row of a scan under a target."""
        condition = settings.condition(scan.acquisition, target.acquisition, network.vocabulary)
        return [
            network.predict(self._inputs(view.features, (scan.clipped, target.clipped), condition, view.slab_mm))[0]
            for view in scan.views
        ]

    def _measure_inputs(self) -> None:
        """Mean, deviation and ends of what the network sees."""
        random = rng.generator("inputs", self.recipe.seed)
        rows = []
        for scan in self.scans:
            for target in targets_of(scan, self.scans):
                condition = settings.condition(scan.acquisition, target.acquisition, self.network.vocabulary)
                view = scan.views[int(random.integers(len(scan.views)))]
                chosen = random.integers(len(view.features[0]), size=_LOOKED_AT)
                shown, distances = [f[chosen] for f in view.features], view.slab_mm[chosen]
                rows.append(self._inputs(shown, (scan.clipped, target.clipped), condition, distances, random))
        seen = torch.from_numpy(np.concatenate(rows))
        # Settings are few and exact; of features, single voxels are no guide.
        ends = seen.min(0).values, seen.max(0).values
        if self.slab:
            ends[0][-SLAB:] = 0  # of a row that does not know its place
        features = self.network.channels * len(FEATURES)
        low, high = (np.quantile(seen[:, :features].numpy(), q, axis=0) for q in (_EXTREME, 1 - _EXTREME))
        ends[0][:features], ends[1][:features] = torch.from_numpy(low), torch.from_numpy(high)
        for network in (self.network, self.teacher, self.average):
            network.mean.copy_(seen.mean(0))
            network.deviation.copy_(seen.std(0).clamp(min=0.05))
            network.low.copy_(ends[0])
            network.high.copy_(ends[1])

    def _validation(self, batch: Batch) -> Tensor:
        """Mean over the rows that differ in setting from a training scan."""
        errors = []
        for row in range(len(batch)):
            scan = scan_of(batch.subjects[row], batch.part(slice(row, row + 1)), self.slab)
            targets = targets_of(scan, self.scans) if scan else []
            if scan is None or not targets:
                continue
            nearest = min(targets, key=lambda t: settings.distance(scan.acquisition, t.acquisition))
            random = rng.generator("validation", self.recipe.seed, row)
            for x, truth in self._pseudo(scan, nearest, False, random):
                errors.append(float(np.mean((self.network.predict(x)[0] - truth) ** 2)))
        return torch.tensor(float(np.mean(errors)) if errors else float("nan"))


def _painted(image: np.ndarray, view: View, values: np.ndarray) -> np.ndarray:
    """A copy of the image (C, *) with values (N, C) in the view's body."""
    found = image.copy()
    found[:, view.where] = values.T
    return found


def _matched(scan: Scan, rows: Sequence[np.ndarray], target: Pool) -> list[np.ndarray]:
    """Intensities (N, C) of a scan's rows with the quantiles of the target's."""
    together, slab_mm = np.concatenate(rows), [view.slab_mm for view in scan.views]
    own = [levels(together[:, c], np.concatenate(slab_mm)) for c in range(together.shape[1])]
    return [
        np.stack([matched(row[:, c], distances, own[c], table) for c, table in enumerate(target.tables)], axis=-1)
        for row, distances in zip(rows, slab_mm, strict=True)
    ]


def _short(acquisition: Acquisition) -> str:
    parts = (acquisition.manufacturer, acquisition.repetition_time_ms, acquisition.flip_angle_deg)
    return ", ".join(f"{p:g}" if isinstance(p, float) else str(p) for p in parts if p is not None)
