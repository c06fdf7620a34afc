"""A trained segmenter that judges what others generate: rows in, where it sees its regions out."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence

import numpy as np
from torch import Tensor

from augengine.diffusion.checkpoint import load_model, subject_hash
from augengine.diffusion.segmentation import probabilities
from augengine.diffusion.spec import ModelSpec
from augengine.errors import CheckpointError, DataError
from augengine.intensity import normalise
from augengine.metrics.chunks import chunked
from augengine.metrics.partial import Pair, SubjectMeans
from augengine.metrics.removal import gen_dice
from augengine.records import Sample


class Referee:
    """The segmenter in a checkpoint folder.

    Args:
        uri: folder of a model of kind `segmenter`.
        device: of the network.

    Raises:
        CheckpointError: another kind of model.
    """

    def __init__(self, uri: str, device: str = "cpu") -> None:
        self.model, self.uri = load_model(uri, device), uri
        spec = self.model.spec
        if spec.kind != "segmenter" or spec.context:
            raise CheckpointError("a referee is a segmenter of single rows", found=spec.kind, where=uri)

        def run(x: Tensor) -> Tensor:
            return probabilities(spec, self.model.network(x).float())

        self._probabilities = chunked(run, device)

    def lesion_regions(self, lesion: Collection[str]) -> list[int]:
        """Regions that hold labels of a lesion and no others; none at all is a `CheckpointError`."""
        found = [n for n, labels in enumerate(self.model.spec.regions.values()) if set(labels) <= set(lesion)]
        if not found:
            raise CheckpointError(
                f"the referee needs a region of lesion labels ({', '.join(lesion)}) alone",
                found=str({name: list(labels) for name, labels in self.model.spec.regions.items()}),
                where=self.uri,
                next_step="name the lesion's labels, or train a referee with such a region",
            )
        return found

    def seen(self, samples: Sequence[Sample]) -> list[np.ndarray]:
        """bool (R, *spatial) of every row: where each region is; regions that exclude each other do not overlap.

        Raises:
            CheckpointError: other channels, or another intensity rule, than the referee was trained on.
        """
        return [self._decided(likely) for likely in self.likely(samples)]

    def likely(self, samples: Sequence[Sample]) -> list[np.ndarray]:
        """Probability, float32 (R, *spatial), of each region; raises as `seen` does."""
        for sample in samples:
            self.model.check(sample.channels, sample.intensity_rule)
        if len({sample.image.shape for sample in samples}) == 1:
            return list(self._probabilities(np.stack([normalise(sample) for sample in samples])))
        return [self._probabilities(normalise(sample)[None])[0] for sample in samples]

    def _decided(self, likely: np.ndarray) -> np.ndarray:
        """Region masks of probabilities (R, *)."""
        if not self.model.spec.exclusive:
            return likely > 0.5
        best = np.concatenate([1 - likely.sum(0, keepdims=True), likely]).argmax(0)
        return np.stack([best == n for n in range(1, len(likely) + 1)])


class GenDiceMeasure:
    """Rows with label maps in, patient-level means of `gen_dice`, and of the same of their sources, out.

    `gen_dice_real` is how well the referee finds the same regions in real images: what a perfect generator reaches.

    Args:
        referee, device: of a `Referee` that was trained on none of the rows' subjects.
    """

    def __init__(self, referee: str, device: str = "cpu") -> None:
        self.referee = Referee(referee, device)

    def __call__(self, pairs: Sequence[Pair]) -> SubjectMeans | None:
        """Sums over the rows that have a label map."""
        labelled = [pair for pair in pairs if pair.sample.label is not None]
        if not labelled:
            return None
        check_unseen(self.referee.model.spec, {pair.sample.subject_id for pair in labelled})
        rows: list[tuple[str, dict[str, float]]] = []
        seen = self.referee.seen([pair.sample for pair in labelled])
        sources = [pair.parent for pair in labelled if pair.parent is not None and pair.parent.label is not None]
        for pair, found in zip(labelled, seen, strict=True):
            rows.append((pair.sample.subject_id, {"gen_dice": self._dice(pair.sample, found)}))
        for source, found in zip(sources, self.referee.seen(sources), strict=True):
            rows.append((source.subject_id, {"gen_dice_real": self._dice(source, found)}))
        return SubjectMeans.of(rows)

    def _dice(self, sample: Sample, seen: np.ndarray) -> float:
        """Over the regions of which the row's label map knows a label."""
        assert sample.label is not None
        asked, kept = [], []
        for names, found in zip(self.referee.model.spec.regions.values(), seen, strict=True):
            codes = [sample.labels[name] for name in names if name in sample.labels]
            if codes:
                asked.append(np.isin(sample.label, codes))
                kept.append(found)
        return gen_dice(np.stack(kept), np.stack(asked)) if kept else math.nan


def check_unseen(judge: ModelSpec, subjects: Iterable[str]) -> None:
    """Refuse a judge that was trained on whom it judges.

    Args:
        judge: must state its training subjects.
        subjects: ids of the judged rows.

    Raises:
        DataError: naming the subject.
    """
    if not judge.subject_hashes:
        raise DataError(
            "a judge states the subjects that trained it, or nothing shows that it is independent",
            next_step="train it with jobs/train.py",
        )
    for subject in sorted(subjects):
        if subject_hash(subject) in judge.subject_hashes:
            raise DataError(
                "a judge judges only subjects that did not train it",
                found=subject,
                next_step="evaluate held-out subjects, or train it on others",
            )
