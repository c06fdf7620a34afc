"""Every way of evaluating a network gives what PyTorch gives in float32, within the tolerance that is stated for it."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from augengine.diffusion.checkpoint import Generator, untrained
from augengine.diffusion.conditions import TokenEmbedding, Vocabulary
from augengine.diffusion.counterfactual import sdedit
from augengine.diffusion.guidance import Guidance
from augengine.diffusion.spec import DiffusionSpec, ModelSpec
from augengine.diffusion.unet import UNetSpec
from augengine.policy.runtime import Runtime
from augengine.records import Acquisition
from augengine.runtime.calibrate import example
from augengine.runtime.network import channels_last, under

GE = Acquisition("GE", "Signa", 1.5, "SAT_GEMS\\FS", 10.0, 2.0, 2.4, 5.3)
SIEMENS = Acquisition("SIEMENS", "TrioTim", 3.0, "PFP\\SFS", 12.0, 1.1, 1.3, 4.0)
needs_openvino = pytest.mark.skipif(find_spec("openvino") is None, reason="the extra 'openvino' is not installed")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUGENGINE_CACHE", str(tmp_path))


@pytest.fixture(scope="module")
def generator() -> Generator:
    """MONAI's UNet in the shape of the paper's, tiny: attention over tokens, heads narrower than channels."""
    network = UNetSpec(channels=(16, 32), attention_levels=(2,), head_channels=8, norm_groups=8, token_dim=16)
    spec = ModelSpec(
        network=network,
        diffusion=DiffusionSpec(parametrisation="epsilon", schedule="cosine"),
        vocabulary=Vocabulary.fit((GE, SIEMENS)),
        channels=("t1",),
        image_size=(16, 16),
        spacing_mm=(1.0, 1.0),
    )
    return untrained(spec, seed=3)


def evaluated(generator: Generator, rows: int = 4) -> Tensor:
    with torch.no_grad():
        return generator.evaluate(*example(generator, rows)).float()


def edited(generator: Generator, rows: int, first: int = 0) -> np.ndarray:
    x = np.random.default_rng(1).random((8, 1, 16, 16), np.float32)[first : first + rows]
    seeds = range(first, first + rows)
    guidance = Guidance(3.0)
    return sdedit(generator, x, [SIEMENS] * rows, seeds, steps=4, strength=0.3, guidance=guidance)


def apart(found: Any, wanted: Any) -> float:
    """Root mean square of the difference, relative to that of what is wanted."""
    found, wanted = np.asarray(found, np.float64), np.asarray(wanted, np.float64)
    return float(np.sqrt(((found - wanted) ** 2).mean() / (wanted**2).mean()))


@pytest.mark.parametrize(
    ("runtime", "tolerance"),
    [
        (Runtime(channels_last=True), 1e-5),
        (Runtime(network_batch=3), 1e-5),
        (Runtime(precision="bf16"), 0.02),
        (Runtime(precision="bf16", channels_last=True, network_batch=1), 0.02),
        (Runtime(precision="fp16"), 0.003),
        pytest.param(Runtime(backend="openvino", network_batch=1), 1e-5, marks=needs_openvino),
        pytest.param(Runtime(backend="openvino"), 1e-5, marks=needs_openvino),
        pytest.param(Runtime(backend="compile", network_batch=2), 1e-5, marks=pytest.mark.slow),
    ],
)
def test_a_runtime_stays_within_its_tolerance_of_eager_float32(
    generator: Generator, runtime: Runtime, tolerance: float
) -> None:
    fast = under(generator, runtime)
    assert isinstance(fast, Generator)
    assert fast.evaluate is not generator.evaluate
    difference = apart(evaluated(fast), evaluated(generator))
    assert difference <= tolerance
    if runtime.precision != "fp32":
        assert difference > 1e-5, "this was computed in float32"
    assert apart(edited(fast, 3), edited(generator, 3)) <= tolerance


@pytest.mark.parametrize(
    "runtime",
    [
        Runtime(network_batch=2),
        Runtime(network_batch=1),
        Runtime(precision="bf16", network_batch=2),
        pytest.param(Runtime(backend="openvino", network_batch=2), marks=needs_openvino),
    ],
)
def test_in_portions_the_bits_of_a_row_do_not_depend_on_the_batch(generator: Generator, runtime: Runtime) -> None:
    fast = under(generator, runtime)
    assert isinstance(fast, Generator)
    together = edited(fast, 5)
    alone = np.concatenate([edited(fast, 1, first=n) for n in range(5)])
    assert together.tobytes() == alone.tobytes()
    assert together[3:].tobytes() == edited(fast, 2, first=3).tobytes()


def test_a_plain_runtime_is_the_model_itself(generator: Generator) -> None:
    assert under(generator, Runtime()) is generator


def test_weights_of_a_shared_model_are_left_as_they_are(generator: Generator) -> None:
    before = evaluated(generator)
    weights = [p.stride() for p in generator.network.parameters()]
    fast = under(generator, Runtime(precision="bf16", channels_last=True))
    assert [p.stride() for p in generator.network.parameters()] == weights
    assert torch.equal(evaluated(generator), before)
    assert isinstance(fast, Generator)
    assert fast.sha256 == generator.sha256


def test_channels_lie_innermost() -> None:
    network = channels_last(torch.nn.Sequential(torch.nn.Conv2d(4, 8, 3), torch.nn.Conv3d(2, 4, 3)))
    assert network[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert network[1].weight.is_contiguous(memory_format=torch.channels_last_3d)


def test_tokens_are_made_once_per_chain_and_are_those_of_every_step(
    generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = edited(generator, 2)
    made = []
    forward = TokenEmbedding.forward

    def counted(self: TokenEmbedding, condition: Any) -> Tensor:
        made.append(len(condition.features))
        return forward(self, condition)

    monkeypatch.setattr(TokenEmbedding, "forward", counted)
    assert edited(generator, 2).tobytes() == wanted.tobytes()
    assert made == [4], "of two rows, guided, once in four steps"
    monkeypatch.setattr(type(generator.network), "prepared", lambda self, conditioning, rows: conditioning)
    assert edited(untouched(generator), 2).tobytes() == wanted.tobytes()
    assert made == [4] * 5


def untouched(generator: Generator) -> Generator:
    return Generator(generator.spec, generator.network)


@needs_openvino
def test_a_conversion_is_kept_and_read_again(generator: Generator, tmp_path: Any) -> None:
    runtime = Runtime(backend="openvino", network_batch=1)
    first = under(generator, runtime)
    assert isinstance(first, Generator)
    made = evaluated(first, 1)
    kept = sorted(path.name for path in (tmp_path / "openvino").iterdir())
    assert [name.rpartition(".")[2] for name in kept] == ["bin", "xml"]
    from augengine.runtime.with_openvino import OpenVino

    again = under(generator, runtime)
    assert isinstance(again, Generator)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OpenVino, "_converted", lambda *_: pytest.fail("it was converted again"))
        assert torch.equal(evaluated(again, 1), made)
    other = under(untrained(generator.spec, seed=4), runtime)
    assert isinstance(other, Generator)
    assert apart(evaluated(other, 1), made) > 0.1, "other weights took the kept conversion"


@needs_openvino
def test_openvino_takes_the_threads_of_pytorch_and_pins_none(generator: Generator) -> None:
    from augengine.runtime.with_openvino import OpenVino

    options = OpenVino(generator.network, "fp32").options
    assert options["INFERENCE_NUM_THREADS"] == torch.get_num_threads()
    fast = under(generator, Runtime(backend="openvino"))
    assert isinstance(fast, Generator)
    evaluated(fast, 1)
    (request,) = fast.evaluate.made.values()  # type: ignore[attr-defined]
    compiled = request.get_compiled_model()
    assert compiled.get_property("ENABLE_CPU_PINNING") is False
    assert compiled.get_property("INFERENCE_NUM_THREADS") == torch.get_num_threads()


def test_weights_of_one_number_count_in_the_name_of_a_kept_conversion() -> None:
    from augengine.runtime.with_openvino import _weights_digest

    module = torch.nn.Module()
    module.scale = torch.nn.Parameter(torch.tensor(2.0))
    before = _weights_digest(module)
    with torch.no_grad():
        module.scale.fill_(3.0)
    assert _weights_digest(module) != before
