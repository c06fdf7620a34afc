"""Data sets in; folders of shards that hold exactly the rows that one training may see, out.

A segmenter is pointed at such folders and at nothing else, so labels of another domain cannot reach it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from skimage.exposure import match_histograms

from augengine import __version__
from augengine.downstream.gaussian_mixture import mixtures
from augengine.downstream.inventory import Inventory, Scanned
from augengine.downstream.pasted import pasted
from augengine.downstream.protocols import Protocol
from augengine.gates import body_mask
from augengine.intensity import denormalise, normalise
from augengine.io.content import content_digest
from augengine.io.dataset import below, dataset_files, finish
from augengine.io.shards import SCHEMA, check_schema, from_row, iter_metadata, read_group, to_row
from augengine.io.store import Store
from augengine.pipeline.units import Actors, Progress, run_units
from augengine.pipeline.workers import Unit
from augengine.records import Provenance, Sample
from augengine.rng import digest, generator
from augengine.selection.balance import shows

STAGE = {"stage": "views"}
How = Literal["copied", "oversampled", "histogram_match", "pasted", "gmm"]
VERSIONS = {"pasted": 1, "gmm": 1, "oversampled": 1}
"""Of ways to make rows; another number makes them anew."""


@dataclass(frozen=True)
class View:
    """Which rows of a data set stand in a folder.

    Attributes:
        name: says in short what the folder holds.
        data: URI of the data set.
        source: digest of its rows.
        places: row groups that hold some of the rows.
        labelled: whose rows are taken with their labels; rows without any are left out.
        unlabelled: whose rows are taken without labels, those that have some included.
        splits: split of a row to the one that it is written with; rows of others are left out.
        donors: row groups whose images the rows are matched to, by histogram; none: rows stay as they are.
        how: what is made of the rows: a copy (`copied`), a copy of those that show a lesion (`oversampled`), one with
            a donor's histogram (`histogram_match`), one with a pasted lesion (`pasted`), or one of random Gaussian
            mixtures (`gmm`).
        copies: made rows per row.
        lesion: labels of what is pasted or oversampled.
        synthetic: the data set holds augmented rows, and those made from the subjects of `labelled` are taken: such a
            row's acquisition is the one that it was carried to, so it does not tell the source's domain.
    """

    name: str
    data: str
    source: str
    places: tuple[tuple[str, int], ...]
    labelled: frozenset[Scanned]
    unlabelled: frozenset[Scanned] = frozenset()
    splits: Mapping[str, str] = field(default_factory=lambda: {"train": "train"})
    donors: tuple[tuple[str, int], ...] = ()
    donor_scans: frozenset[Scanned] = frozenset()
    copies: int = 1
    synthetic: bool = False
    how: How = "copied"
    lesion: tuple[str, ...] = ()

    @property
    def folder(self) -> str:
        """Name of the folder: other rows, other name."""
        identity = [sorted(self.labelled), sorted(self.unlabelled), dict(self.splits), sorted(self.donor_scans)]
        made = [] if self.how in ("copied", "histogram_match") else [self.how, self.lesion, VERSIONS[self.how]]
        return f"{self.name}-{digest(self.source, self.places, *identity, self.copies, *made, length=12)}"


def view_of(
    name: str, data: Inventory, labelled: Iterable[Scanned], unlabelled: Iterable[Scanned] = (), **options: Any
) -> View:
    """A view of real rows."""
    with_labels, without = frozenset(labelled), frozenset(unlabelled)
    places = tuple(group.place for group in data.holding(with_labels | without))
    return View(name, data.uri, data.digest, places, with_labels, without, **options)


def augmented_views(name: str, folders: Sequence[str], rows: Iterable[Scanned], data: Inventory) -> list[View]:
    """One view per folder that holds augmented rows whose sources are among `rows`.

    A subject that was also scanned elsewhere is left out, since its augmented rows do not say which scan they show.
    """
    wanted = frozenset(rows)
    elsewhere = {subject for subject, value in data.split if (subject, value) not in wanted}
    wanted = frozenset(key for key in wanted if key[0] not in elsewhere)
    subjects = {subject for subject, _ in wanted}
    views = []
    for n, folder in enumerate(folders):
        store, places = Store(folder), []
        names = dataset_files(store)
        for file_name in names:
            file = store.parquet(file_name)
            check_schema(file, store.path(file_name))
            for group in range(file.num_row_groups):
                found = file.read_row_group(group, columns=["subject_id"]).to_pydict()
                if subjects & set(found["subject_id"]):
                    places.append((file_name, group))
        if places:
            source = content_digest(store, names)
            views.append(View(f"{name}-{n}", store.uri, source, tuple(places), wanted, synthetic=True))
    return views


def count_sources(folders: Sequence[str], data: Inventory) -> dict[str, int]:
    """Augmented rows by the domain value and split of the scans that they were made from, or `unknown`."""
    scans: dict[str, set[str]] = {}
    for (subject, value), split in data.split.items():
        scans.setdefault(subject, set()).add(f"{value} ({split})")
    found: Counter[str] = Counter()
    for folder in folders:
        store = Store(folder)
        for row in iter_metadata(store, dataset_files(store)):
            found[" or ".join(sorted(scans.get(row["subject_id"], {"unknown"})))] += 1
    return dict(found)


def matched_view(name: str, data: Inventory, rows: Iterable[Scanned], donors: Iterable[Scanned], copies: int) -> View:
    """A view of real rows, each with the intensities of a donor's row; donors' labels stay unread."""
    chosen = frozenset(donors)
    places = tuple(group.place for group in data.holding(chosen))
    return view_of(name, data, rows, donors=places, donor_scans=chosen, copies=copies, how="histogram_match")


def made_view(
    name: str, data: Inventory, rows: Iterable[Scanned], how: str, copies: int, lesion: Sequence[str] = ()
) -> View:
    """A view of what is made of real rows on the spot: `pasted`, of each other's lesions, `gmm` or `oversampled`."""
    return view_of(name, data, rows, copies=copies, how=how, lesion=tuple(lesion))


def write_views(
    views: Sequence[View], out: str, protocol: Protocol, *, actors: Actors, progress: Progress | None = None
) -> dict[str, str]:
    """Write what is missing of some views; URI of each folder by the view's name."""
    store, by_folder = Store(out), {view.folder: view for view in views}
    units = [
        Unit(digest(folder, name, group, length=16), {"folder": folder, "name": name, "group": group})
        for folder, view in by_folder.items()
        for name, group in view.places
    ]
    files = run_units(
        units, ViewWorker, {"views": by_folder, "protocol": protocol}, store, STAGE, actors=actors, progress=progress
    ).files
    for folder in by_folder:  # each is a data set of its own
        parts = below(folder, files.get(folder, ()))
        counts = {"samples": sum(part.rows or 0 for part in parts)}
        finish(store.folder(folder), {**STAGE, "counts": counts}, {"samples": parts})
    return {view.name: f"{store.uri}/{view.folder}" for view in views}


class ViewWorker:
    """Copies, or matches, the rows of one row group that belong to a view."""

    def __init__(self, views: Mapping[str, View], protocol: Protocol) -> None:
        self.views, self.protocol = views, protocol

    def __call__(self, spec: dict[str, Any]) -> dict[str, pa.Table]:
        """The rows as a table of the view's folder."""
        view = self.views[spec["folder"]]
        rows = list(self._rows(view, spec["name"], spec["group"]))
        if view.how not in ("copied", "oversampled"):
            rows = [to_row(sample) for sample in self._made(view, rows, (spec["name"], spec["group"]))]
        return {view.folder: pa.Table.from_pylist(rows, schema=SCHEMA)}

    def _rows(self, view: View, name: str, group: int) -> Iterable[dict[str, Any]]:
        subjects = {subject for subject, _ in view.labelled} if view.synthetic else set()
        for row in read_group(Store(view.data).parquet(name), group, SCHEMA.names).to_pylist():
            split = view.splits.get(row["split"])
            if split is None or row["synthetic"] != view.synthetic:
                continue
            key = (row["subject_id"], self.protocol.value(row))
            if view.synthetic:
                if row["subject_id"] in subjects:
                    yield {**row, "split": split}
            elif key in view.unlabelled:
                yield {**row, "label": None, "split": split}
            elif key not in view.labelled or row["label"] is None:
                continue
            elif view.how != "oversampled" or shows(row, view.lesion):
                yield {**row, "split": split}

    def _made(self, view: View, rows: Sequence[dict[str, Any]], place: tuple[str, int]) -> Iterable[Sample]:
        if view.how == "histogram_match":
            return self._matched(view, rows, place)
        samples, random = [from_row(row) for row in rows], generator(view.how, view.folder, *place)
        if view.how == "pasted":
            return pasted(samples, view.lesion, view.copies, random)
        return mixtures(samples, view.copies, random)

    def _matched(self, view: View, rows: Sequence[dict[str, Any]], place: tuple[str, int]) -> Iterable[Sample]:
        """Donors come from one row group, drawn for this one, so that a unit reads two groups at the most."""
        random = generator("histogram match", view.folder, *place)
        name, group = view.donors[int(random.integers(len(view.donors)))]
        found = read_group(Store(view.data).parquet(name), group, SCHEMA.names).to_pylist()
        donors = [
            from_row({**row, "label": None})
            for row in found
            if (row["subject_id"], self.protocol.value(row)) in view.donor_scans and row["split"] == "train"
        ]
        for row in rows:
            for copy in range(view.copies):
                donor = donors[int(random.integers(len(donors)))]
                yield matched(from_row(row), donor, copy)


def matched(sample: Sample, donor: Sample, copy: int) -> Sample:
    """A sample whose body has, channel by channel, the histogram of a donor's body.

    The body alone, since otherwise the share of air in the field of view would set the contrast of the tissue.
    """
    image, wanted = normalise(sample), normalise(donor)[:, body_mask(donor.image)]
    body = body_mask(sample.image)
    image[:, body] = [match_histograms(*pair) for pair in zip(image[:, body], wanted, strict=True)]
    plan = {"params": {"donor": donor.sample_id}, "donors": [donor.subject_id], "replicate": copy}
    output_id = digest("histogram_match", sample.sample_id, donor.sample_id, copy, length=24)
    provenance = Provenance(
        output_id=output_id,
        parent_id=sample.sample_id,
        policy="histogram_match",
        policy_digest=digest("body", 1),
        edit="histogram_match",
        plan=plan,
        engine_version=__version__,
    )
    return sample.replace(
        image=denormalise(np.asarray(image, np.float32), sample), acquisition=donor.acquisition, provenance=provenance
    )
