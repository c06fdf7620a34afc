"""An output id and its run folder in; the row's history as tables and a before/after/difference picture out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from augengine.commands.replay import DataFlag, OutFlag, OutputId
from augengine.io.store import Store
from augengine.pipeline.cluster import user_errors
from augengine.pipeline.lineage import Row, Run
from augengine.pipeline.models import gate_refs
from augengine.records import Sample
from augengine.report.before_after import before_after
from augengine.report.console import console, say, table
from augengine.rng import canonical_json
from augengine.told import tell

PictureFlag = Annotated[Path | None, typer.Option(help="PNG to write; default: explain-<id>.png in this folder.")]


def explain_command(output_id: OutputId, out: OutFlag, data: DataFlag = None, picture: PictureFlag = None) -> None:
    """Where a row came from: source, policy, plan, models, gates, donors; and how it looks beside its source."""
    with user_errors():
        run = Run(out)
        row = run.row(output_id)
        if row.sample is None:
            _echo(output_id, row.outcome, list(row.values.items()))
            return
        source = run.source(row.provenance.parent_id, data)
        _echo(output_id, row.outcome, _history(run, row, source))
        gates = [[g["name"], g["value"], g["min"], g["max"], g["passed"]] for g in row.provenance.gates]
        table("gates", ["measure", "value", "min", "max", "passed"], gates)
        path = picture or Path(f"explain-{output_id}.png")
        Store(path.parent).write(path.name, before_after(source, row.sample))
        tell(gates=row.provenance.gates, picture=str(path))
        console.print(f"picture: {path}")


def _echo(output_id: str, outcome: str, lines: list[tuple[str, object]]) -> None:
    """Plain lines: hashes and plans would not fit a table."""
    say(f"{output_id}: {outcome}")
    for name, value in lines:
        say(f"  {name}: {value}")
    tell(output_id=output_id, outcome=outcome, history=[[name, value] for name, value in lines])


def _history(run: Run, row: Row, source: Sample) -> list[tuple[str, object]]:
    p, plan = row.provenance, row.provenance.plan
    labels = ", ".join(source.labels) or "none"
    refs, mix = run.checkpoints(run.policy(p)), run.mixture.mix
    return [
        ("reason", row.values.get("reason") or "kept every gate"),
        ("source", f"{source.sample_id} (subject {source.subject_id}, split {source.split}, labels {labels})"),
        ("data", run.inputs["data"]),
        *([("mix", f"{mix.name} (digest {run.mixture.digest})")] if mix else []),
        ("policy", f"{p.policy} (digest {p.policy_digest}), edit {p.edit}"),
        ("seed", f"{plan['seed']} (replicate {plan['replicate']}, attempt {plan['attempt']})"),
        *_steps(plan["params"]),
        ("donors", ", ".join(plan["donors"]) or "none"),
        *_files(refs, gate_refs(run.policy(p)), p.models),
        ("engine", p.engine_version),
        *((f"plug-in {package}", version) for package, version in p.plugins.items()),
        ("source licence", p.source_licence or "not stated"),
    ]


def _files(models: Mapping[str, str], gates: Mapping[str, str], hashes: Mapping[str, str]) -> list[tuple[str, object]]:
    """Models of the edit and files of gates: what each is, the folder that it was read from, and its sha256."""
    lines: list[tuple[str, object]] = []
    for name, sha256 in hashes.items():
        kind, folder = ("model", models[name]) if name in models else ("gate", gates.get(name, "a file of its own"))
        lines.append((f"{kind} {name}", f"{folder} sha256 {sha256}"))
    return lines


def _steps(params: Mapping[str, Any]) -> list[tuple[str, object]]:
    """The plan of the only edit, or those of a chain's steps in order."""
    if "steps" not in params:
        return [("plan", canonical_json(params))]
    lines: list[tuple[str, object]] = []
    for n, step in enumerate(params["steps"], 1):
        title = f"step {n}, {step['edit']}"
        lines += [(f"{title}, plan", canonical_json(step["params"])), (f"{title}, seed", step["seed"])]
        lines += [(f"{title}, donors", ", ".join(step["donors"]))] if step["donors"] else []
    return lines
