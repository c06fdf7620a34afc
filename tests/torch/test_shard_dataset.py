"""Random access: what an item holds, that it belongs to its caller, and what is in memory."""

from __future__ import annotations

import pickle
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from augmented_rows import NAMES, made_rows, real_row, real_rows
from builders import lesion_sample, write_samples
from object_store import BUCKET
from torch.utils.data import DataLoader, WeightedRandomSampler

from augengine.errors import ConfigError, DataError
from augengine.intensity import normalise
from augengine.io.store import Store
from augengine.records import IntensityRule, Sample
from augengine.torch import ShardDataset, ShardStream
from augengine.torch.items import IGNORED


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_samples(tmp_path_factory.mktemp("real"), real_rows())


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_samples(tmp_path_factory.mktemp("run"), made_rows(2))


def test_an_item_is_its_row(data: str, run: str) -> None:
    rows = real_rows()[:16] + made_rows(2)
    found = ShardDataset(data, run, augmented_weight=0.5)
    assert len(found) == len(rows)
    codes = np.zeros(256, np.int64)
    codes[[2, 5, 9]] = 1, 2, 3
    for n, row in enumerate(rows):
        item, made = found[n], row.provenance
        assert item["image"].dtype == torch.float32
        assert item["image"].numpy().tobytes() == normalise(row).tobytes()
        assert item["label"].dtype == torch.int64
        assert np.array_equal(item["label"], codes[row.label])
        assert item["affine"].dtype == torch.float64
        assert np.array_equal(item["affine"], row.affine)
        assert item["confidence"].dtype == torch.float32
        assert (item["confidence"] == 1).all()
        assert {k: v for k, v in item.items() if not torch.is_tensor(v)} == {
            "weight": 0.5 if made else 1.0,
            "synthetic": made is not None,
            "sample_id": row.sample_id,
            "subject_id": row.subject_id,
            "volume_id": row.volume_id,
            "slice_index": row.slice_index,
            "parent_id": made.parent_id if made else "",
            "policy": "removal" if made else "",
            "site": "",
            "split": "train",
        }
    assert found.label_names == NAMES
    assert found.channels == ("t1",)
    assert found.synthetic.tolist() == [row.provenance is not None for row in rows]
    assert found.subjects.tolist() == [row.subject_id for row in rows]
    assert found[-1]["sample_id"] == rows[-1].sample_id
    for beyond in (len(rows), -len(rows) - 1):
        with pytest.raises(IndexError):
            found[beyond]


@pytest.mark.parametrize("step", [1.0, 0.1])  # images that are stored as whole numbers, and as float32
def test_items_belong_to_their_caller(tmp_path: Path, step: float) -> None:
    rows = [row.replace(image=np.float32(step) * row.image) for row in real_rows()[:4]]
    uri = write_samples(tmp_path, rows)
    for options in ({}, {"normalise": None}, {"normalise": "channel"}, {"layout": "slice3d"}):
        found = ShardDataset(uri, **options)  # type: ignore[arg-type]
        first = {key: value.clone() for key, value in found[3].items() if torch.is_tensor(value)}
        item = found[3]
        for key in first:
            item[key].fill_(77)
        again = found[3]
        assert all(torch.equal(again[key], first[key]) for key in first)


def test_no_value_is_ever_none(tmp_path: Path) -> None:
    volume = lesion_sample(1, at_mm=(0.0, 0.0, 0.0), size=16, site=None, label=None, labels={})
    uri = write_samples(tmp_path, [volume])
    item = ShardDataset(uri, unlabelled="keep")[0]
    assert not [key for key, value in item.items() if value is None]
    assert (item["label"] == IGNORED).all()
    assert (item["confidence"] == 0).all()
    assert item["label"].shape == item["confidence"].shape == volume.image.shape[1:]
    assert item["slice_index"] == -1
    loss = torch.nn.functional.cross_entropy(torch.zeros(1, 3, 16, 16, 16), item["label"][None], reduction="sum")
    assert loss == 0


def test_confidence_is_a_share(tmp_path: Path) -> None:
    confidence = np.arange(1024, dtype=np.uint8).reshape(32, 32)
    uri = write_samples(tmp_path, [real_row(1, 0, label_confidence=confidence)])
    assert np.allclose(ShardDataset(uri)[0]["confidence"], confidence / 255, rtol=0, atol=1e-7)


def test_normalisation_and_layout(data: str) -> None:
    row = real_rows()[0]
    assert np.array_equal(ShardDataset(data, normalise=None)[0]["image"], row.image)
    channel = ShardDataset(data, normalise="channel")[0]["image"].numpy()
    assert np.allclose(channel, (row.image - row.image.mean()) / row.image.std(), atol=1e-5)
    item = ShardDataset(data, layout="slice3d")[0]
    shapes = [tuple(item[key].shape) for key in ("image", "label", "confidence")]
    assert shapes == [(1, 32, 32, 1), (32, 32, 1), (32, 32, 1)]
    for name, value in (("normalise", "minmax"), ("layout", "3d"), ("as_", "numpy")):
        with pytest.raises(ConfigError, match=f"{name} is one of"):
            ShardDataset(data, **{name: value})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="chanels"):
        ShardDataset(data, chanels=["t1"])  # type: ignore[call-arg]


def test_each_channel_keeps_its_own_range(tmp_path: Path) -> None:
    image = np.stack([np.full((32, 32), n, np.float32) for n in (10, 20)])
    ranges = ((0.0, 10.0), (10.0, 30.0))
    row = real_row(1, 0, image=image, channels=("t1", "t2"), intensity_range=ranges)
    uri = write_samples(tmp_path, [row])
    assert ShardDataset(uri)[0]["image"][:, 0, 0].tolist() == [1.0, 0.5]
    assert ShardDataset(uri, channels=["t2", "t1"])[0]["image"][:, 0, 0].tolist() == [0.5, 1.0]
    assert ShardDataset(uri, channels="t2")[0]["image"][:, 0, 0].tolist() == [0.5]


def test_ranges_that_were_measured_by_two_rules_are_no_common_scale(tmp_path: Path) -> None:
    other = real_row(2, 0, intensity_rule=IntensityRule(foreground="nonzero"))
    uri = write_samples(tmp_path, [real_row(1, 0), other])
    with pytest.raises(DataError, match=r"S002#0000: intensity ranges must be measured by one rule; S001#0000 has"):
        ShardDataset(uri)
    assert len(ShardDataset(uri, normalise="channel")) == len(ShardDataset(uri, normalise=None)) == 2


def test_a_constant_channel_becomes_zero(tmp_path: Path) -> None:
    uri = write_samples(tmp_path, [real_row(1, 0, image=np.full((1, 32, 32), 5, np.float32))])
    assert (ShardDataset(uri, normalise="channel")[0]["image"] == 0).all()


def test_a_transform_has_the_last_word(data: str) -> None:
    found = ShardDataset(data, transform=lambda item: (item["image"] * 2, item["sample_id"]))
    plain = ShardDataset(data)[2]
    image, name = found[2]
    assert torch.equal(image, plain["image"] * 2)
    assert name == plain["sample_id"]


def test_lesions_for_a_sampler_of_foreground(data: str) -> None:
    found = ShardDataset(data)
    assert found.has_lesion("cyst").tolist() == [n % 2 == 1 for n in range(16)]
    assert found.has_lesion().all()
    assert ShardDataset(data, labels={"lesion": "cyst"}).has_lesion().tolist() == [n % 2 == 1 for n in range(16)]
    with pytest.raises(ConfigError, match="unknown label 'cist'; did you mean 'cyst'"):
        found.has_lesion("cist")
    weights = np.where(found.has_lesion("cyst"), 1.0, 0.0)
    sampler = WeightedRandomSampler(weights.tolist(), 12, generator=torch.Generator().manual_seed(1))
    seen = torch.cat([batch["slice_index"] for batch in DataLoader(found, 4, sampler=sampler)])
    assert (seen % 2 == 1).all()


def test_a_batch_is_what_single_items_are(data: str, run: str) -> None:
    found = ShardDataset(data, run, cache_mb=0)
    order = [40, 3, 17, 3, 0, 41]
    assert [item["sample_id"] for item in found.__getitems__(order)] == [found[n]["sample_id"] for n in order]


def counted(found: ShardDataset, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files of the row groups that are read from now on."""
    reads: list[str] = []
    read = type(found._groups)._read
    monkeypatch.setattr(type(found._groups), "_read", lambda self, g: reads.append(g.name) or read(self, g))
    return reads


def test_what_is_in_memory_has_a_bound(data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = ShardDataset(data, cache_mb=0)
    group = found._groups[0].nbytes
    found._groups.limit = 2 * group + 1
    reads = counted(found, monkeypatch)
    for n in (0, 8, 0, 8, 0, 8):  # the data's two row groups
        found[n]
        assert found._groups.nbytes <= 2 * group + 1
    assert len(reads) == 1
    found._groups.limit = group
    found._groups._forget()
    for n in (0, 8, 0, 8):
        found[n]
        assert found._groups.nbytes <= group
    assert len(reads) == 1 + 4
    with pytest.raises(ConfigError, match="cache_mb"):
        ShardDataset(data, cache_mb=-1)


def test_arrow_keeps_its_own_memory_pool(data: str) -> None:
    """It is another one while row groups are decoded, however many threads do so at once."""
    before = pa.default_memory_pool().backend_name
    found = ShardDataset(data, cache_mb=0)
    own = found._groups.load(0)[0]["image"].to_pybytes()
    with ThreadPoolExecutor(4) as pool:
        copies = [ShardDataset.of(found.selected) for _ in range(24)]
        taken = list(pool.map(lambda copy: copy._groups.load(0)[0]["image"].to_pybytes(), copies))
    assert taken == [own] * 24
    assert pa.default_memory_pool().backend_name == before != "system"


def visit(found: ShardDataset, order: list[int]) -> None:
    for n in order:
        found[n]


def copies(count: int) -> list[Sample]:
    """The real rows so many times, each time as other volumes."""
    return [row.replace(volume_id=f"{row.volume_id}-{n}") for n in range(count) for row in real_rows(split="train")]


def test_a_shuffle_that_decodes_everything_again_and_again_is_told_of(tmp_path: Path) -> None:
    found = ShardDataset(write_samples(tmp_path, copies(8), per_file=24), cache_mb=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        visit(found, [*range(len(found)), *found.sampler(window=1)] * 5)
    assert found._groups._reads > 64
    again = ShardDataset.of(found.selected, cache_mb=0)
    with pytest.warns(RuntimeWarning, match=r"rows were read to give 64: .*pass sampler=data.sampler\(\)") as told:
        visit(again, [n % 8 * 24 for n in range(200)])
    assert len(told) == 1


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_read_what_the_process_itself_reads(data: str, run: str, context: str) -> None:
    found = ShardDataset(data, run)
    found[0]  # a worker must not share the open file
    loader = DataLoader(found, 5, num_workers=2, multiprocessing_context=context)
    own = torch.stack([found[n]["image"] for n in range(len(found))])
    assert torch.equal(torch.cat([batch["image"] for batch in loader]), own)


def test_a_pickled_data_set_carries_no_pixels(data: str) -> None:
    found = ShardDataset(data)
    before = len(pickle.dumps(found))
    for n in range(16):
        found[n]
    assert len(pickle.dumps(found)) <= before + 1000
    assert pickle.loads(pickle.dumps(found))[3]["sample_id"] == found[3]["sample_id"]


def test_data_on_any_storage(base: Store, data: str, run: str) -> None:
    write_samples(base.folder("real"), real_rows())
    write_samples(base.folder("run"), made_rows(2))
    near = ShardDataset(data, run)
    far = ShardDataset(base.folder("real"), base.folder("run"))
    far[0]  # a worker must not share the connection
    batches = list(DataLoader(far, 8, num_workers=1, multiprocessing_context="fork"))
    assert torch.equal(torch.cat([batch["image"] for batch in batches]), torch.stack([i["image"] for i in near]))
    stream = ShardStream(base.folder("real"), base.folder("run"), shuffle=False)
    assert [item["sample_id"] for item in stream] == [item["sample_id"] for item in near]


def test_storage_options_go_to_every_uri(data: str, s3_options: dict[str, Any], request: pytest.FixtureRequest) -> None:
    root = f"s3://{BUCKET}/{request.node.name}"
    write_samples(Store(f"{root}/real", s3_options), real_rows())
    write_samples(Store(f"{root}/run", s3_options), made_rows(2))
    far = ShardDataset(f"{root}/real", [f"{root}/run"], storage_options=s3_options)
    assert torch.equal(far[0]["image"], ShardDataset(data)[0]["image"])
    assert len(far) == 16 + 32
    folds = list(far.folds(2, augmented=[f"{root}/run"] * 2))
    assert [int(train.synthetic.sum()) for train, _ in folds] == [
        2 * int((~train.synthetic).sum()) for train, _ in folds
    ]


def test_a_shuffle_by_windows_visits_every_row_once_and_reads_each_group_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = write_samples(tmp_path, copies(6), per_file=24)
    found = ShardDataset(uri)
    sampler = found.sampler(seed=1, window=2)
    first = list(sampler)
    assert sorted(first) == list(range(len(found))) == sorted(sampler)
    assert list(sampler) == first != list(range(len(found)))
    sampler.set_epoch(1)
    assert list(sampler) != first
    found._groups.limit = 2 * found._groups[0].nbytes + 1
    found._groups._forget()
    reads: list[Any] = counted(found, monkeypatch)
    for _ in DataLoader(found, 4, sampler=sampler):
        pass
    assert len(reads) == len(set(reads)) == 6
    monkeypatch.setenv("WORLD_SIZE", "2")
    shares = []
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        shares.append(list(sampler))
        assert len(sampler) == len(shares[-1]) == len(found) // 2
    assert sorted(shares[0] + shares[1]) == list(range(len(found)))
