"""What `ShardDataset` and `ShardStream` both take, in; the rows selected, and the form of their items, out.

An item is a dictionary, and no value in it is None:
    image: float32 (C, I, J), or (C, I, J, K) of a volume.
    label: int64 of the spatial shape; 0 is background, n + 1 is `label_names[n]`; -100 in a row without label map.
    confidence: float32 of the spatial shape, 0 (a guess) to 1 (certain); 1 where nobody says.
    affine: float64 (4, 4), voxel index to RAS+ mm; of a slice it places (i, j, 0).
    weight: float; synthetic: bool; slice_index: int, -1 of a volume.
    sample_id, subject_id, volume_id, parent_id, policy, site, split: str, "" where there is none.
Arrays belong to the item alone and can be written to.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, TypedDict

from augengine.selection import Condition, Labels, Request, Selected, select
from augengine.selection.labels import Wanted
from augengine.selection.request import Places, Unlabelled
from augengine.torch.items import As, Form, Item, Layout, Normalise


class Choice(TypedDict, total=False):
    """Which rows are wanted, and how.

    Attributes:
        split: `train` (the default), `val`, `test`, several of them, or None for all rows. With `train` among them all
            are trained on, and subjects of the others are held out.
        augmented_per_real: so many augmented rows for every real one that is trained on; those of a smaller ratio
            are among those of a larger. None takes all.
        balance: labels (such as `lesion`, or several) whose share of the rows stays that of the real ones.
            `augmented_per_real`, 0 to 1, then is a share: in every epoch so many of the real rows that show one of the
            labels, and of those that show none, give way to augmented ones of their kind, in each epoch others. For
            `ShardStream`, which knows its epoch; `ShardDataset` refuses it.
        channels: names, in the order wanted; None takes those of the rows.
        labels: names (`["csf", "lesion"]`) or unions (`{"lesion": ["core", "oedema"]}`); None takes all labels of the
            rows, in the order of their codes.
        where: conditions such as `policy = tumor_removal`, `gate.label_agreement >= 0.8`, `manufacturer = GE|SIEMENS`;
            all must hold.
        exclude_subjects: held out, as if they were of the test split: none of their rows, none made of them, and no
            generator that was trained on them.
        checkpoints: folders of the models that made the augmented rows, if they are no longer where the runs say.
        unlabelled: rows without label map are an error (`refuse`), left out (`skip`), or kept (`keep`).
        storage_options: of the file system of all URIs.
        normalise, layout, as_, transform, augmented_weight: see `Form`.
    """

    split: str | Sequence[str] | None
    augmented_per_real: float | None
    balance: str | Sequence[str]
    channels: Sequence[str] | None
    labels: Wanted | Labels
    where: str | Iterable[str | Condition]
    exclude_subjects: Collection[str]
    checkpoints: Places
    unlabelled: Unlabelled
    storage_options: Mapping[str, object] | None
    normalise: Normalise | None
    layout: Layout
    as_: As
    transform: Callable[[Item], Item] | None
    augmented_weight: float


def chosen(real: Places, augmented: Places, choice: Choice) -> tuple[Selected, Form]:
    """Find the rows.

    Raises:
        ConfigError: values that cannot be obeyed.
        DataError: no rows, or rows that do not fit together.
        LeakageError: a held-out subject, or one of the splits `val` and `test`, had a part in an augmented row.
    """
    fields = Form.__dataclass_fields__
    form: dict[str, Any] = {name: value for name, value in choice.items() if name in fields}
    rows: dict[str, Any] = {name: value for name, value in choice.items() if name not in fields}
    made, split = Form(**form), choice.get("split", "train")
    # One loader trains on all that it reads, if it trains.
    training = split if split and not isinstance(split, str) and "train" in split else ("train",)
    return select(Request.of(real, augmented, training=training, **rows)), made
