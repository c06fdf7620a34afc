"""Changing contrast without pairs: training scans in; pseudo-scans of other settings, and the way back to real ones.

No two scans of one anatomy are needed: a real scan is made to look like another setting's, roughly, and what the
network learns is to make the real scan of it again. What it is shown is wrong, what it is to make is right.
Legend: K members, N voxels, D inputs, C channels, H, W of a slice.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional

from augengine import rng
from augengine.diffusion import settings
from augengine.diffusion.band_transport import levels, matched, transport
from augengine.diffusion.local_contrast import SLAB, LocalContrast, inputs, render
from augengine.diffusion.local_features import APART_MM, NEIGHBOURS, brightened
from augengine.diffusion.slices import Slices, View
from augengine.diffusion.spec import ModelSpec
from augengine.errors import DataError
from augengine.random_fields import smooth_field
from augengine.records import Acquisition
from augengine.train.config import Recipe
from augengine.train.data import Batch, BatchReader
from augengine.train.objectives.base import PICTURE_ROWS, Objective, Picture, Stream
from augengine.train.objectives.scans import (
    Partner,
    Pool,
    Scan,
    partners_of,
    scan_of,
    spread,
    tables_of,
    targets_of,
    usual_of,
)

_AVERAGE = 0.98  # of the weights that make the next round's pseudo-scans
_NOISE = 0.03  # of every input, in standard deviations
_HIDDEN = 0.1  # share of the slices whose place in the slab is not shown, and of those whose neighbours are not
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
        self.design = self.network.spec

    def begin(self, reader: BatchReader) -> Stream:
        """Look at the sample of training scans that all rounds use."""
        volumes = reader.volumes()
        ranked = sorted(volumes, key=lambda volume: rng.derive("scan", self.recipe.seed, volume))[: self.how.scans]
        for volume in sorted(ranked):
            references = volumes[volume].references
            count = min(len(references), self.how.rows_per_scan)
            places = spread(len(references), count)
            rows = reader.take([references[n] for n in places])
            if (scan := self._scan(volume, rows)) is None:
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
            scan = self._scan(batch.subjects[row], batch.part(slice(row, row + 1)))
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

    def _scan(self, volume: str, rows: Batch) -> Scan | None:
        return scan_of(volume, rows, self.design.slab, rng.generator("voxels", self.recipe.seed, volume))

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
            last = scan.partners and number == self.how.rounds - 1
            targets = [] if last else targets_of(scan, self.scans)
            if not last and not targets:
                continue
            views = scan.views()
            for partner in scan.partners if last else ():
                found += self._real(scan, views, partner, random)
            usual = usual_of(scan, self.scans)
            for target in self._drawn(scan, targets, random) if targets else ():
                found += self._pseudo(scan, views, target.as_one(scan.tables, usual), number > 0, random)
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
        self, scan: Scan, views: Sequence[View], target: Pool, learnt: bool, random: np.random.Generator
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Inputs and truth of a sample of voxels of one pseudo-scan, slice by slice."""
        seen, tables = views, scan.tables
        if learnt:
            predicted = self._predicted(self.teacher, scan, views, target)
            planes = _painted(scan, _matched(views, predicted, target), empty=True)
            seen = list(replace(scan.slices, planes=planes).views(scan.bodies, of_bands=True))
            tables = tables_of(seen)
        guesses = [
            np.stack([transport(f, t, p) for f, t, p in zip(v.features, tables, target.tables, strict=True)], axis=-1)
            for v in seen
        ]
        guesses = self._apart(scan, guesses, random)
        condition = settings.condition(target.acquisition, scan.acquisition, self.network.vocabulary)
        found = []
        for view, shown in zip(views, self._shown(scan, _matched(views, guesses, target), random), strict=True):
            both = (view.where & shown.where)[shown.where], (view.where & shown.where)[view.where]
            found.append((_of(shown, both[0]), np.stack([f[both[1], 0] for f in view.features], axis=-1)))
        return self._sampled(found, (target.clipped, scan.clipped), condition, random)

    def _apart(self, scan: Scan, guesses: Sequence[np.ndarray], random: np.random.Generator) -> list[np.ndarray]:
        """The same (N, C), with what two scans of one anatomy do not share.

        A pseudo-scan follows from the scan it was made from, so that a network would trust in its detail too much.
        """
        factors = [np.zeros(where.shape, np.float32) for where in scan.bodies]
        for length_mm, deviation in self.how.unshared:
            for n, field in enumerate(_fields(scan.slices, length_mm, random)):
                factors[n] += deviation * field
        return [
            rows * np.exp(factor[where])[:, None]
            for rows, factor, where in zip(guesses, factors, scan.bodies, strict=True)
        ]

    def _real(
        self, scan: Scan, views: Sequence[View], partner: Partner, random: np.random.Generator
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """The same from a scan to its partner, of voxels of the scan's body."""
        condition = settings.condition(scan.acquisition, partner.acquisition, self.network.vocabulary)
        found = [
            (view, np.maximum(plane[:, view.where].T, 0)) for view, plane in zip(views, partner.planes, strict=True)
        ]
        return self._sampled(found, (scan.clipped, partner.clipped), condition, random)

    def _sampled(
        self,
        slices: Sequence[tuple[View, np.ndarray]],
        clipped: tuple[Sequence[bool], Sequence[bool]],
        condition: np.ndarray,
        random: np.random.Generator,
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Inputs and truth of some voxels of every slice, as they are and at another gain."""
        total, found = sum(len(truth) for _, truth in slices), []
        for view, truth in slices:
            count = min(len(truth), round(self.how.voxels_per_scan * len(truth) / max(total, 1)))
            if not count:
                continue
            for changed in (False, True):
                chosen = np.sort(random.choice(len(truth), count, replace=False))
                factor = math.exp(random.normal(0, self.how.gain_sd)) if changed else 1.0
                part = _of(view, chosen)
                part = replace(part, features=tuple(brightened(f, factor) for f in part.features))
                x = inputs(self.design, self._hidden(part, random), clipped, condition)
                found.append((x, truth[chosen]))
        return found

    def _hidden(self, view: View, random: np.random.Generator) -> View:
        """The same, now and then as of a slice that does not know its place, or its neighbours."""
        if self.design.slab and random.random() < _HIDDEN:
            view = replace(view, slab_mm=np.full_like(view.slab_mm, np.nan))
        if self.design.neighbours and random.random() < _HIDDEN:
            features = [f.copy() for f in view.features]
            for f in features:
                f[:, -NEIGHBOURS:] = 0
            view = replace(view, features=tuple(features))
        return view

    def _shown(self, scan: Scan, rows: Sequence[np.ndarray], random: np.random.Generator) -> Iterator[View]:
        """Pseudo-scans as the network meets scans: moved a little, with the body that they themselves show."""
        planes, spacing_mm = _painted(scan, rows), np.array(scan.slices.spacing_mm)
        shift = np.zeros(2)
        for n, plane in enumerate(planes):
            if self.how.motion_mm and (n == 0 or not scan.slices.step):  # a volume moves as a whole
                shift = random.normal(0, self.how.motion_mm, 2) / spacing_mm
            if shift.any():
                planes[n] = np.stack([ndimage.shift(channel, shift, order=3, mode="nearest") for channel in plane])
        moved = replace(scan.slices, planes=planes)
        return moved.views(moved.bodies())

    def _predicted(self, network: LocalContrast, scan: Scan, views: Sequence[View], target: Pool) -> list[np.ndarray]:
        """Intensities (N, C) of each slice of a scan under a target."""
        condition = settings.condition(scan.acquisition, target.acquisition, network.vocabulary)
        clipped = (scan.clipped, target.clipped)
        return [network.predict(inputs(network.spec, view, clipped, condition))[0] for view in views]

    def _measure_inputs(self) -> None:
        """Mean, deviation and ends of what the network sees."""
        random = rng.generator("inputs", self.recipe.seed)
        rows = []
        for scan in self.scans:
            for target in targets_of(scan, self.scans):
                condition = settings.condition(scan.acquisition, target.acquisition, self.network.vocabulary)
                chosen = random.integers(len(scan.some.slab_mm), size=_LOOKED_AT)
                view = self._hidden(_of(scan.some, chosen), random)
                rows.append(inputs(self.design, view, (scan.clipped, target.clipped), condition))
        seen = torch.from_numpy(np.concatenate(rows))
        # Settings are few and exact; of features, single voxels are no guide.
        ends = seen.min(0).values, seen.max(0).values
        if self.design.slab:
            ends[0][-SLAB:] = 0  # of a row that does not know its place
        features = self.network.channels * self.design.features
        low, high = (np.quantile(seen[:, :features].numpy(), q, axis=0) for q in (_EXTREME, 1 - _EXTREME))
        if self.design.neighbours:  # of a slice that does not know them
            for end, ranked in ((low, np.minimum), (high, np.maximum)):
                beside = end.reshape(self.network.channels, -1)[:, -NEIGHBOURS:]
                beside[...] = ranked(beside, 0)
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
            scan = self._scan(batch.subjects[row], batch.part(slice(row, row + 1)))
            targets = targets_of(scan, self.scans) if scan else []
            if scan is None or not targets:
                continue
            nearest = min(targets, key=lambda t: settings.distance(scan.acquisition, t.acquisition))
            random = rng.generator("validation", self.recipe.seed, row)
            for x, truth in self._pseudo(scan, scan.views(), nearest, False, random):
                errors.append(float(np.mean((self.network.predict(x)[0] - truth) ** 2)))
        return torch.tensor(float(np.mean(errors)) if errors else float("nan"))


def _fields(slices: Slices, length_mm: float, random: np.random.Generator) -> list[np.ndarray]:
    """A smooth random field (H, W) of each slice; through neighbours, the slices of a volume, runs one."""
    shapes = [plane.shape[1:] for plane in slices.planes]
    if not slices.step:
        return [smooth_field(random, shape, slices.spacing_mm, length_mm) for shape in shapes]
    apart_mm = APART_MM / slices.step
    whole = smooth_field(random, (*shapes[0], len(shapes)), (*slices.spacing_mm, apart_mm), length_mm)
    return list(np.moveaxis(whole, -1, 0))


def _of(view: View, chosen: np.ndarray) -> View:
    """The same of some of its voxels, given by number or as bool (N,); `where` stays."""
    return View(view.where, tuple(f[chosen] for f in view.features), view.slab_mm[chosen])


def _painted(scan: Scan, rows: Sequence[np.ndarray], empty: bool = False) -> list[np.ndarray]:
    """Its slices (C, H, W) with values (N, C) in their bodies; around these they stay, or are 0."""
    found = []
    for plane, where, values in zip(scan.slices.planes, scan.bodies, rows, strict=True):
        painted = np.zeros_like(plane) if empty else plane.copy()
        painted[:, where] = values.T
        found.append(painted)
    return found


def _matched(views: Sequence[View], rows: Sequence[np.ndarray], target: Pool) -> list[np.ndarray]:
    """Intensities (N, C) of a scan's slices with the quantiles of the target's."""
    together, slab_mm = np.concatenate(rows), [view.slab_mm for view in views]
    own = [levels(together[:, c], np.concatenate(slab_mm)) for c in range(together.shape[1])]
    return [
        np.stack([matched(row[:, c], distances, own[c], table) for c, table in enumerate(target.tables)], axis=-1)
        for row, distances in zip(rows, slab_mm, strict=True)
    ]


def _short(acquisition: Acquisition) -> str:
    parts = (acquisition.manufacturer, acquisition.repetition_time_ms, acquisition.flip_angle_deg)
    return ", ".join(f"{p:g}" if isinstance(p, float) else str(p) for p in parts if p is not None)
