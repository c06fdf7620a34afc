"""What a report knows of a run in, the parts of its page that need no script out."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import yaml

from augengine.io.dataset import licence_of
from augengine.records import ACQUISITION_NUMERIC, Acquisition
from augengine.report.page.charts import GROUPS, Point, arrows, before_after, histogram
from augengine.report.page.copies import CopyAudit, copies
from augengine.report.page.markup import Markup, element, join, table
from augengine.report.page.rows import Position, RunRows

AXES = (("echo_time_ms", "repetition_time_ms"), ("flip_angle_deg", "field_strength_t"))
LABELS_SHOWN = 8


def section(
    rows: RunRows, name: str, number: int, reached: Mapping[str, Acquisition], audit: CopyAudit | None
) -> Markup:
    """All parts of a run that stand still.

    Args:
        reached: row id to the acquisition that a predictor reads off it.
        audit: how far rows are from training rows.
    """
    parts = [counts(rows), gates(rows), scans(rows, reached), volumes(rows), places(rows), copies(audit)]
    parts += [provenance(rows), commands(rows)]
    return element("section", element("h2", f"Run {name}"), *parts, id=f"run-{number}")


def counts(rows: RunRows) -> Markup:
    """Rows by outcome, and why those that were not accepted were not."""
    requested = sum(rows.counts.values())
    found = [
        [outcome, count, f"{count / requested:.1%}" if requested else ""] for outcome, count in rows.counts.items()
    ]
    reasons = [[outcome, reason, n] for outcome, of in rows.reasons.items() for reason, n in of]
    lines = [table(["outcome", "rows", "share"], [*found, ["together", requested, ""]])]
    if not rows.finished:
        lines.insert(0, element("p", "This run is not finished: the numbers are those of what is committed."))
    if reasons:
        lines += [element("h4", "Reasons"), table(["outcome", "reason", "rows"], reasons)]
    if "rejected" in rows.reasons:
        lines += [element("p", "A rejected row counts for each gate that it broke.", class_="note")]
    return join(element("h3", "Rows"), *lines)


def gates(rows: RunRows) -> Markup:
    """The values of every gate, with its bounds."""
    figures = []
    for name, tally in sorted(rows.gates.items()):
        groups: dict[str, list[float]] = {"accepted": [], "rejected": []}
        bounds: dict[tuple[str, float], None] = {}
        for seen in rows.kept:
            for gate in seen.gates:
                if gate["name"] == name:
                    if gate["value"] is not None:
                        groups[seen.outcome].append(gate["value"])
                    bounds.update(
                        {
                            (sign, gate[key]): None
                            for sign, key in (("min", "min"), ("max", "max"))
                            if gate[key] is not None
                        }
                    )
        told = f"rows by value; {tally.broken} of {tally.judged} broke it"
        told += f", {tally.without_value} could not be measured" if tally.without_value else ""
        chart = histogram(name, groups, [(f"{sign} {value:g}", value) for sign, value in bounds])
        figures.append(element("figure", element("figcaption", element("b", name), f": {told}"), chart))
    if not figures:
        return join(element("h3", "Gates"), element("p", "No row was judged."))
    key = element("p", element("span", "accepted", class_="key bar-0"), element("span", "rejected", class_="key bar-1"))
    return join(element("h3", "Gates"), key, element("div", *figures, class_="figures"), _drawn(rows))


def scans(rows: RunRows, reached: Mapping[str, Acquisition]) -> Markup:
    """Where the acquisitions of the rows came from and went, and what a predictor says was reached."""
    title = element("h3", "Acquisition")
    moved = [(rows.sources[s.parent_id].acquisition, s.acquisition) for s in rows.kept if s.parent_id in rows.sources]
    moved = [(before, after) for before, after in moved if before != after]
    if not moved:
        return join(title, element("p", "No row changed its acquisition."))
    told = [seen for seen in rows.kept if seen.row_id in reached]
    makers = sorted({a.manufacturer or "not stated" for a in (*chain(*moved), *(reached[s.row_id] for s in told))})
    figures = []
    for x, y in AXES:
        points = [(_point(before, x, y, makers), _point(after, x, y, makers)) for before, after in moved]
        whole = [(a, b) for a, b in points if a is not None and b is not None]
        if len({end[:2] for pair in whole for end in pair}) > 1:
            names = _words(x), _words(y)
            caption = element("figcaption", f"{names[1]} over {names[0]}")
            marks = [(_point(s.acquisition, x, y, makers), _point(reached[s.row_id], x, y, makers)) for s in told]
            crosses = [(a, b) for a, b in marks if a is not None and b is not None]
            chart = arrows(f"{names[1]} over {names[0]}", whole, *names, crosses)
            figures.append(element("figure", caption, chart))
    key = [element("span", "source: ring", class_="key"), element("span", "target: dot", class_="key")]
    key += [element("span", f"reached by {len(told)} rows: cross", class_="key")] if told else []
    key += [element("span", name, class_=f"key group-{n % GROUPS}") for n, name in enumerate(makers)]
    changes: dict[tuple[str, str], int] = {}
    for before, after in moved:
        pair = (_maker(before), _maker(after))
        changes[pair] = changes.get(pair, 0) + 1
    listed: list[list[object]] = [[a, b, n] for (a, b), n in sorted(changes.items(), key=lambda c: -c[1])]
    figure = join(element("p", *key), element("div", *figures, class_="figures")) if figures else ""
    return join(title, figure, table(["source", "target", "rows"], listed), _drawn(rows))


def volumes(rows: RunRows) -> Markup:
    """Volumes of the labels that changed."""
    title = element("h3", "Labels")
    pairs: dict[str, list[Point]] = {}
    for seen in rows.kept:
        before = rows.sources[seen.parent_id].volumes_ml if seen.parent_id in rows.sources else {}
        if before or seen.volumes_ml:
            for name in sorted({*before, *seen.volumes_ml}):
                group = 0 if seen.outcome == "accepted" else 1
                pairs.setdefault(name, []).append((before.get(name, 0.0), seen.volumes_ml.get(name, 0.0), group))
    if not pairs:
        return join(title, element("p", "The rows have no label maps."))
    changed = {name: of for name, of in pairs.items() if any(abs(b - a) > 1e-9 for b, a, _ in of)}
    same = sorted(pairs.keys() - changed.keys())
    remark = element("p", f"Unchanged in every row: {', '.join(same)}.") if same else ""
    if not changed:
        return join(title, remark)
    first = sorted(changed, key=lambda name: (-sum(abs(b - a) for b, a, _ in changed[name]), name))[:LABELS_SHOWN]
    figures = [
        element("figure", element("figcaption", f"{name}, ml"), before_after(f"volume of {name}", changed[name], "ml"))
        for name in first
    ]
    rest = len(changed) - len(first)
    left = element("p", f"{rest} more labels changed less and are not drawn.") if rest else ""
    key = element(
        "p", element("span", "accepted", class_="key group-0"), element("span", "rejected", class_="key group-1")
    )
    middle = [[name, len(changed[name]), *_sums(changed[name])] for name in first]
    columns = ["label", "rows", "mean before, ml", "mean after, ml"]
    return join(
        title, remark, key, element("div", *figures, class_="figures"), table(columns, middle), left, _drawn(rows)
    )


def places(rows: RunRows) -> Markup:
    """Where the lesions of the rows lay and lie."""
    found: list[tuple[Position | None, Position | None, int]] = []
    for seen in rows.kept:
        before = rows.sources[seen.parent_id].lesion_mm if seen.parent_id in rows.sources else None
        if before != seen.lesion_mm:
            found.append((before, seen.lesion_mm, 0 if seen.outcome == "accepted" else 1))
    if not found:
        return Markup("")
    moves = [(_place(before, group), _place(after, group)) for before, after, group in found]
    names = "to the left, mm", "to the front, mm"
    caption = element("figcaption", "Middle of all lesions of a row, on the sides on which the pictures show it")
    key = [element("span", "source: ring", class_="key"), element("span", "edited: dot", class_="key")]
    key += [element("span", name, class_=f"key group-{n}") for n, name in enumerate(("accepted", "rejected"))]
    chart = arrows("place of the lesions", moves, *names)
    kinds = Counter(_KINDS[(before is None, after is None)] for before, after, _ in found)
    told = ", ".join(f"{kind} {n}" for kind, n in kinds.most_common())
    figure = element("div", element("figure", caption, chart), class_="figures")
    return join(element("h4", "Place of the lesions"), element("p", f"Rows: {told}."), element("p", *key), figure)


def _place(position: Position | None, group: int) -> Point | None:
    return None if position is None else (-position[0], position[1], group)


_KINDS = {(False, False): "moved, grown or more of them", (True, False): "new", (False, True): "gone"}


def provenance(rows: RunRows) -> Markup:
    """What made the rows: policy, models, engine, data and licence."""
    run, mixture = rows.run, rows.run.mixture
    models: list[list[object]] = []
    for member in mixture.members:
        for role, model in mixture.by_member(run.inputs["models"]).get(member.name, {}).items():
            models.append([mixture.named(member, role), _end(model["ref"]), model["sha256"]])
    facts = [
        ("policy", ", ".join(member.name for member in mixture.members)),
        ("edits", ", ".join(member.edit_name for member in mixture.members)),
        ("digest", mixture.digest),
        ("data", _end(run.inputs["data"])),
        ("licence of the source", licence_of(rows.data) or "not stated"),
        ("engine", run.inputs.get("engine_version", "not stated")),
        *((f"plug-in {package}", version) for package, version in run.inputs.get("plugins", {}).items()),
        ("device", run.inputs.get("device", "not stated")),
    ]
    listed = element("dl", *(join(element("dt", name), element("dd", value)) for name, value in facts))
    text = yaml.safe_dump(mixture.to_dict(), sort_keys=False, allow_unicode=True)
    policy = element("details", element("summary", "The whole policy"), element("pre", text, tabindex=0))
    return join(
        element("h3", "Provenance"), listed, table(["model", "folder", "sha256"], models) if models else "", policy
    )


def commands(rows: RunRows) -> Markup:
    """What to run to look further; every row of the viewer has its own."""
    run = shlex.quote(rows.asked)
    lines = [f"augengine ls {run} --folder {o}" for o, n in rows.counts.items() if n] if rows.finished else []
    lines += [f"augengine check {run} --deep"] if rows.finished else []
    for outcome in ("accepted", "rejected"):
        for seen in [seen for seen in rows.kept if seen.outcome == outcome][:1]:
            lines += [f"augengine {verb} {shlex.quote(seen.row_id)} --out {run}" for verb in ("explain", "replay")]
    if not lines:
        return Markup("")
    return join(element("h3", "Commands"), element("pre", "\n".join(lines), tabindex=0))


def _drawn(rows: RunRows) -> Markup:
    total = rows.counts["accepted"] + rows.counts["rejected"]
    if len(rows.kept) == total:
        return Markup("")
    return element("p", f"Drawn: {len(rows.kept)} of {total} rows, chosen by their ids.", class_="note")


def _sums(pairs: Sequence[Point]) -> list[float]:
    return [round(sum(pair[n] for pair in pairs) / len(pairs), 3) for n in (0, 1)]


def _point(a: Acquisition, x: str, y: str, makers: Sequence[str]) -> Point | None:
    values: Mapping[str, Any] = a.to_dict()
    if values[x] is None or values[y] is None:
        return None
    return values[x], values[y], makers.index(a.manufacturer or "not stated")


def _maker(a: Acquisition) -> str:
    field = f" {a.field_strength_t:g} T" if a.field_strength_t is not None else ""
    return f"{a.manufacturer or 'not stated'}{field}"


def _words(name: str) -> str:
    assert name in ACQUISITION_NUMERIC
    words, unit = name.rsplit("_", 1)
    return f"{words.replace('_', ' ')}, {({'deg': '°', 't': 'T'}).get(unit, unit)}"


def _end(uri: str) -> str:
    """The end of a folder's path: reports travel, and where folders lie says nothing elsewhere."""
    parts = [part for part in uri.rstrip("/").split("/") if part]
    return "/".join(parts[-2:])
