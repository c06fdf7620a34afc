"""A mix through the real pipeline: every requested row once, by the member that was drawn for it."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from builders import slice_sample, write_checkpoint, write_samples
from typer.testing import CliRunner

from augengine.cli import app
from augengine.errors import ConfigError, RunError
from augengine.io.commits import committed_files
from augengine.io.shards import iter_samples
from augengine.io.store import Store
from augengine.load import Mixture, load_mixture
from augengine.pipeline.augment import AugmentSummary, augment
from augengine.pipeline.forecast import forecast
from augengine.pipeline.lineage import Run
from augengine.pipeline.units import INLINE, Actors
from augengine.records import Sample

MEMBER = """\
version: 1
name: NAME
edit: acquisition
select: {where: {WHERE}}
params: {method: METHOD, target: {empirical: {from: duke_protocols}}}
sampler: {steps: 2, strength: 0.5}
gates: [{name: changed, GATE}]
output: {retries: 0, micro_batch: 4}
"""
MIX = """\
version: 1
name: both
mix: [{policy: plain.yaml, share: 0.5}, {policy: siemens.yaml, share: 0.5}]
output: {per_input: 2}
"""
# Subjects 1 and 3 are Siemens, 0 and 2 are GE, 4 is for testing.
SAMPLES = [slice_sample(s, i, split="test" if s == 4 else "train") for s in range(5) for i in range(4)]


Made = tuple[Path, Mixture, AugmentSummary]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_checkpoint(tmp_path_factory.mktemp("model"))


def mix(tmp_path: Path, text: str = MIX, gate: str = "min: 0.0") -> Mixture:
    member = MEMBER.replace("GATE", gate)
    plain = member.replace("NAME", "plain").replace("METHOD", "sdedit").replace("WHERE", "")
    other = member.replace("NAME", "siemens").replace("METHOD", "structure").replace("WHERE", "manufacturer: SIEMENS")
    (tmp_path / "plain.yaml").write_text(plain)
    (tmp_path / "siemens.yaml").write_text(other)
    (tmp_path / "mix.yaml").write_text(text)
    return load_mixture(tmp_path / "mix.yaml")


def run(
    tmp_path: Path,
    mixture: Mixture,
    checkpoint: str,
    samples: list[Sample] = SAMPLES,
    out: str = "out",
    actors: Actors = INLINE,
    per_file: int = 8,
) -> AugmentSummary:
    data = write_samples(tmp_path / f"data-{out}", samples, per_file=per_file)
    return augment(mixture, data, str(tmp_path / out), {"": checkpoint}, actors=actors)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, checkpoint: str) -> Made:
    """A finished run of 32 rows; its folder holds the policies, too."""
    folder = tmp_path_factory.mktemp("mix")
    mixture = mix(folder)
    return folder, mixture, run(folder, mixture, checkpoint)


def rows(out: str, folder: str = "accepted") -> list[Sample]:
    store = Store(out)
    return list(iter_samples(store, committed_files(store, folder)))


def test_every_row_is_made_once_by_the_member_that_was_drawn(made: Made) -> None:
    _, mixture, summary = made
    assert summary.requested == summary.counts["accepted"] == 32
    accepted = rows(summary.out)
    found = Counter((s.provenance.parent_id, s.provenance.plan["replicate"]) for s in accepted)  # type: ignore[union-attr]
    assert found == {(s.sample_id, r): 1 for s in SAMPLES if s.split == "train" for r in (0, 1)}
    digests, methods = {m.name: m.digest for m in mixture.members}, Counter[str]()
    sources = {s.sample_id: s for s in SAMPLES}
    for sample in accepted:
        assert sample.provenance is not None
        source = sources[sample.provenance.parent_id]
        values = {"sample_id": source.sample_id, "split": "train", "acquisition": source.acquisition.to_dict()}
        drawn = mixture.drawn(values, sample.provenance.plan["replicate"])
        assert drawn is not None
        assert sample.provenance.policy == drawn.name
        assert sample.provenance.policy_digest == digests[drawn.name]
        assert set(sample.provenance.models) == {"generator"}
        methods[f"{source.acquisition.manufacturer} {drawn.name}"] += 1
    # What only one member selects is all its own; the others are dealt.
    assert methods["GE MEDICAL SYSTEMS plain"] == 16
    assert methods["SIEMENS plain"] + methods["SIEMENS siemens"] == 16
    assert min(methods.values()) > 2
    manifest = Store(summary.out).read_json("manifest.json")
    assert {n: m["requested"] for n, m in manifest["members"].items()} == {
        "plain": 16 + methods["SIEMENS plain"],
        "siemens": methods["SIEMENS siemens"],
    }
    assert {n: m["digest"] for n, m in manifest["members"].items()} == digests


def test_a_row_of_a_mix_is_the_row_that_its_member_makes_alone(made: Made, tmp_path: Path, checkpoint: str) -> None:
    folder, mixture, summary = made
    data = str(folder / "data-out")
    alone = augment(mixture.members[0], data, str(tmp_path / "alone"), {"generator": checkpoint}, actors=INLINE)
    by_id = {s.sample_id: s.image.tobytes() for s in rows(alone.out)}
    shared = [s for s in rows(summary.out) if s.sample_id in by_id]
    assert len(shared) > 8  # the first replicates that the member got
    assert all(s.image.tobytes() == by_id[s.sample_id] for s in shared)


def test_rows_depend_on_no_layout_actors_or_rerun(made: Made, tmp_path: Path, checkpoint: str) -> None:
    folder, mixture, first = made
    shuffled = [SAMPLES[n] for n in np.random.default_rng(0).permutation(len(SAMPLES))]
    other = run(tmp_path, mixture, checkpoint, shuffled, "other", per_file=3)
    assert {s.sample_id: s.image.tobytes() for s in rows(first.out)} == {
        s.sample_id: s.image.tobytes() for s in rows(other.out)
    }
    spread = Actors(count=7, num_cpus=3, unit_timeout_s=60, inline=True)
    again = run(folder, mixture, checkpoint, actors=spread)
    assert (again.run.made, again.members) == (0, first.members)
    with pytest.raises(RunError, match="holds a run with another policy_digest"):
        run(folder, mix(tmp_path, MIX.replace("both", "both\nseed: 5")), checkpoint)


def test_the_limits_of_each_member_hold_for_its_own_rows(tmp_path: Path, checkpoint: str) -> None:
    summary = run(tmp_path, mix(tmp_path, gate="min: 1000"), checkpoint)
    assert summary.counts["rejected"] == summary.requested == 32
    assert summary.shortcoming == "policy plain: at most 40% of the rows may be rejected, found 100%"


def test_rows_replay_and_commands_read_a_mix(made: Made, tmp_path: Path, checkpoint: str) -> None:
    folder, mixture, summary = made
    out = summary.out
    reader = Run(out)
    for member in mixture.members:
        output_id = next(s.sample_id for s in rows(out) if s.provenance and s.provenance.policy == member.name)
        assert reader.replay(output_id).equal

    def invoke(*args: str) -> str:
        result = CliRunner().invoke(app, list(args), env={"COLUMNS": "200"})
        assert result.exit_code == 0, result.output
        return result.output

    text = invoke("explain", output_id, "--out", out, "--picture", str(tmp_path / "row.png"))
    for said in (f"mix: both (digest {mixture.digest})", f"policy: siemens (digest {member.digest})", checkpoint):
        assert said in text
    file, data = str(folder / "mix.yaml"), str(folder / "data-out")
    assert f"mix both, edits acquisition, acquisition, digest {mixture.digest}" in invoke("check", file)
    text = invoke("plan", file, data, "--checkpoint", f"siemens.generator={checkpoint},{checkpoint}")
    assert "requested of siemens" in text
    figures = tmp_path / "figures.json"
    text = invoke("calibrate", file, data, "--per-defect", "4", "--rows", "12", "--out", str(figures))
    assert "plain: gates on" in text
    assert set(json.loads(figures.read_text())) == {"plain", "siemens"}


def test_models_are_named_by_member(tmp_path: Path, checkpoint: str) -> None:
    mixture, data = mix(tmp_path), write_samples(tmp_path / "data", SAMPLES)
    with pytest.raises(ConfigError, match="policy 'plain' needs a checkpoint for the role 'generator'"):
        augment(mixture, data, str(tmp_path / "out"), {"siemens.generator": checkpoint}, actors=INLINE)
    other = write_checkpoint(tmp_path / "other", seed=3)
    models = {"": checkpoint, "siemens.generator": other}
    out = augment(mixture, data, str(tmp_path / "out"), models, actors=INLINE).out
    hashes = {s.provenance.policy: s.provenance.models["generator"] for s in rows(out) if s.provenance}
    assert len(set(hashes.values())) == 2
    found = forecast(mixture, data, models, rows_drawn=4)
    assert (found.requested, found.drawn, found.outputs) == (32, 4, 32)
