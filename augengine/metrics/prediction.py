"""Edited rows with their sources in; whether an independent network now reads the wanted acquisition off them out.

Counterfactual prediction gain is E[C(x_cf) − C(x)], where C(x) is the probability of the wanted value: −1…1, and 0 for
an edit that changes nothing (Cohen et al. 2021). The predictor must not share subjects with the generator, or it may
recognise what both have seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from augengine.diffusion.checkpoint import Model, load_model, read_spec
from augengine.diffusion.conditions import MULTI_LABEL, NUMERIC, Vocabulary
from augengine.diffusion.discriminative import Predictor
from augengine.diffusion.spec import ModelSpec
from augengine.errors import CheckpointError, DataError
from augengine.intensity import normalise
from augengine.metrics.partial import Pair, SubjectMeans
from augengine.metrics.referee import check_unseen
from augengine.records import Acquisition


class PredictionMeasure:
    """Edited rows with their sources in, patient-level means of `prediction_row` out.

    Args:
        predictor: folder of an acquisition predictor.
        generators: folders of the generators that made the rows.
        device: of the predictor.

    Raises:
        CheckpointError: the folder holds another kind of model.
        DataError: a subject that the predictor was trained on trained a generator, too, or is evaluated.
    """

    def __init__(self, predictor: str, generators: Sequence[str] = (), device: str = "cpu") -> None:
        self.model = load_model(predictor, device)
        if not isinstance(self.model.network, Predictor) or self.model.spec.vocabulary is None:
            raise CheckpointError("an acquisition predictor is needed", found=self.model.spec.kind, where=predictor)
        self.vocabulary = self.model.spec.vocabulary
        check_disjoint(self.model.spec, {uri: read_spec(uri) for uri in generators})

    def __call__(self, pairs: Sequence[Pair]) -> SubjectMeans:
        """Sums over the rows; a row without its source is a `DataError`."""
        check_disjoint(self.model.spec, {}, {pair.sample.subject_id for pair in pairs})
        rows = []
        for sample, parent in pairs:
            if parent is None:
                raise DataError(
                    "a gain compares an edited row with its source",
                    where=sample.sample_id,
                    next_step="give the folder that was augmented",
                )
            self.model.check(sample.channels, sample.intensity_rule)
            before, after = (outputs(self.model, normalise(s)[None])[0] for s in (parent, sample))
            values = prediction_row(self.vocabulary, before, after, parent.acquisition, sample.acquisition)
            rows.append((sample.subject_id, values))
        return SubjectMeans.of(rows)


def check_disjoint(predictor: ModelSpec, generators: Mapping[str, ModelSpec], subjects: Iterable[str] = ()) -> None:
    """Refuse a predictor that knows whom it judges.

    Args:
        predictor: must state its training subjects.
        generators: name → spec; one that states no training subjects must be untrained.
        subjects: ids of the evaluated rows.

    Raises:
        DataError: naming the generator or the subject.
    """
    check_unseen(predictor, subjects)
    trained = set(predictor.subject_hashes)
    for name, spec in generators.items():
        if not spec.subject_hashes and spec.untrained_seed is None:
            raise DataError(
                "a generator states the subjects that trained it, or nothing shows that its judge is independent",
                found="none",
                where=name,
                next_step="train it anew",
            )
        if shared := trained & set(spec.subject_hashes):
            raise DataError(
                "a predictor and a generator that it judges share no training subject",
                found=f"{len(shared)} in common",
                where=name,
                next_step="train the predictor on other subjects",
            )


@torch.no_grad()
def outputs(model: Model, images: np.ndarray) -> Tensor:
    """(B, F) outputs of an acquisition predictor for normalised images (B, C, *)."""
    found: Tensor = model.network(torch.from_numpy(images).to(model.device)).float().cpu()
    return found


def prediction_row(
    vocabulary: Vocabulary, before: Tensor, after: Tensor, source: Acquisition, target: Acquisition
) -> dict[str, float]:
    """What the predictor says of one row before and after its edit, for every parameter that both acquisitions state.

    Args:
        vocabulary: of the predictor; a value that it does not know counts as not stated.
        before, after: outputs (F,) for the source and the edited image.
        source: acquisition of the source.
        target: acquisition that the edited row states.

    Returns:
        Categorical parameters and scan options: `<name>.gain`, NaN where the edit did not change the parameter;
        `<name>.top1`, 1 if the wanted value comes first (scan options: if all are right), and `<name>.top1_before`,
        the same of the source image and acquisition. Numeric ones: `<name>.error` and `<name>.error_before`,
        absolute, in the parameter's unit; `<name>.squared_error`, of the value relative to the vocabulary's maximum.
    """
    stated = vocabulary.encode([source, target])
    widths = list(vocabulary.widths.values())
    parts = zip(*(torch.split(x, widths) for x in (before, after, *stated.features)), strict=True)
    values: dict[str, float] = {}
    for column, (name, (old, new, given, wanted)) in enumerate(zip(vocabulary.widths, parts, strict=True)):
        if not (stated.present[:, column].all() and wanted.numel()):
            continue
        if name in NUMERIC:
            values[f"{name}.error"] = float((new - wanted).abs()) * vocabulary.maxima[name]
            values[f"{name}.error_before"] = float((old - given).abs()) * vocabulary.maxima[name]
            values[f"{name}.squared_error"] = float((new - wanted) ** 2)
        else:
            changed = given != wanted
            values[f"{name}.gain"] = float(
                _confidence(name, new, wanted, changed) - _confidence(name, old, wanted, changed)
            )
            values[f"{name}.top1"] = float(_right(name, new, wanted))
            values[f"{name}.top1_before"] = float(_right(name, old, given))
    return values


def _confidence(name: str, output: Tensor, wanted: Tensor, changed: Tensor) -> Tensor:
    """Probability of the wanted value; of scan options, mean over those that were switched. NaN if nothing changed."""
    if name == MULTI_LABEL:
        return torch.where(wanted > 0, output.sigmoid(), 1 - output.sigmoid())[changed].mean()
    return output.softmax(0)[wanted.argmax()] if changed.any() else torch.tensor(torch.nan)


def _right(name: str, output: Tensor, wanted: Tensor) -> bool:
    if name == MULTI_LABEL:
        return bool(((output > 0) == (wanted > 0)).all())
    return bool(output.argmax() == wanted.argmax())
