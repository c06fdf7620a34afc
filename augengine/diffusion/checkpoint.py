"""A model to and from a folder: `model.safetensors` (EMA weights) and `model.json` (everything else)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any

import safetensors.torch
import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from torch import Tensor, nn

from augengine import __version__, rng
from augengine.diffusion.build import build
from augengine.diffusion.conditioning import Conditioning
from augengine.diffusion.denoisers import GenerativeNetwork
from augengine.diffusion.schedules import Schedule, clean_estimate
from augengine.diffusion.spec import FORMAT_VERSION, GENERATORS, ModelSpec
from augengine.errors import CheckpointError, DataError
from augengine.io.sealed import sealed, unsealed
from augengine.io.store import Place, Store
from augengine.records import IntensityRule

WEIGHTS, SPEC = "model.safetensors", "model.json"


class Model:
    """A network with its description.

    Attributes:
        spec: what `model.json` says.
        sha256: hex digest of the weights file; of an untrained model, of its serialised weights.
    """

    def __init__(self, spec: ModelSpec, network: nn.Module, device: str | torch.device = "cpu") -> None:
        self.spec, self.device = spec, torch.device(device)
        self.network = network.eval().requires_grad_(False).to(self.device)

    @property
    def sha256(self) -> str:
        """Identity of the weights."""
        return self.spec.sha256

    def check(self, channels: Sequence[str], rule: IntensityRule) -> None:
        """Refuse data whose channels, in that order, or intensity ranges are not as those of training."""
        check_scale(self.spec, channels, rule)


class Generator(Model):
    """A diffusion model, trained or (for control arms) untrained, ready for sampling; `schedule` has its levels.

    Attributes:
        evaluate: `(x_t, t_B, conditioning) -> raw output`: the network, or a faster form of it (`augengine.runtime`).
        prepare: `(conditioning, rows) -> conditioning` with all that no step of a chain changes, computed once.
        apart: True where both take any number of rows in portions of one size, so that no row's bits depend on it.
    """

    network: GenerativeNetwork

    def __init__(self, spec: ModelSpec, network: nn.Module, device: str | torch.device = "cpu") -> None:
        super().__init__(spec, network, device)
        assert spec.diffusion is not None  # `load_generator` and the recipe see to it
        self.schedule = Schedule(spec.diffusion)
        self.evaluate: Callable[[Tensor, Tensor, Conditioning], Tensor] = self.network
        self.prepare: Callable[[Conditioning, int], Conditioning] = self.network.prepared
        self.apart = False

    @torch.no_grad()
    def prepared(self, conditioning: Conditioning, rows: int) -> Conditioning:
        """What `prepare` makes, without gradients."""
        return self.prepare(conditioning, rows)

    @torch.no_grad()
    def denoise(self, x: Tensor, t_B: Tensor, conditioning: Conditioning) -> Tensor:
        """x0 estimate for `x` (B, C, *), or latents, at timesteps `t_B`; unclamped."""
        output = self.evaluate(x, t_B.to(x.device), conditioning).float()
        return clean_estimate(self.schedule.spec.parametrisation, self.schedule, output, x, t_B)


def check_scale(spec: ModelSpec, channels: Sequence[str], rule: IntensityRule) -> None:
    """As `Model.check`, of a description alone; raises `CheckpointError`."""
    if tuple(channels) != spec.channels:
        raise CheckpointError(
            f"this model was trained on channels {', '.join(spec.channels)}",
            found=", ".join(channels),
            next_step="train one on these channels, or select samples that have the model's",
        )
    check_rule(spec, rule)


def check_rule(spec: ModelSpec, rule: IntensityRule, where: str | None = None) -> None:
    """Refuse rows on another scale than a model was trained on.

    Raises:
        CheckpointError: with both rules; `where` is the model's or the row's place.
    """
    if spec.sees_images and rule != spec.intensity.rule:
        raise CheckpointError(
            f"this model was trained on {spec.intensity.rule}",
            found=str(rule),
            where=where,
            next_step=f"{how_to_ingest(spec.intensity.rule)}, or train another model",
        )


def how_to_ingest(rule: IntensityRule) -> str:
    """What brings data onto the scale of a rule."""
    if rule.together:
        return "give it the shards of schema version 1"
    low, high = rule.percentiles
    return f"ingest again with --percentiles {low:g},{high:g} --foreground {rule.foreground}"


def subject_hash(subject_id: str) -> str:
    """The form in which a checkpoint names a training subject: enough to recognise one, not to list them."""
    return rng.digest("training subject", subject_id)


def save_model(store: Store, spec: ModelSpec, weights: dict[str, Tensor]) -> ModelSpec:
    """Write both files into `store`, the spec last; returns the spec with its sha256."""
    content = safetensors.torch.save({name: tensor.contiguous() for name, tensor in weights.items()})
    spec = spec.model_copy(update={"sha256": hashlib.sha256(content).hexdigest(), "engine_version": __version__})
    store.write(WEIGHTS, content)
    text = json.dumps(sealed(spec.model_dump(mode="json")), indent=1)  # in its order: that of regions has a meaning
    store.write(SPEC, f"{text}\n".encode())
    return spec


def read_spec(uri: Place) -> ModelSpec:
    """What a checkpoint folder says about its model, without its weights; a `CheckpointError` where it is unusable."""
    return _read_spec(Store.at(uri))


def damage(uri: Place) -> str | None:
    """What is wrong with a checkpoint's files; None if they are as they were written."""
    try:
        store = Store.at(uri)
        _weights(store, _read_spec(store))
    except CheckpointError as error:
        return str(error)
    return None


def weights_bytes(uri: Place) -> int:
    """Size of a checkpoint's weights on disk; 0 where they are missing."""
    return Store.at(uri).size(WEIGHTS) or 0


def load_model(uri: Place, device: str | torch.device = "cpu") -> Model:
    """The model in folder `uri`, a `Generator` if it diffuses; anything missing, damaged or unfitting is an error.

    Raises:
        CheckpointError: with the rule, the file and the next step.
    """
    store = Store.at(uri)
    spec = _read_spec(store)
    weights = _weights(store, spec)
    network = _network(store, spec)
    try:
        network.load_state_dict(weights(), strict=True)
    except (SafetensorError, RuntimeError) as error:
        raise CheckpointError(
            f"the weights do not fit the network that {SPEC} describes",
            found=str(error).splitlines()[-1].strip(),
            where=store.path(WEIGHTS),
        ) from None
    return Model(spec, network, device) if spec.diffusion is None else Generator(spec, network, device)


def load_generator(uri: Place, device: str | torch.device = "cpu") -> Generator:
    """As `load_model`; a model that does not diffuse is a `CheckpointError`."""
    model = load_model(uri, device)
    if not isinstance(model, Generator):
        raise CheckpointError(f"a generator is needed: {', '.join(GENERATORS)}", found=model.spec.kind, where=str(uri))
    return model


def untrained(like: Model | ModelSpec, seed: int, device: str | torch.device = "cpu") -> Generator:
    """As `untrained_model`, of a model that diffuses."""
    model = untrained_model(like, seed, device)
    assert isinstance(model, Generator)
    return model


def untrained_model(like: Model | ModelSpec, seed: int, device: str | torch.device = "cpu") -> Model:
    """The same architecture with random weights, a `Generator` if it diffuses: the control arm of every experiment.

    Where a last convolution starts at zero it is drawn at random here, or the control would be the constant image 0
    and no model at all. A latent generator keeps the autoencoder's random weights, too.
    """
    spec = like.spec if isinstance(like, Model) else like
    network = build(spec, seed)
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        if parameter.ndim > 1 and not parameter.any():
            fan_in = parameter[0].numel()
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) / fan_in**0.5)
    content = safetensors.torch.save(network.state_dict())
    spec = _nobody_s(spec, seed, hashlib.sha256(content).hexdigest())
    return Model(spec, network, device) if spec.diffusion is None else Generator(spec, network, device)


def _nobody_s(spec: ModelSpec, seed: int, sha256: str) -> ModelSpec:
    """The description of weights that were drawn from a seed, in the whole model and so in its parts."""
    parts = {role: _nobody_s(part, seed, "") for role, part in spec.parts.items()}
    hashes = dict.fromkeys(("subject_hashes", "selection_hashes", "donor_hashes"), ())
    nothing: dict[str, Any] = {"metrics": {}, **hashes, "teachers": (), "pretrained": None, "initialised_from": None}
    changes = {**nothing, "manufacturers": (), "untrained_seed": seed, "sha256": sha256, "parts": parts}
    return spec.model_copy(update=changes)


def _network(store: Store, spec: ModelSpec) -> nn.Module:
    """The network with random weights; one that is much larger than the weights' file is refused before it is made."""
    where, held = store.path(SPEC), store.size(WEIGHTS) or 0
    try:
        with torch.device("meta"):
            planned = build(spec)
        numbers = sum(tensor.numel() for tensor in planned.state_dict().values())
        if numbers > held:  # a weight takes two or four bytes
            raise CheckpointError(
                f"the weights do not fit the network that {SPEC} describes",
                found=f"{numbers} weights, and a file of {held} bytes",
                where=where,
                next_step="copy the folder again",
            )
        return build(spec)
    except CheckpointError:
        raise
    except Exception as error:  # networks raise many unrelated classes for sizes that do not go together
        raise CheckpointError(
            "the network that is described cannot be built",
            found=f"{type(error).__name__}: {error}",
            where=where,
            next_step="copy the folder again, or train anew",
        ) from None


def _weights(store: Store, spec: ModelSpec) -> Callable[[], dict[str, Tensor]]:
    """The weights, checked; parsed where they are called for."""
    content = _read(store, WEIGHTS)
    found = hashlib.sha256(content).hexdigest()
    if found != spec.sha256:
        raise CheckpointError(
            f"the weights must be those that {SPEC} names (sha256 {spec.sha256[:12]}…)",
            found=f"{found[:12]}…",
            where=store.path(WEIGHTS),
            next_step="copy the checkpoint folder again, or train anew",
        )
    return lambda: safetensors.torch.load(content)


def _read(store: Store, name: str) -> bytes:
    try:
        return store.read(name)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise CheckpointError(
            f"a checkpoint folder holds {WEIGHTS} and {SPEC}",
            found=f"no {name}",
            where=store.uri,
            next_step="give the folder that training wrote, or run jobs/train.py",
        ) from None


def _read_spec(store: Store) -> ModelSpec:
    where = store.path(SPEC)
    try:
        values = unsealed(json.loads(_read(store, SPEC)), where)
    except (ValueError, RecursionError):
        raise CheckpointError("this file is not valid JSON", where=where, next_step="copy the folder again") from None
    except DataError as error:
        raise CheckpointError(error.rule, found=error.found, where=where, next_step="copy the folder again") from None
    version = values.get("format_version")
    if version != FORMAT_VERSION:
        raise CheckpointError(f"checkpoints of format version {FORMAT_VERSION} are needed", found=version, where=where)
    try:
        return ModelSpec.model_validate(values)
    except ValidationError as error:
        problem = error.errors()[0]
        name = ".".join(str(part) for part in problem["loc"])
        raise CheckpointError(f"'{name}': {problem['msg'].lower()}", found=problem["input"], where=where) from None
