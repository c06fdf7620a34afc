"""An installed package in; everything that it plugs in checked, and a line for each promise that it keeps, out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Any, TypeVar

from augengine import bundled
from augengine.bundled import names
from augengine.contracts import edit, extractor, gate, layout, segmenter, target
from augengine.contracts.base import Checks, own_code
from augengine.contracts.samples import SAMPLES
from augengine.downstream.protocols import protocol
from augengine.downstream.segmenters import SEGMENTERS
from augengine.edits import EDITS
from augengine.errors import AugengineError, ContractError
from augengine.export import TARGETS
from augengine.gates import MEASURES, Tools
from augengine.io.layouts import READERS
from augengine.load import LoadedPolicy, load_mixture
from augengine.metrics.extractors import EXTRACTORS, load_extractor
from augengine.plugins import Plugin, Registry, plugin, plugins_of
from augengine.policy.spec import GateSpec, Policy
from augengine.preflight import check_named
from augengine.records import Sample
from augengine.train.config import read_recipe
from augengine.train.trackers import TRACKERS

T = TypeVar("T")
Lines = Iterator[str]


def check_package(package: str, samples: Sequence[Sample] = SAMPLES) -> Lines:
    """Check all that a package plugs in, one after the other; a line for each promise that is kept.

    Args:
        package: as it is installed, or imported.
        samples: rows of one shape to check on: at least two.

    Raises:
        ConfigError: no such package, a name that is taken, or a plug-in that cannot be imported.
        ContractError: the first promise that is broken, and what to mend.
    """
    found = plugins_of(package)
    for one in found:
        plugin(one.kind, one.name, own=one.name in OWN[one.kind])  # refuses a name that is taken
        where = f"{one.kind} '{one.name}'"
        try:
            for line in KINDS[one.kind](one, found, deepcopy(list(samples))):
                yield f"{where}: {line}"
        except ContractError as error:
            raise ContractError(
                error.rule, found=error.found, next_step=error.next_step, where=f"{where} of {one.package}"
            ) from error


def _kept(checks: Checks[T], case: T, of: str = "") -> Lines:
    for promise, check in checks.items():
        with own_code(f"'{promise}'"):
            check(case)
        yield promise + of


def _edit(one: Plugin, package: Sequence[Plugin], samples: Sequence[Sample]) -> Lines:
    """Under each policy of the package that has it, or with the defaults of its parameters."""
    own = EDITS[one.name]
    policies = [p for p in _policies(package) if any(step.edit.name == one.name for step in p.steps)]
    if not policies:
        with own_code("Params(), of an edit without a policy in its package,"):
            params = own.Params()
        plain = Policy(version=1, name=one.name, edit=one.name, gates=[GateSpec(name="changed", min=0.0)])
        policies = [LoadedPolicy.of(plain, [params])]
    for loaded in policies:
        with own_code("the edit's check of its parameters and models"):
            case = edit.edit_case(loaded, [kinds[0] for kinds in loaded.roles.values()], samples)
        yield from _kept(edit.CHECKS, case, f" (policy {loaded.name})")


def _gate(one: Plugin, package: Sequence[Plugin], samples: Sequence[Sample]) -> Lines:
    """With the options of each policy of the package that has it, or with their defaults."""
    specs = [s for p in _policies(package) for specs in p.gates.values() for s in specs if s.name == one.name]
    options: list[Mapping[str, Any]] = [spec.options for spec in specs] or [{}]
    for chosen in options:
        with own_code("making the gate with its options"):
            case = gate.GateCase(MEASURES[one.name].model_validate(chosen), Tools(), samples)
            case.gate.open(case.tools)
        yield from _kept(gate.CHECKS, case)


def _layout(one: Plugin, package: Sequence[Plugin], samples: Sequence[Sample]) -> Lines:
    yield from _kept(layout.CHECKS, READERS[one.name])


def _segmenter(one: Plugin, package: Sequence[Plugin], samples: Sequence[Sample]) -> Lines:
    cls = SEGMENTERS[one.name]
    segmenter.says_how_it_predicts(cls)
    yield "it says how it predicts"
    if cls.roles:
        yield "not fitted here, since it takes recipes: train it once by `augengine evaluate`"
        return
    yield from _kept(segmenter.CHECKS, segmenter.fitted(cls, samples))


def _target(one: Plugin, package: Sequence[Plugin], samples: Sequence[Sample]) -> Lines:
    cls: Callable[[], Any] = TARGETS[one.name]
    with own_code("making the target with its default options"):
        case = target.TargetCase(cls(), samples)
    yield from _kept(target.CHECKS, case)


def _tracker(one: Plugin, package: Sequence[Plugin], samples: Sequence[Sample]) -> Lines:
    TRACKERS.find(one.name)  # imports it
    yield "it has all methods of a tracker; not opened here, since it may need a server"


def _extractor(one: Plugin, package: Sequence[Plugin], samples: Sequence[Sample]) -> Lines:
    EXTRACTORS.find(one.name)  # imports it
    try:
        made = load_extractor(one.name)
    except AugengineError as error:
        yield f"not run here, since it refuses to work without weights: {error.rule}"
        return
    yield from _kept(extractor.CHECKS, extractor.ExtractorCase(made, samples))


def _policy(one: Plugin, package: Sequence[Plugin], samples: Sequence[Sample]) -> Lines:
    mixture = load_mixture(one.file())
    check_named(mixture)
    yield f"valid, digest {mixture.digest}"


def _recipe(one: Plugin, package: Sequence[Plugin], samples: Sequence[Sample]) -> Lines:
    yield f"valid, digest {read_recipe(one.file()).digest}"


def _protocol(one: Plugin, package: Sequence[Plugin], samples: Sequence[Sample]) -> Lines:
    yield f"valid, digest {protocol(one.file()).digest}"


def _policies(package: Sequence[Plugin]) -> list[LoadedPolicy]:
    """All that the package's policies and mixes consist of."""
    return [m for one in package if one.kind == "policy" for m in load_mixture(one.file()).members]


REGISTRIES: tuple[Registry[Any], ...] = (EDITS, MEASURES, READERS, SEGMENTERS, TARGETS, TRACKERS, EXTRACTORS)
OWN: Mapping[str, Collection[str]] = {registry.kind: registry.own for registry in REGISTRIES} | {
    bundled.KINDS[folder.name]: names(folder) for folder in (bundled.POLICIES, bundled.RECIPES, bundled.PROTOCOLS)
}
KINDS: Mapping[str, Callable[[Plugin, Sequence[Plugin], Sequence[Sample]], Lines]] = {
    "edit": _edit,
    "gate": _gate,
    "layout": _layout,
    "segmenter": _segmenter,
    "target": _target,
    "tracker": _tracker,
    "extractor": _extractor,
    "policy": _policy,
    "recipe": _recipe,
    "protocol": _protocol,
}
