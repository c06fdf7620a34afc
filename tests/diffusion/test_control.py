import pytest
import torch
from monai.networks.nets import DiffusionModelUNet
from torch import Tensor

from augengine.diffusion.control import ControlledUNet, ControlSpec
from augengine.errors import ConfigError

SPEC = ControlSpec(encoder_channels=(4, 6, 8))
Batch = tuple[Tensor, Tensor, Tensor]


def prior(dims: int = 2, **changes: object) -> DiffusionModelUNet:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet = DiffusionModelUNet(
            **{
                "spatial_dims": dims,
                "in_channels": 3,
                "out_channels": 3,
                "num_res_blocks": 1,
                "channels": (8, 16),
                "attention_levels": (False, True),
                "norm_num_groups": 4,
                "num_head_channels": 8,
                "use_flash_attention": True,
                **changes,
            }
        )
        # A trained prior's last convolution is not zero.
        for p in unet.parameters():
            p.data += 0.05 * torch.randn(p.shape)
    return unet


def controlled(dims: int = 2, spec: ControlSpec = SPEC, **changes: object) -> ControlledUNet:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return ControlledUNet(spec, prior(dims, **changes), 2, dims)


def batch(dims: int = 2, latent: int = 4, image: int = 16) -> Batch:
    g = torch.Generator().manual_seed(2)
    x_t = torch.randn(2, 3, *[latent] * dims, generator=g)
    return x_t, torch.tensor([100, 700]), torch.randn(2, 2, *[image] * dims, generator=g)


def train(model: ControlledUNet, steps: int, data: Batch, target: Tensor | float = 1.0) -> None:
    trained = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.Adam(trained, 1e-2)
    for _ in range(steps):
        optimiser.zero_grad()
        (model(*data) - target).square().mean().backward()
        optimiser.step()


def silent(model: ControlledUNet, data: Batch) -> set[str]:
    """Trainable parameters whose gradient is zero; key biases are left out, for attention is blind to them."""
    model.zero_grad()
    (model(*data) - 1).square().mean().backward()
    named = model.control.named_parameters()
    return {name for name, p in named if "to_k.bias" not in name and (p.grad is None or not p.grad.any())}


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("changes", [{}, {"resblock_updown": True, "num_res_blocks": (2, 1)}])
def test_at_the_start_the_output_is_the_priors(dims: int, changes: dict[str, object]) -> None:
    x_t, t, image = batch(dims)
    steered, alone = controlled(dims, **changes)(x_t, t, image), prior(dims, **changes)(x_t, t)
    torch.testing.assert_close(steered, alone, rtol=0, atol=1e-6)  # zeros are added, but convolutions may round anew


@pytest.mark.parametrize("dims", [2, 3])
def test_what_is_drawn_follows_the_image_and_the_prior_stays_as_it_was(dims: int) -> None:
    model = controlled(dims)
    x_t, t, image = (v[:1].expand_as(v) for v in batch(dims))
    sign = torch.tensor([1.0, -1.0]).view(2, 1, *[1] * dims)
    image = sign.expand_as(image)
    train(model, 20, (x_t, t, image), target=sign)
    right, swapped = (float((model(x_t, t, v) - sign).detach().square().mean()) for v in (image, image.flip(0)))
    assert swapped > 1.3 * right
    for name, value in prior(dims).state_dict().items():
        assert torch.equal(model.prior.state_dict()[name], value)
    assert all(p.grad is None and not p.requires_grad for p in model.prior.parameters())


def test_training_opens_the_zero_convolutions_from_the_output_inwards() -> None:
    model, data = controlled(), batch()
    names = {name for name, _ in model.control.named_parameters() if "to_k.bias" not in name}
    zero = {name for name in names if name.startswith(("controlnet_down_blocks", "controlnet_mid_block"))}
    encoder = {name for name in names if name.startswith("controlnet_cond_embedding") and "conv_out" not in name}
    assert zero
    assert encoder
    assert silent(model, data) == names - zero
    train(model, 1, data)
    assert silent(model, data) == encoder
    train(model, 1, data)
    assert silent(model, data) == set()


def test_every_residual_reaches_the_output() -> None:
    model = controlled()
    x_t, t, image = batch()
    base = model(x_t, t, image)
    for block in (*model.control.controlnet_down_blocks, model.control.controlnet_mid_block):
        bias = next(p for name, p in block.named_parameters() if name.endswith("bias"))
        bias.data += 1
        assert not torch.allclose(model(x_t, t, image), base, atol=1e-4)
        bias.data -= 1
    # One residual for the first convolution, one per residual block, one per downsampling.
    assert len(model.control.controlnet_down_blocks) == 1 + 2 + 1


def test_the_copy_is_trainable_and_apart_from_the_prior() -> None:
    model = controlled()
    assert all(p.requires_grad for p in model.control.parameters())
    owned = {p.data_ptr() for p in model.prior.parameters()}
    assert not owned & {p.data_ptr() for p in model.control.parameters()}
    assert torch.equal(model.control.time_embed[0].weight, model.prior.time_embed[0].weight)


@pytest.mark.parametrize(("latent", "image"), [(5, 20), (5, 17), (4, 13)])
def test_latents_and_images_of_odd_sizes(latent: int, image: int) -> None:
    model, data = controlled(), batch(latent=latent, image=image)
    train(model, 3, data)
    assert model(*data).shape == data[0].shape
    changed = data[2].clone()
    changed[..., -1] += 5
    assert not torch.allclose(model(*data), model(data[0], data[1], changed), atol=1e-4)


@pytest.mark.parametrize("shape", [(2, 2, 4, 4), (2, 2, 1, 1), (1, 2, 16, 16), (2, 2, 20, 16)])
def test_an_image_that_would_be_broadcast_is_refused(shape: tuple[int, ...]) -> None:
    x_t, t, _ = batch()
    with pytest.raises(ConfigError, match="4 times as large"):
        controlled()(x_t, t, torch.zeros(shape))


@pytest.mark.parametrize("changes", [{"num_class_embeds": 2}, {"with_conditioning": True, "cross_attention_dim": 4}])
def test_a_conditional_prior_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="unconditional"):
        controlled(**changes)


def test_another_network_is_refused_as_prior() -> None:
    with pytest.raises(ConfigError, match="found Linear"):
        ControlledUNet(SPEC, torch.nn.Linear(1, 1), 2, 2)


def test_rows_do_not_meet() -> None:
    model, data = controlled().train(), batch()
    train(model, 3, data)
    alone = model(*(v[:1] for v in data))
    torch.testing.assert_close(model(*data)[:1], alone)
