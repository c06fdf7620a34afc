"""The section `runtime` of a policy: what it refuses, what of it is digested, and what `auto` becomes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from builders import slice_sample, write_checkpoint, write_samples

from augengine.diffusion.checkpoint import read_spec
from augengine.errors import ConfigError
from augengine.io.commits import committed_files
from augengine.io.shards import iter_samples
from augengine.io.store import Store
from augengine.load import LoadedPolicy, Mixture, load_mixture, load_policy
from augengine.pipeline import runtime as resolve
from augengine.pipeline.augment import POLICY, augment
from augengine.pipeline.lineage import Run
from augengine.pipeline.runtime import settled
from augengine.pipeline.units import INLINE
from augengine.policy.runtime import Runtime
from augengine.runtime import capabilities
from augengine.runtime.calibrate import BUDGET_S, measure

TEXT = """\
version: 1
name: test
edit: acquisition
seed: 3
select: {split: train, where: {manufacturer: SIEMENS}}
params: {target: {empirical: {from: samples, where: {manufacturer: GE MEDICAL SYSTEMS}}}}
sampler: {steps: 2}
gates: [{name: changed, min: 0.0}]
output: {retries: 0, max_reject_rate: 0.5, micro_batch: 4}
"""


def load(tmp_path: Path, runtime: str = "") -> LoadedPolicy:
    (tmp_path / "policy.yaml").write_text(TEXT + (f"runtime: {runtime}\n" if runtime else ""))
    return load_policy(tmp_path / "policy.yaml")


@pytest.mark.parametrize(
    ("runtime", "says"),
    [
        ("{backend: tensorrt}", "'openvino'"),
        ("{precision: int8}", "'bf16'"),
        ("{network_batch: 0}", "greater than or equal to 1"),
        ("{backnd: eager}", "did you mean 'backend'"),
        ("{backend: openvino, channels_last: true}", "openvino chooses its own layouts"),
    ],
)
def test_mistakes_in_a_runtime_are_named_with_their_line(tmp_path: Path, runtime: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, runtime)
    assert "policy.yaml:10:" in str(caught.value)
    assert says in str(caught.value)


def test_policies_without_the_section_keep_the_digests_that_they_had_before_there_was_one(tmp_path: Path) -> None:
    assert load_mixture("duke_acquisition_paper").digest == "2f6b014e9f3a4457fdb2815ad7b2f555"
    plain = load(tmp_path)
    assert load(tmp_path, "{backend: eager, precision: fp32}").digest == plain.digest
    others = ["{backend: compile}", "{precision: bf16}", "{channels_last: true}", "{network_batch: 1}"]
    assert len({plain.digest, *(load(tmp_path, text).digest for text in others)}) == 5


def chosen(mixture: Mixture, specs: Any, device: str = "cpu", folder: str = "nowhere", rows: int = 2) -> Runtime:
    found = settled(mixture, specs, device, Store.at(folder), POLICY, lambda *_: rows)
    return found.members[0].policy.runtime


@pytest.fixture
def specs(tmp_path: Path) -> Any:
    return {"test": {"generator": read_spec(write_checkpoint(tmp_path / "model"))}}


@pytest.mark.parametrize(
    ("device", "able", "precision", "backend", "rows"),
    [
        ("cpu", {"fp32"}, "fp32", "openvino", 2),
        ("cpu", {"fp32"}, "bf16", "eager", 2),
        ("cpu", set(), "fp32", "eager", 2),
        ("cuda", {"fp32"}, "fp32", "eager", "whole"),
    ],
)
def test_auto_becomes_what_the_machine_can_do(
    tmp_path: Path,
    specs: Any,
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    able: set[str],
    precision: str,
    backend: str,
    rows: Any,
) -> None:
    for module in (capabilities, resolve):
        monkeypatch.setattr(module, "openvino_precisions", lambda: frozenset(able))
    asked = Mixture((load(tmp_path, f"{{backend: auto, precision: {precision}, network_batch: auto}}"),))
    found = chosen(asked, specs, device, str(tmp_path / "out"))
    assert found == Runtime(backend=backend, precision=precision, network_batch=rows)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("runtime", "device", "able", "says"),
    [
        ("{backend: openvino}", "cpu", set(), "pip install 'augengine[openvino]'"),
        ("{backend: openvino, precision: bf16}", "cpu", {"fp32"}, "float32 on this processor, not in bf16"),
        ("{backend: openvino}", "cuda", {"fp32"}, "is for CPUs"),
    ],
)
def test_what_a_machine_cannot_do_is_refused_before_the_run(
    tmp_path: Path, specs: Any, monkeypatch: pytest.MonkeyPatch, runtime: str, device: str, able: set[str], says: str
) -> None:
    monkeypatch.setattr(capabilities, "openvino_precisions", lambda: frozenset(able))
    with pytest.raises(ConfigError) as caught:
        chosen(Mixture((load(tmp_path, runtime),)), specs, device, str(tmp_path / "out"))
    assert says in str(caught.value)


def test_a_runtime_of_models_that_diffuse_nothing_is_refused(tmp_path: Path, specs: Any) -> None:
    other = {"test": {"generator": specs["test"]["generator"].model_copy(update={"diffusion": None})}}
    with pytest.raises(ConfigError, match="for models that diffuse"):
        chosen(Mixture((load(tmp_path, "{precision: bf16}"),)), other, folder=str(tmp_path / "out"))


def test_a_mix_settles_every_member(specs: Any, tmp_path: Path) -> None:
    plain = load_mixture("brats_mix").to_dict()
    for member in plain["mix"]:
        member["policy"]["runtime"] = {"network_batch": "auto"}
    mix = Mixture.from_dict(plain)
    spec = specs["test"]["generator"]
    described = {m.name: dict.fromkeys(m.roles, spec) for m in mix.members}
    found = settled(mix, described, "cpu", Store.at(str(tmp_path / "out")), POLICY, lambda *_: 2)
    assert [m.policy.runtime.network_batch for m in found.members] == [2] * len(mix.members)
    assert found.digest != mix.digest


def test_a_run_records_what_auto_became_and_goes_on_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_samples(tmp_path / "data", [slice_sample(s, i) for s in range(4) for i in range(3)])
    models = {"generator": write_checkpoint(tmp_path / "model")}
    out = str(tmp_path / "out")

    def run(rows: int) -> Any:
        monkeypatch.setattr(resolve, "measured_batch", lambda *_: rows)
        return augment(load(tmp_path, "{network_batch: auto}"), data, out, models, actors=INLINE)

    first = run(3)
    assert first.counts["accepted"] == 6
    stored = yaml.safe_load((tmp_path / "out" / POLICY).read_text())
    assert stored["runtime"]["network_batch"] == 3
    again = run(1)
    assert again.run.made == 0
    assert again.counts == first.counts
    store = Store.at(out)
    row = next(iter_samples(store, committed_files(store, "accepted")))
    held = Run(out)
    assert row.provenance is not None
    assert row.provenance.policy_digest == held.mixture.digest != load(tmp_path, "{network_batch: auto}").digest
    assert held.replay(row.sample_id).equal


def test_the_calibration_ends_where_rows_become_dearer_or_the_time_is_spent() -> None:
    now = [0.0]

    def costing(costs: dict[int, float]) -> Any:
        def evaluate(rows: int) -> None:
            now[0] += costs[rows] * rows

        return evaluate

    found = measure(costing({1: 1.0, 2: 0.8, 4: 1.2, 8: 0.1}), 8, lambda: now[0])
    assert found == pytest.approx({1: 1.0, 2: 0.8, 4: 1.2})
    slow = measure(costing(dict.fromkeys((1, 2, 4, 8, 16), BUDGET_S / 8)), 16, lambda: now[0])
    assert set(slow) == {1, 2}
