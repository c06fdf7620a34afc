"""Rows of a run and an acquisition predictor in; the acquisition that it reads off each edited image out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from augengine.intensity import normalise
from augengine.metrics.prediction import PredictionMeasure, check_disjoint, outputs
from augengine.records import Acquisition
from augengine.report.page.rows import Pixels, RunRows, Seen


def reached(rows: RunRows, chosen: Sequence[Seen], predictor: str) -> Mapping[str, Acquisition]:
    """By row id.

    Raises:
        CheckpointError: the folder holds another kind of model, or one of other channels.
        DataError: the predictor was trained on the subject of a row.
    """
    judge = PredictionMeasure(predictor)
    check_disjoint(judge.model.spec, {}, {seen.subject_id for seen in chosen})
    edited, found = Pixels(rows.run.store), {}
    for seen in sorted(chosen, key=lambda s: (s.spot.name, s.spot.group, s.spot.at)):
        row = edited(seen.spot)
        judge.model.check(row.channels, row.intensity_rule)
        (found[seen.row_id],) = judge.vocabulary.decode(outputs(judge.model, normalise(row)[None]))
    return found
