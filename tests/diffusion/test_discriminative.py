import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from augengine.diffusion.discriminative import Predictor, PredictorSpec, Segmenter, SegmenterSpec
from augengine.errors import ConfigError

SPEC = SegmenterSpec(channels=(8, 8, 16), res_units=1)
PREDICTOR = PredictorSpec(width=8, norm_groups=4)


def segmenter(spec: SegmenterSpec = SPEC, dims: int = 2) -> Segmenter:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Segmenter(spec, 2, 3, dims)


def predictor(dims: int = 2, spec: PredictorSpec = PREDICTOR) -> Predictor:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Predictor(spec, 2, 5, dims)


def images(*size: int) -> Tensor:
    return torch.randn(2, 2, *size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("norm", ["instance", "group"])
@pytest.mark.parametrize("size", [(16, 16), (13, 18), (8, 9, 11)])
def test_logits_have_the_images_size_and_every_pixel_counts(size: tuple[int, ...], norm: str) -> None:
    model, x = segmenter(SPEC.model_copy(update={"norm": norm}), len(size)), images(*size)
    out = model(x)
    assert out.shape == (2, 3, *size)
    last = x.clone()
    last[..., -1] += 1
    assert not torch.allclose(model(last)[..., -1], out[..., -1])


def test_uneven_strides_set_the_multiple() -> None:
    model = segmenter(SPEC.model_copy(update={"strides": (1, 4)}))
    assert model.multiple == 4
    assert model(images(10, 12)).shape == (2, 3, 10, 12)


@pytest.mark.parametrize(("model", "x"), [(segmenter(), images(16, 16)), (predictor(), images(32, 32))])
def test_rows_do_not_meet_and_no_norm_keeps_state(model: nn.Module, x: Tensor) -> None:
    model.train()
    torch.testing.assert_close(model(x)[:1], model(x[:1]))
    assert not list(model.buffers())
    assert not [m for m in model.modules() if isinstance(m, _BatchNorm)]


@pytest.mark.parametrize(("model", "x"), [(segmenter(), images(16, 16)), (predictor(), images(32, 32))])
def test_every_parameter_has_a_gradient(model: nn.Module, x: Tensor) -> None:
    model.zero_grad()
    (model(x) * torch.arange(1, model(x).numel() + 1).view_as(model(x))).sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_logits_can_say_how_much_of_a_region_there_is() -> None:
    """A network whose last features are normalised gives every image the same mean logit."""
    x = torch.zeros(2, 2, 16, 16)
    x[0, :, 4:12, 4:12] = 1
    x[1, :, 4:6, 4:6] = 1
    means = segmenter()(x).detach().mean((2, 3))
    assert float((means[0] - means[1]).abs().max()) > 1e-3


def test_instance_norm_refuses_a_single_coarse_cell_and_group_norm_takes_it() -> None:
    with pytest.raises(ConfigError, match="larger than 4"):
        segmenter()(images(4, 3))
    assert segmenter(SPEC.model_copy(update={"norm": "group"}))(images(4, 3)).shape == (2, 3, 4, 3)


def test_paper_layout() -> None:
    with torch.device("meta"):
        model = segmenter(SegmenterSpec(channels=(32, 64, 128, 256, 512, 512)), 3)
    assert model.multiple == 32


@pytest.mark.parametrize("dims", [2, 3])
def test_predictor_gives_a_vector_at_any_size(dims: int) -> None:
    model = predictor(dims)
    assert model(images(*[33] * dims)).shape == (2, 5)
    assert not torch.allclose(model(images(*[33] * dims))[0], model(images(*[33] * dims))[1])


def test_paper_sized_predictor_is_a_resnet18() -> None:
    with torch.device("meta"):
        model = predictor(2, PredictorSpec())
    # He et al. 2016: 11.69 M with three inputs and 1000 classes.
    parameters = sum(p.numel() for p in model.parameters()) + 64 * 49 + 513 * 995
    assert abs(parameters / 11.69e6 - 1) < 0.002
    assert sum(isinstance(m, nn.GroupNorm) for m in model.modules()) == 20


def test_specs_refuse_what_cannot_be() -> None:
    with pytest.raises(ValidationError, match="2 strides"):
        SegmenterSpec(channels=(8, 8, 8), strides=(2,))
    with pytest.raises(ValidationError, match="norm_groups 8"):
        SegmenterSpec(channels=(8, 12), norm="group")
    with pytest.raises(ValidationError, match="norm_groups 32"):
        PredictorSpec(width=48)
