"""The dry run: every kind passes through it without training, and its table says what training would do."""

from __future__ import annotations

from pathlib import Path

import pytest
from training_cases import part_specs, recipe, samples_of, spec_of, write_parts, write_rows

from augengine.diffusion.build import build
from augengine.errors import ConfigError
from augengine.train.config import read_recipe
from augengine.train.estimate import _short
from augengine.train.objectives import objective
from augengine.train.preview import preview


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_rows(tmp_path_factory.mktemp("rows"), samples_of())


@pytest.mark.parametrize(
    ("case", "dims"),
    [
        ("structure", 2),
        ("counterfactual_dit", 2),
        ("label_segmenter", 2),
        ("error_corrector", 2),
        ("label_autoencoder", 2),
        ("segmenter", 2),
        ("acquisition_predictor", 2),
        ("m3", 3),
    ],
)
def test_the_table_is_complete_and_counts_the_network(case: str, dims: int, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "rows", samples_of(dims))
    planned = recipe(case, optimiser={"batch_size": 4, "accumulation": 2, "learning_rate": 1}, max_minutes=5)
    table = dict(preview(planned, data, 2, write_parts(tmp_path, part_specs(case, dims))))
    assert list(table)[:5] == ["kind, network", "rows", "steps", "batch", "parameters"]
    assert table["kind, network"] == f"{planned.kind}, {planned.network.body}"
    assert table["rows"] == f"4 of 4 subjects, 1 x {'16 x 16' if dims == 2 else '8 x 8 x 8'}"
    assert table["steps"] == "10 (10.0 epochs), or 5 min"
    assert table["batch"] == "4 rows: 2 workers x 2 x 1"
    assert {"weights", "gradients", "activations of 1 row", "memory of one worker", "arithmetic per row"} <= set(table)

    spec = spec_of(case, dims)
    trained = objective(planned, spec, build(spec))
    counts = [sum(p.numel() for p in trained.parameters() if p.requires_grad or kind == "all") for kind in ("all", "")]
    frozen = counts[0] - counts[1]
    expected = _short(counts[0]).strip() + (f", {_short(frozen).strip()} frozen" if frozen else "")
    assert table["parameters"] == expected
    assert bool(frozen) == bool(planned.parts)


def test_a_missing_part_is_named_with_its_option(rows: str) -> None:
    with pytest.raises(ConfigError, match="--part prior=FOLDER"):
        preview(recipe("label_segmenter"), rows, 1, {})


def test_a_fold_counts_its_own_rows(rows: str) -> None:
    found = [
        dict(preview(recipe("segmenter_nested", data={"regions": {"core": ["core"]}, "fold": [k, 2]}), rows, 1, {}))
        for k in (0, 1)
    ]
    assert sorted(int(table["rows"].split()[0]) for table in found) == [1, 3]  # S1 alone is of fold 1


def test_steps_of_voxels_are_told_as_such(rows: str) -> None:
    planned = read_recipe("local_contrast", ["optimiser.batch_size=512"])
    table = dict(preview(planned, rows, 2, {}))
    assert table["steps"] == str(planned.steps)
    assert table["batch"] == "512 voxels: 2 workers x 1 x 256"
    assert "activations of 256 rows" in table
