"""A segmenter's rows in; a line of warning where augmented rows change how common its labels are, out.

A segmenter learns how often a lesion is there: rows with lesions, added to real ones, make it find them in healthy
slices, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from augengine.io.dataset import dataset_files
from augengine.io.shards import read_group
from augengine.io.store import Store
from augengine.selection.balance import shows
from augengine.train.rows import SplitRows

TOLD = 0.05
"""Smaller changes of a share are not told."""
_COLUMNS = ["label", "label_names", "label_codes"]


def share_warning(stores: Sequence[Store], rows: SplitRows, regions: Mapping[str, Sequence[str]]) -> str | None:
    """What to tell of the region whose share of the rows changes most; None if none does by much.

    Reads the label maps of all rows once, if there are augmented rows and no labels are balanced.

    Args:
        stores: the data sets, real and augmented.
        rows: those that are trained on.
        regions: name to the labels whose union it is.
    """
    if rows.balance or not regions or not _any_augmented(stores):
        return None
    rows = rows.within(stores)
    counted = {name: [0, 0] for name in regions}  # real, all
    total = [0, 0]
    columns = list(dict.fromkeys((*rows.columns, *_COLUMNS)))
    for store in stores:
        for name in dataset_files(store):
            file = store.parquet(name)
            for group in range(file.num_row_groups):
                for row in filter(rows.holds, read_group(file, group, columns).to_pylist()):
                    kinds = (1,) if row["synthetic"] else (0, 1)
                    for kind in kinds:
                        total[kind] += 1
                    for region, labels in regions.items():
                        if shows(row, labels):
                            for kind in kinds:
                                counted[region][kind] += 1
    if not total[0] or total[0] == total[1]:
        return None
    shares = {name: (real / total[0], every / total[1]) for name, (real, every) in counted.items()}
    region, (real, every) = max(shares.items(), key=lambda item: abs(item[1][1] - item[1][0]))
    if abs(every - real) < TOLD:
        return None
    names, much = ",".join(regions[region]), "often" if every > real else "seldom"
    return (
        f"{region} shows in {real:.0%} of the real rows and in {every:.0%} of all: the segmenter will find it too "
        f"{much}. --set data.balance=[{names}] --set data.augmented_per_real=0.5 keeps the share"
    )


def _any_augmented(stores: Sequence[Store]) -> bool:
    return any(
        True in read_group(store.parquet(name), group, ["synthetic"])["synthetic"].to_pylist()
        for store in stores
        for name in dataset_files(store)
        for group in range(store.parquet(name).num_row_groups)
    )
