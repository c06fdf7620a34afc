"""What an experiment on phantoms is built of, against the truth: pseudo-labels and augmented rows of its folder.

    python benchmarks/study.py [--out runs/evaluate]

Reads what `jobs/evaluate.py --phantom` left in the folder, of subjects that train; no test subject is looked at. Tells
the Dice of the labels that generators were shown of the other vendor (as the segmenter gives them, and sharpened by
intensities), and the error of augmented rows against the same anatomy rendered under their acquisition.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from _generators import batches
from _record import record

from augengine.body import body_mask
from augengine.commands.evaluate import BREASTS
from augengine.downstream.segmenters import Segmenter, load_segmenter
from augengine.intensity import normalise
from augengine.io.dataset import dataset_files
from augengine.io.shards import iter_samples
from augengine.io.store import Store
from augengine.metrics.fidelity import fidelity, texture_ratio
from augengine.metrics.overlap import dice
from augengine.phantom.cohort import Cohort
from augengine.phantom.protocols import GE, SIEMENS
from augengine.phantom.write import true_counterfactual
from augengine.pipeline.pseudo_labels import refined
from augengine.records import Sample
from augengine.report.comparison import Comparison, draw, intervals, target
from augengine.report.console import console, stage

VENDORS = {"GE": GE, "Siemens": SIEMENS}
LABELS = {"fat": "Dice fat", "fibroglandular": "Dice fibroglandular"}
ERRORS = {"rmse_body": "RMSE body", "rmse_tissue": "RMSE labelled", "texture": "texture ratio"}
MADE = {"trained": "augmented", "untrained": "untrained"}
PICTURES = 4


def main() -> None:
    """Measure, draw and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="runs/evaluate", help="folder of the experiment")
    phantom = Path(parser.parse_args().out, "phantom").resolve()
    by_subject: dict[str, list[Sample]] = {}
    for sample in _samples(phantom / "cohort"):
        if sample.split == "train":
            by_subject.setdefault(sample.subject_id, []).append(sample)
    rows = {s.sample_id: s for own in by_subject.values() for s in own}
    middles = [own[len(own) // 2] for _, own in sorted(by_subject.items())]
    tables = []
    for source, other in zip(VENDORS, reversed(VENDORS), strict=True):
        (folder,) = (phantom / "labellers").glob(f"{source}-*")
        shown = [s for s in middles if s.acquisition.manufacturer == VENDORS[other]]
        tables.append(_labels(f"Labels of {other} by a segmenter of {source}", load_segmenter(str(folder)), shown))
        tables.append(_errors(f"Augmented rows, {source} → {other}", phantom, source, rows))
    for table in tables:
        table.show()
    path = record("study", [table.to_dict() for table in tables])
    path.with_suffix(".png").write_bytes(draw([table for table in tables if table.pictures]))
    console.print(path)


def _samples(folder: Path) -> Iterator[Sample]:
    store = Store(str(folder))
    return iter_samples(store, dataset_files(store))


def _labels(title: str, segmenter: Segmenter, shown: list[Sample]) -> Comparison:
    found: dict[str, dict[str, list[float]]] = {
        kind: {name: [] for name in LABELS} for kind in ("segmenter alone", "sharpened by intensities")
    }
    for part in batches(shown):
        images = np.stack([normalise(s) for s in part])
        for sample, image, planes in zip(part, images, segmenter.predict(images), strict=True):
            for values, likely in zip(found.values(), (planes, refined(image, planes)), strict=True):
                best = np.concatenate([1 - likely.sum(0, keepdims=True), likely]).argmax(0)
                for n, name in enumerate(segmenter.regions, start=1):
                    values[name].append(dice(best == n, sample.label == sample.labels[name]))
    subjects = [s.subject_id for s in shown]
    return Comparison(f"{title}, {len(shown)} training subjects", LABELS, intervals(found, subjects))


def _errors(title: str, phantom: Path, source: str, rows: dict[str, Sample]) -> Comparison:
    """Of one accepted row per subject, and of what the untrained generator made of the same slices."""
    assert isinstance(BREASTS.cohort, Cohort)
    made = {kind: list(_samples(phantom / folder / source)) for kind, folder in MADE.items()}
    one = {s.subject_id: s for s in made["trained"]}
    pairs = [(rows[s.provenance.parent_id], s) for _, s in sorted(one.items()) if s.provenance]
    controls = {s.provenance.parent_id: s for s in made["untrained"] if s.provenance}
    pairs = [(before, after) for before, after in pairs if before.sample_id in controls]
    found: dict[str, dict[str, list[float]]] = {m: {e: [] for e in ERRORS} for m in ("identity", *MADE)}
    pictures: dict[str, list[np.ndarray]] = {name: [] for name in ("source", "trained", "truth", "untrained")}
    with stage(title) as progress:
        for n, (before, after) in enumerate(pairs):
            progress(n, len(pairs), {})
            control = controls[before.sample_id]
            truths = [
                normalise(true_counterfactual(BREASTS.cohort, s, s.acquisition, BREASTS.preparation))
                for s in (after, control)
            ]
            shown = {"identity": normalise(before), "trained": normalise(after), "untrained": normalise(control)}
            assert before.label is not None  # the phantom's always are
            for method, image in shown.items():
                truth = truths[method == "untrained"]
                body = body_mask(truth)
                measured = fidelity(image, truth, {"body": body, "tissue": before.label > 0})
                measured["texture"] = texture_ratio(image, truth, body)
                for e in ERRORS:
                    found[method][e].append(measured[e])
            if n % max(1, len(pairs) // PICTURES) == 0:
                columns = (shown["identity"], shown["trained"], truths[0], shown["untrained"])
                for images, image in zip(pictures.values(), columns, strict=True):
                    images.append(image[0])
    subjects = [before.subject_id for before, _ in pairs]
    ours, same = (found[m]["rmse_body"] for m in ("trained", "identity"))
    targets = (target("RMSE trained / identity", ours, same, subjects, 0.5),)
    title = f"{title}, {len(pairs)} training subjects"
    return Comparison(title, ERRORS, intervals(found, subjects), targets, {}, pictures)


if __name__ == "__main__":
    main()
