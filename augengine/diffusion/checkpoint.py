"""A generator to and from a folder: `model.safetensors` (EMA weights) and `model.json` (everything else)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import safetensors.torch
import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from torch import Tensor

from augengine import __version__, rng
from augengine.diffusion.conditions import Condition
from augengine.diffusion.networks import AcquisitionUNet
from augengine.diffusion.schedules import Schedule, clean_estimate
from augengine.diffusion.spec import FORMAT_VERSION, ModelSpec
from augengine.errors import CheckpointError
from augengine.io.store import Store

WEIGHTS, SPEC = "model.safetensors", "model.json"


class Generator:
    """A trained (or, for control arms, untrained) acquisition model, ready for sampling.

    Attributes:
        spec: what `model.json` says.
        schedule: signal levels.
        sha256: hex digest of the weights file; of an untrained model, of its serialised weights.
    """

    def __init__(self, spec: ModelSpec, network: AcquisitionUNet, device: str | torch.device = "cpu") -> None:
        self.spec, self.schedule, self.device = spec, Schedule(spec.diffusion), torch.device(device)
        self.network = network.eval().requires_grad_(False).to(self.device)

    @property
    def sha256(self) -> str:
        """Identity of the weights."""
        return self.spec.sha256

    def check(self, channels: Sequence[str]) -> None:
        """Refuse data whose channels are not those of training, in that order."""
        if tuple(channels) != self.spec.channels:
            raise CheckpointError(
                f"this generator was trained on channels {', '.join(self.spec.channels)}",
                found=", ".join(channels),
                next_step="train one on these channels, or select samples that have the generator's",
            )

    @torch.no_grad()
    def denoise(self, x: Tensor, t_B: Tensor, condition: Condition, structure: Tensor | None = None) -> Tensor:
        """x0 estimate for `x` (B, C, H, W) at timesteps `t_B`, unclamped; `structure` is None or its planes."""
        output = self.network(x, t_B.to(x.device), condition, structure).float()
        return clean_estimate(self.spec.diffusion.parametrisation, self.schedule, output, x, t_B)


def subject_hash(subject_id: str) -> str:
    """The form in which a checkpoint names a training subject: enough to recognise one, not to list them."""
    return rng.digest("training subject", subject_id)


def save_generator(store: Store, spec: ModelSpec, weights: dict[str, Tensor]) -> ModelSpec:
    """Write both files into `store`, the spec last; returns the spec with its sha256."""
    content = safetensors.torch.save({name: tensor.contiguous() for name, tensor in weights.items()})
    spec = spec.model_copy(update={"sha256": hashlib.sha256(content).hexdigest(), "engine_version": __version__})
    store.write(WEIGHTS, content)
    store.write(SPEC, (spec.model_dump_json(indent=1) + "\n").encode())
    return spec


def read_spec(uri: str) -> ModelSpec:
    """What a checkpoint folder says about its model, without its weights; a `CheckpointError` where it is unusable."""
    return _read_spec(Store(uri))


def load_generator(uri: str, device: str | torch.device = "cpu") -> Generator:
    """The generator in folder `uri`; anything missing, damaged or unfitting is a `CheckpointError`."""
    store = Store(uri)
    spec = _read_spec(store)
    content = _read(store, WEIGHTS)
    found = hashlib.sha256(content).hexdigest()
    if found != spec.sha256:
        raise CheckpointError(
            f"the weights must be those that {SPEC} names (sha256 {spec.sha256[:12]}…)",
            found=f"{found[:12]}…",
            where=store.path(WEIGHTS),
            next_step="copy the checkpoint folder again, or train anew",
        )
    network = build(spec)
    try:
        network.load_state_dict(safetensors.torch.load(content), strict=True)
    except (SafetensorError, RuntimeError) as error:
        raise CheckpointError(
            f"the weights do not fit the network that {SPEC} describes",
            found=str(error).splitlines()[-1].strip(),
            where=store.path(WEIGHTS),
        ) from None
    return Generator(spec, network, device)


def untrained(like: Generator | ModelSpec, seed: int, device: str | torch.device = "cpu") -> Generator:
    """The same architecture with random weights: the control arm of every experiment.

    MONAI sets the last convolution of each block to zero; those too are drawn at random here, or the control
    would be the constant image 0 and no model at all.
    """
    spec = like.spec if isinstance(like, Generator) else like
    network = build(spec, seed)
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        if parameter.ndim > 1 and not parameter.any():
            fan_in = parameter[0].numel()
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) / fan_in**0.5)
    content = safetensors.torch.save(network.state_dict())
    sha256 = hashlib.sha256(content).hexdigest()
    return Generator(spec.model_copy(update={"sha256": sha256, "metrics": {}, "subject_hashes": ()}), network, device)


def build(spec: ModelSpec, seed: int = 0) -> AcquisitionUNet:
    """A freshly initialised network; the caller's global random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        sizes = {"tissues": len(spec.labels), "spatial_dims": len(spec.image_size)}
        return AcquisitionUNet(spec.network, len(spec.channels), spec.vocabulary, **sizes)


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
        values = json.loads(_read(store, SPEC))
    except ValueError:
        raise CheckpointError("this file is not valid JSON", where=where, next_step="copy the folder again") from None
    version = values.get("format_version") if isinstance(values, dict) else None
    if version != FORMAT_VERSION:
        raise CheckpointError(f"checkpoints of format version {FORMAT_VERSION} are needed", found=version, where=where)
    try:
        return ModelSpec.model_validate(values)
    except ValidationError as error:
        problem = error.errors()[0]
        name = ".".join(str(part) for part in problem["loc"])
        raise CheckpointError(f"'{name}': {problem['msg'].lower()}", found=problem["input"], where=where) from None
