"""Shards of schema version 1, one intensity range for all channels, in everything that reads shards."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders import (
    SCHEMA_1,
    lesion_sample,
    schema_1_tables,
    slice_sample,
    write_checkpoint,
    write_samples,
    write_schema_1,
)
from training_cases import drawn, recipe, spec_of

from augengine.diffusion.checkpoint import read_spec, save_model
from augengine.downstream.inventory import take_inventory
from augengine.downstream.protocols import protocol
from augengine.downstream.views import view_of, write_views
from augengine.errors import CheckpointError, DataError
from augengine.gates.real_rows import read_real_rows
from augengine.intensity import normalise
from augengine.io.commits import committed_files
from augengine.io.dataset import dataset_files, write_dataset
from augengine.io.shards import METADATA_COLUMNS, SCHEMA, iter_metadata, iter_samples, read_group, to_table
from augengine.io.store import Store
from augengine.load import load_policy
from augengine.metrics.extractors import load_extractor
from augengine.metrics.features import FeatureMeasure
from augengine.pipeline.augment import augment
from augengine.pipeline.forecast import forecast
from augengine.pipeline.lineage import Run
from augengine.pipeline.measure import measure
from augengine.pipeline.pseudo_labels import pseudo_label
from augengine.pipeline.units import INLINE
from augengine.policy.spec import Select
from augengine.records import IntensityRule, Sample
from augengine.train.data import BatchReader
from augengine.train.model import model_spec
from augengine.train.rows import SplitRows, dataset_facts

ONE = [slice_sample(s, i, split="train" if s else "test") for s in range(3) for i in range(3)]
TOGETHER = IntensityRule(together=True)
TWO = [lesion_sample(s, intensity_rule=TOGETHER) for s in range(4)]


def assert_same(found: Sample, expected: Sample) -> None:
    assert found.image.tobytes() == expected.image.tobytes()
    assert (found.intensity_range, found.intensity_rule) == (expected.intensity_range, expected.intensity_rule)
    assert found.acquisition == expected.acquisition
    np.testing.assert_array_equal(normalise(found), normalise(expected))


@pytest.mark.parametrize("samples", [ONE, TWO], ids=["one channel", "two"])
def test_rows_and_metadata(tmp_path: Path, samples: list[Sample]) -> None:
    store = Store(write_schema_1(tmp_path, samples))
    names = dataset_files(store)
    stored = store.parquet(names[0]).schema_arrow
    assert (stored.names, stored.metadata) == (SCHEMA_1.names, SCHEMA_1.metadata)
    assert (stored.field("intensity_low").type, "intensity_rule" in stored.names) == (pa.float64(), False)
    found = {s.sample_id: s for s in iter_samples(store, names)}
    assert len(found) == len(samples)
    for sample in samples:
        assert_same(found[sample.sample_id], sample)
    channels = len(samples[0].channels)
    for row in iter_metadata(store, names):
        assert list(row) == [*METADATA_COLUMNS, "labelled"]
        assert row["intensity_low"] == [samples[0].intensity_range[0][0]] * channels  # type: ignore[index]
        assert row["intensity_rule"] == {"percentiles": [10, 99], "foreground": "all", "together": channels > 1}


def test_a_row_group_comes_in_the_present_schema(tmp_path: Path) -> None:
    store = Store(write_schema_1(tmp_path, [*TWO[:2], TWO[2].replace(intensity_range=None)]))
    file = store.parquet(dataset_files(store)[0])
    table = read_group(file, 0, SCHEMA.names)
    assert (table.column_names, table.schema.metadata) == (SCHEMA.names, SCHEMA.metadata)
    assert pa.Table.from_pylist(table.to_pylist(), schema=SCHEMA).num_rows == 3
    assert set(read_group(file, 0).column_names) == set(SCHEMA.names) - {"slab_end_mm"}  # which nobody can tell
    assert read_group(file, 0, ["intensity_high"]).to_pydict() == {"intensity_high": [[620, 620]] * 2 + [None]}
    assert read_group(file, 0, ["split", "sample_id"]).column_names == ["split", "sample_id"]


def test_training(tmp_path: Path) -> None:
    two = Store(write_schema_1(tmp_path / "two", TWO)).uri
    found = dataset_facts(two, SplitRows("train"))
    assert found.intensity == TOGETHER
    batch = BatchReader(two, SplitRows("train"), 0, 4, rule=TOGETHER).batch(0)
    expected = sorted(normalise(s).tobytes() for s in TWO)
    assert sorted(image.tobytes() for image in batch.images) == expected
    spec = model_spec(recipe("m1"), found, {})
    assert spec.intensity.rule == TOGETHER  # the model states what it was trained with
    one = dataset_facts(Store(write_schema_1(tmp_path / "one", ONE)).uri, SplitRows("train"))
    assert one.intensity == IntensityRule()
    with pytest.raises(DataError, match="rows must have percentiles 10 and 99 of all voxels of each channel; found"):
        BatchReader(two, SplitRows("train"), 0, 4, rule=IntensityRule()).batch(0)


def mixed(folder: Path, old: list[Sample], new: list[Sample]) -> str:
    return write_dataset(str(folder), [*schema_1_tables(old), to_table(new)]).uri


def test_mixed_folders_of_one_channel_are_one_data_set(tmp_path: Path) -> None:
    uri = mixed(tmp_path, ONE[:4], ONE[4:])
    store = Store(uri)
    assert [s.sample_id for s in iter_samples(store, dataset_files(store))] == [s.sample_id for s in ONE]
    assert dataset_facts(uri, SplitRows("train")).rows == 6


def test_mixed_folders_of_several_channels_are_refused(tmp_path: Path) -> None:
    uri = mixed(tmp_path, TWO[:2], [s.replace(intensity_rule=IntensityRule()) for s in TWO[2:]])
    with pytest.raises(DataError, match=r"rows must share one intensity_rule.*'together': True.*found.*False"):
        dataset_facts(uri, SplitRows("train"))
    policy, model = acquisition_policy(tmp_path), write_checkpoint(tmp_path / "model", channels=("t1", "flair"))
    with pytest.raises(CheckpointError, match=r"trained on percentiles .* of each channel; found .* together"):
        augment(load_policy(policy), uri, str(tmp_path / "out"), {"": model}, actors=INLINE)


def acquisition_policy(folder: Path) -> str:
    path = folder / "policy.yaml"
    path.write_text(
        "version: 1\nname: old\nedit: acquisition\nselect: {split: train}\n"
        "params: {target: {empirical: {from: duke_protocols}}}\nsampler: {steps: 2}\n"
        "gates: [{name: changed, min: 0.0}]\n"
    )
    return str(path)


def test_augmented_rows_keep_the_scale_of_their_sources(tmp_path: Path) -> None:
    """Written in the present schema, they say that their channels share a range; the same pixels come out."""
    policy = load_policy(acquisition_policy(tmp_path))
    model = write_checkpoint(tmp_path / "model", channels=("t1", "flair"))
    made: dict[str, list[Sample]] = {}
    spec = read_spec(model)
    for name, write in (("old", write_schema_1), ("new", write_samples)):
        save_model(
            Store(f"{tmp_path}/model"),
            spec.model_copy(update={"intensity": spec.intensity.model_copy(update={"together": True})}),
            drawn(spec, 3).state_dict(),
        )
        data = write(tmp_path / name, TWO)
        out = str(tmp_path / f"{name}-out")
        augment(policy, data, out, {"": model}, actors=INLINE)
        store = Store(out)
        made[name] = list(iter_samples(store, committed_files(store, "accepted")))
        written = pq.read_schema(store.path(committed_files(store, "accepted")[0]))
        assert (written.names, written.metadata) == (SCHEMA.names, SCHEMA.metadata)
        run = Run(out)
        assert_same(run.source(TWO[0].sample_id), TWO[0])
        assert run.replay(made[name][0].sample_id).equal
        assert forecast(policy, data, {"": model}).drawn == 4
    assert len(made["old"]) == len(TWO)
    for old, new in zip(made["old"], made["new"], strict=True):
        assert_same(old, new)
        assert old.intensity_rule == TOGETHER


READERS: dict[str, Callable[[str, Path], Any]] = {
    "measure": lambda uri, _: measure(
        uri, FeatureMeasure, {"make": load_extractor, "kind": "radiomics", "keep": 12}, actors=INLINE
    ).kept.tobytes(),
    "real rows": lambda uri, _: [
        (r.row.sample_id, normalise(r.row).tobytes(), r.following is not None)
        for r in read_real_rows(uri, Select(split="train"), 5)
    ],
    "views": lambda uri, out: views(uri, out),
    "pseudo-labels": lambda uri, out: pseudo_labels(uri, out),
}


def views(uri: str, out: Path) -> Any:
    asked = protocol("phantom_transductive")
    found = take_inventory(uri, asked)
    view = view_of("all", found, found.scanned({str(s.acquisition.manufacturer) for s in ONE}, {"train"}))
    (folder,) = write_views([view], str(out), asked, actors=INLINE).values()
    return [read_group(Store(folder).parquet(n), 0).to_pylist() for n in dataset_files(Store(folder))]


def pseudo_labels(uri: str, out: Path) -> Any:
    spec = spec_of("segmenter", data={"regions": {"tissue": ("grey",)}})
    save_model(Store(out / "segmenter/unet/checkpoint"), spec, drawn(spec, 3).state_dict())
    checkpoint = f"{out}/segmenter/unet/checkpoint"
    folder = pseudo_label(uri, checkpoint, str(out / "labelled"), actors=INLINE)
    return [read_group(Store(folder).parquet(n), 0).to_pylist() for n in dataset_files(Store(folder))]


@pytest.mark.parametrize("reader", READERS)
def test_other_readers_see_what_they_see_in_the_present_schema(tmp_path: Path, reader: str) -> None:
    samples = [s.replace(labels={"fat": 1, "fibroglandular": 2}) for s in ONE]
    one, two = write_schema_1(tmp_path / "old", samples), write_samples(tmp_path / "new", samples)
    old, new = (READERS[reader](uri, tmp_path / f"{n}-out") for n, uri in (("old", one), ("new", two)))
    assert old
    assert str(old) == str(new)
