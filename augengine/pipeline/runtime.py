"""A run's policies and their models' descriptions in; the same policies with their runtime's `auto` chosen out.

What `auto` becomes depends on the machine that plans the run, and decides the last bits of its rows. So it is chosen
once, before the first row, stands in the `policy.yaml` of the run's folder and in its digest, and all actors, a resumed
run and a replay, on whatever machine, take it from there.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

from augengine.diffusion.spec import ModelSpec
from augengine.errors import AugengineError, ConfigError
from augengine.io.store import Store
from augengine.load import LoadedPolicy, Mixture
from augengine.policy.runtime import Runtime
from augengine.runtime.calibrate import measured_batch
from augengine.runtime.capabilities import check, openvino_precisions
from augengine.yaml_config import Document

Measure = Callable[[list[ModelSpec], Runtime, int], int]


def settled(
    mixture: Mixture,
    specs: Mapping[str, Mapping[str, ModelSpec]],
    device: str,
    folder: Store,
    policy_file: str,
    measure: Measure | None = None,
) -> Mixture:
    """The same policies under runtimes that this machine can obey.

    Args:
        specs: policy name → role → what the model's `model.json` says.
        device: `cpu` or `cuda`, of the actors.
        folder: of the run; what an earlier run of the same policies chose there is taken again.
        policy_file: where a run keeps its policies.
        measure: chooses `network_batch: auto` on a CPU, of at most so many rows; default `measured_batch`.

    Raises:
        ConfigError: a runtime that cannot be obeyed here, or one for models that evaluate no network step by step.
    """
    values = {m.name: m.policy.runtime for m in mixture.members}
    if all(runtime.plain for runtime in values.values()):
        return mixture
    if not all(runtime.settled for runtime in values.values()):
        values = _recorded(mixture, folder, policy_file) or {
            m.name: _chosen(m, specs[m.name], device, measure or measured_batch) for m in mixture.members
        }
    for member in mixture.members:
        runtime = values[member.name]
        if not runtime.plain and not _diffusing(specs[member.name]):
            raise ConfigError(
                "a runtime is for models that diffuse",
                found=f"policy '{member.name}' has none",
                next_step="leave out its section runtime",
            )
        check(runtime, device)
    return _with(mixture, values)


def _chosen(member: LoadedPolicy, specs: Mapping[str, ModelSpec], device: str, measure: Measure) -> Runtime:
    """On a CPU OpenVINO where it is installed and has the precision; on a GPU PyTorch as it is, all rows at once."""
    asked = member.policy.runtime
    changes: dict[str, Any] = {}
    if asked.backend == "auto":
        fits = device == "cpu" and asked.precision in openvino_precisions() and not asked.channels_last
        changes["backend"] = "openvino" if fits else "eager"
    runtime = asked.model_copy(update=changes)
    if asked.network_batch == "auto":
        found: int | str = "whole"
        if device == "cpu" and (models := _diffusing(specs)):
            found = measure(models, runtime, member.policy.output.micro_batch)
        runtime = runtime.model_copy(update={"network_batch": found})
    return runtime


def _diffusing(specs: Mapping[str, ModelSpec]) -> list[ModelSpec]:
    return [spec for spec in specs.values() if spec.diffusion is not None]


def _recorded(mixture: Mixture, folder: Store, policy_file: str) -> dict[str, Runtime] | None:
    """The runtimes of an earlier run of the same policies in this folder or a version of it; None if there is none."""
    for n in itertools.count(1):
        store = folder if n == 1 else folder.folder(f"v{n}")
        try:
            held = Mixture.from_dict(Document(store.read(policy_file).decode(), store.path(policy_file)).data)
        except FileNotFoundError:
            return None
        except (AugengineError, ValueError, KeyError, UnicodeDecodeError):
            continue  # of another engine, or damaged: the run itself refuses it
        found = {m.name: m.policy.runtime for m in held.members}
        asked = {m.name: m.policy.runtime for m in mixture.members}
        answered = found.keys() == asked.keys() and all(_answers(found[name], asked[name]) for name in asked)
        if answered and _with(mixture, found).digest == held.digest:
            return found
    return None


def _answers(found: Runtime, asked: Runtime) -> bool:
    """True if `found` is what `asked` may become."""
    pairs = zip(found.model_dump().values(), asked.model_dump().values(), strict=True)
    return found.settled and all(wanted in (value, "auto") for value, wanted in pairs)


def _with(mixture: Mixture, runtimes: Mapping[str, Runtime]) -> Mixture:
    plain = mixture.to_dict()
    policies = [plain] if mixture.mix is None else [member["policy"] for member in plain["mix"]]
    for policy in policies:
        policy["runtime"] = runtimes[policy["name"]].model_dump(mode="json")
    return Mixture.from_dict(plain)
