"""Records of speed, memory and cost in; their page of figures and its blocks out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pages.layout import Page, Section
from pages.records import record
from pages.tables import NONE, cell, number, table


def page() -> Page:
    """`docs/results/speed.md`."""
    return Page(
        "speed",
        "Speed, memory and cost",
        "This page says how fast rows are made, read and written, and what trainings cost. "
        "[Performance](../performance.md) says which settings decide it.",
        [
            Section(
                "Rows of a generator, start-up and plan",
                "On one thread, in CPU-seconds, ways interleaved, with random weights of the recipe.",
                [record("speed")],
                [ways()],
            ),
            Section(
                "Reading ahead and writing behind",
                "One actor's worker, in one process, on slices of 224²: an edit of about 5 ms a row that computes, and "
                "one that waits as long and leaves the processor free, which stands for a GPU. One at a time is a unit "
                "read, made and written before the next.",
                [record("read_ahead")],
                [read_ahead()],
            ),
            Section(
                "How far actors help",
                "A simulation from measured stage times, and runs of actors that only wait beside it.",
                [record("scaling")],
                [scaling()],
            ),
            Section(
                "`local_contrast` beside `structure`",
                "Rows per CPU-second on one thread, by image size and model: of the demo, and of Duke's size.",
                [record("edit_speed")],
                [_edits(record("edit_speed").figures)],
            ),
            Section(
                "Shards in a PyTorch loop",
                "Rows per second, and per second of processor time, of slices; what the others do is the same work.",
                [record("loading")],
                _loading(record("loading").figures),
            ),
            Section(
                "Ingest",
                "Seconds of the ingest now and before its last large change, on the same files.",
                [record("ingest_speed")],
                [
                    table(
                        ["input", "before, s", "now, s", "now ÷ before"],
                        [
                            [name, number(f["before"], 2), number(f["now"], 2), number(f["ratio"], 2)]
                            for name, f in record("ingest_speed").figures["inputs"].items()
                        ],
                    )
                ],
            ),
            Section(
                "Checksums",
                "What checksums of pages cost when shards are written and read. Of what reading pays nearly all is the "
                "CRC of the pages, which goes over every byte; that of the footer is lost in it.",
                [record("checksum_cost")],
                [_checksums(record("checksum_cost").figures["rows"]), _bound(record("checksum_cost").figures)],
            ),
            Section(
                "The demo's network beside MONAI's",
                "Seconds of a training step at equal batch and size.",
                [record("network_speed")],
                [_networks(record("network_speed").figures)],
            ),
            Section(
                "Phantoms",
                "One process.",
                [record("phantom_speed")],
                [
                    table(
                        ["cohort", "subjects", "slices", "matrix", "s in all", "s per subject"],
                        [
                            [
                                n,
                                str(f["subjects"]),
                                f"{f['slices']:,}",
                                str(f["matrix"]),
                                number(f["wall_s"], 1),
                                number(f["wall_s_per_subject"], 2),
                            ]
                            for n, f in record("phantom_speed").figures.items()
                            if isinstance(f, Mapping)
                        ],
                    )
                ],
            ),
            Section(
                "From a finished run to nnU-Net's first epoch",
                "The three commands of [Export](../export.md#nnu-net), as processes of their own.",
                [record("nnunet_start")],
                [
                    table(
                        ["command", "s"],
                        [
                            *([f"`{k}`", number(v, 1)] for k, v in record("nnunet_start").figures["seconds"].items()),
                            ["together", number(record("nnunet_start").figures["seconds_together"], 1)],
                        ],
                    )
                ],
            ),
            Section(
                "Trainings in the papers' sizes",
                "Arithmetic on blank rows, not a measurement on a card: see [the papers' tables](../papers.md).",
                [record("training_cost")],
                [training_cost()],
            ),
        ],
    )


def ways() -> str:
    """Ways to evaluate a generator, and what commands take."""
    figures = record("speed").figures
    networks = []
    for name, f in figures["networks"].items():
        faster = "(compared with)" if f["times_faster"] is None else f"{f['times_faster']:g}×"
        size = f"{f['recipe']}, {f['size']}²"
        networks.append([name, size, str(f["evaluations"]), f"{f['cpu_s_per_row']:g}", faster])
    commands = [[f"`{name}`", f"{seconds:g}"] for name, seconds in figures["startup"].items()]
    for f in figures["plan"]:
        of = f"{f['of_which_imports_s']:g} of them imports, {f['peak_mib']:.0f} MiB at most"
        commands.append([f"`augengine plan` on {f['rows']:,} rows", f"{f['cpu_s']:g} ({of})"])
    head = ["way", "recipe, size", "evaluations per row", "CPU-s per row", "times faster"]
    return f"{table(head, networks)}\n\n{table(['command', 'CPU-s'], commands)}"


def read_ahead() -> str:
    """Milliseconds of a row by edit and way."""
    rows = []
    for edit, ways in record("read_ahead").figures["edits"].items():
        for way, f in ways.items():
            of_cpu = NONE if f["of_bare_loop_cpu"] is None else number(f["of_bare_loop_cpu"], 2)
            times = [number(f["ms_per_row"], 2), number(f["cpu_ms_per_row"], 2)]
            rows.append([edit, way, *times, number(f["of_bare_loop"], 2), of_cpu])
    return table(["edit", "way", "ms a row", "CPU-ms a row", "rows/s ÷ bare loop", "rows per CPU-s ÷ bare loop"], rows)


def scaling() -> str:
    """Measured stages, simulation beside Ray, and rows per second by actors."""
    f = record("scaling").figures
    stages = [
        ["survey of a row group (driver)", number(f["survey_ms_per_group"], 2)],
        ["a unit, besides its rows (actor)", number(f["unit_overhead_ms"], 1)],
        ["a unit's result (driver)", number(f["driver_ms_per_unit"], 1)],
        [f"the same, {f['at_once']} units at once", number(f["driver_ms_per_unit_at_once"], 1)],
    ]
    tried = [[n, number(t["units_per_s"], 1), number(t["simulated"], 1)] for n, t in f["tried"].items()]
    told = []
    for name, of in f["rows"].items():
        for actors, found in of["actors"].items():
            per_s, hours = f"{found['rows_per_s']:g}", f"{found['hours_of_a_million']:g}"
            told.append([name, actors, per_s, number(found["efficiency"], 2), hours, f"{of['bend_actors']:,}"])
    head = ["a row takes", "actors", "rows/s", "÷ (one × actors)", "hours of a million volumes", "bends at"]
    tables = [
        table(["stage", "ms"], stages),
        table(["actors", "units/s on Ray", "simulated"], tried),
        table(head, told),
    ]
    return "\n\n".join(tables)


def training_cost() -> str:
    """Size, memory, arithmetic and hours of every training."""
    head = ["recipe", "image", "M parameters", "GFLOP a row", "batch", "GiB", "steps", "hours"]
    rows = []
    for name, f in record("training_cost").figures["recipes"].items():
        image = " × ".join(str(n) for n in f["size"]) + (f", {f['channels']} channels" if f["channels"] > 1 else "")
        batch = str(f["batch"]) + (f" in {f['accumulation']} parts" if f["accumulation"] > 1 else "")
        hours = "< 0.1" if f["hours"] < 0.05 else f"{f['hours']:.{1 if f['hours'] < 10 else 0}f}"
        rows.append(
            [
                f"`{name}`",
                image,
                f"{f['parameters'] / 1e6:.1f}",
                f"{f['gflop_per_row']:,.0f}",
                batch,
                f"{f['gib']:.0f}",
                f"{f['steps']:,}",
                hours,
            ]
        )
    return table(head, rows)


def _edits(figures: Mapping[str, Any]) -> str:
    rows = []
    for name in ("demo", "duke"):
        found = figures[name]
        speed = found["rows_per_cpu_s"]
        rows.append(
            [
                name,
                f"{found['size']} × {found['size']}",
                f"{speed['structure']:g}",
                f"{speed['local_contrast']:g}",
                f"{found['local_contrast_over_structure']:g}×",
            ]
        )
    return table(["model", "size", "`structure`", "`local_contrast`", "times faster"], rows)


def _loading(figures: Mapping[str, Any]) -> list[str]:
    parts = []
    for title in ("epoch", "epoch, 2 workers", "random access"):
        rows = [
            [name, number(f["rows_per_s"], 1), number(f["rows_per_cpu_s"], 1), number(f["peak_mib"], 0)]
            for name, f in figures[title].items()
        ]
        parts.append(table([title, "rows per s", "rows per CPU-s", "MiB at most"], rows))
    memory = [
        [name, number(f["peak_mib"], 0), number(f["peak_mib_10x"], 0), number(f["growth"], 2)]
        for name, f in figures["memory"].items()
    ]
    ratios = [[n, number(f["rows_per_s"], 2), number(f["rows_per_cpu_s"], 2)] for n, f in figures["ratios"].items()]
    return [
        *parts,
        table(["memory", "MiB", "MiB at ten times the rows", "growth"], memory),
        table(["ratio", "of rows per s", "of rows per CPU-s"], ratios),
    ]


def _checksums(rows: Mapping[str, Mapping[str, Any]]) -> str:
    lines = []
    for name, found in rows.items():
        for what, f in found.items():
            if isinstance(f, Mapping):
                lines.append([name, what, number(f["without_ms"], 1), number(f["with_ms"], 1), number(f["ratio"], 3)])
        lines.append([name, "verify", NONE, number(found["verify_ms"], 1), NONE])
    return table(["rows", "", "ms without", "ms with", "with ÷ without"], lines)


def _bound(figures: Mapping[str, Any]) -> str:
    """Which steps cost more than the bound, of commands (`write`, `read`) and of what a reader does within one."""
    of_commands = {"write": "writing", "read": "reading samples"}
    told = []
    for whole in (True, False):
        steps = {
            (f"{of_commands[step]}, {name}" if whole else name): f["ratio"]
            for name, found in figures["rows"].items()
            for step, f in found.items()
            if isinstance(f, Mapping) and (step in of_commands) == whole
        }
        over = [f"{step} ({number(ratio, 3)})" for step, ratio in steps.items() if ratio > figures["bound"]]
        what = "writing a shard and reading its samples" if whole else "reading tables alone, without making samples"
        told.append(
            f"{what}: " + (f"not met by {'; '.join(over)}" if over else f"met, at most {max(steps.values()):.3f}")
        )
    return (
        f"The bound is {figures['bound']:g} times the time without. "
        + ". ".join(t[0].upper() + t[1:] for t in told)
        + "."
    )


def _networks(figures: Mapping[str, Any]) -> str:
    rows = [
        [name, cell(figures["parameters"][name]), number(seconds, 4)]
        for name, seconds in figures["seconds_per_step"].items()
    ]
    rows.append(["MONAI's ÷ compact", "", number(figures["monai_over_compact"], 2)])
    return table([f"batch {figures['batch']}, size {figures['size']}", "parameters", "s per step"], rows)
