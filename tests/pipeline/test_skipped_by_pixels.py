"""A row that an edit finds it cannot serve only when it has the pixels: skipped with the reason, not failed."""

from pathlib import Path

from builders import lesion_sample, tiny_bank, write_samples

from augengine.bundled import policy_file
from augengine.diffusion.checkpoint import save_model
from augengine.io.store import Store
from augengine.load import load_mixture
from augengine.pipeline.augment import augment
from augengine.pipeline.units import INLINE


def test_lesions_without_room_are_skipped_and_their_neighbours_made(tmp_path: Path) -> None:
    samples = [lesion_sample(n) for n in range(3)]
    data = write_samples(tmp_path / "data", samples)
    bank = tiny_bank(samples)
    save_model(Store(str(tmp_path / "bank")), bank.spec, bank.network.state_dict())
    for scale, outcome in (("[0.5, 0.5]", "accepted"), ("[4, 4]", "skipped")):
        settings = [
            f"params.scale={scale}",
            "params.recipients=any",
            "params.tries=40",
            "gates=[{name: changed, min: 0}]",
        ]
        loaded = load_mixture(policy_file("brats_lesion_insertion"), settings)
        done = augment(loaded, data, str(tmp_path / outcome), {"bank": str(tmp_path / "bank")}, actors=INLINE)
        assert done.counts == {"accepted": 0, "rejected": 0, "failed": 0, "skipped": 0} | {outcome: 3}
    assert "no room for a lesion in … tries" in done.reasons["skipped"][0][0]
