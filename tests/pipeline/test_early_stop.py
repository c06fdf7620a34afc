"""A run whose first units show that it cannot succeed ends there, with the gates that rejected most; others go on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from builders import slice_sample, write_checkpoint, write_samples

from augengine.load import load_policy
from augengine.pipeline.augment import augment
from augengine.pipeline.early_stop import EarlyStopError, Rate
from augengine.pipeline.units import INLINE

ROOT = Path(__file__).resolve().parents[2]


def units_until_hopeless(limit: float, shares: list[float], units: int = 70, rows: int = 8) -> int | None:
    rate = Rate(limit)
    for n, share in enumerate(shares, 1):
        rate.add(round(share * rows), rows)
        if rate.hopeless(units):
            return n
    return None


@pytest.mark.parametrize(
    ("limit", "share", "units", "ends"),
    [
        (0.4, 1.0, 70, 5),
        (0.05, 1.0, 70, 5),
        (0.0, 1.0, 70, 5),
        (0.4, 1.0, 1000, 50),  # 5 % of the units
        (0.4, 0.75, 70, 7),
        (0.4, 0.5, 70, None),  # above the limit, but not far
        (1.0, 1.0, 70, None),  # everything may be rejected
    ],
)
def test_how_soon_a_constant_share_ends_a_run(limit: float, share: float, units: int, ends: int | None) -> None:
    assert units_until_hopeless(limit, [share] * units, units) == ends


def test_runs_that_keep_their_limit_are_hardly_ever_ended() -> None:
    """Units of 8 rows whose share is drawn around the limit itself, the worst case: at most 5 % may end."""
    rng = np.random.default_rng(0)
    draws = rng.beta(0.4 * 2, 0.6 * 2, (300, 70))  # subjects differ much
    ended = [units_until_hopeless(0.4, list(rng.binomial(8, row) / 8)) is not None for row in draws]
    assert np.mean(ended) <= 0.05


def test_a_unit_without_judged_rows_says_nothing() -> None:
    rate = Rate(0.4)
    rate.add(0, 0)
    assert (rate.counted, rate.share, rate.evidence) == (0, 0.0, 1.0)


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("early")
    values = yaml.safe_load((ROOT / "augengine/policies/duke_acquisition.yaml").read_text())
    values |= {"select": {"split": "train"}}
    values |= {"gates": [{"name": "changed", "max": 0.0}, {"name": "out_of_range", "max": 1.0}]}
    values["output"] |= {"retries": 0, "max_reject_rate": 0.4}
    values["sampler"] = {"solver": "ddim", "steps": 1}
    (folder / "policy.yaml").write_text(yaml.safe_dump(values))
    rows = [slice_sample(s, size=16) for s in range(12)]
    return {
        "policy": load_policy(folder / "policy.yaml"),
        "data": write_samples(folder / "data", rows, per_file=1),
        "model": {"generator": write_checkpoint(folder / "model", size=16)},
        "folder": folder,
    }


def run(setup: dict[str, Any], name: str, **options: Any) -> Any:
    out = f"{setup['folder']}/{name}"
    return augment(setup["policy"], setup["data"], out, setup["model"], actors=INLINE, **options)


def test_a_run_that_cannot_succeed_ends_after_its_first_units(setup: dict[str, Any]) -> None:
    with pytest.raises(EarlyStopError) as error:
        run(setup, "ended")
    text = str(error.value)
    assert "100% of the rows of the first 5 of 12 units are rejected, at most 40% may be" in text
    assert "found changed (5 rows)" in text
    assert "--keep-going" in text
    commits = setup["folder"] / "ended/_commits"
    assert len(list(commits.iterdir())) == 5
    with pytest.raises(EarlyStopError):  # what is committed tells enough
        run(setup, "ended")
    assert len(list(commits.iterdir())) == 5
    summary = run(setup, "ended", keep_going=True)
    assert summary.counts == {"accepted": 0, "rejected": 12, "failed": 0, "skipped": 0}
    assert summary.run.skipped == 5
    assert summary.reasons == {"rejected": [("changed", 12)]}
