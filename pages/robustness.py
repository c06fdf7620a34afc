"""Records of runs that were killed, repeated or fed hostile input in; their pages of figures out."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from pages.layout import Page, Section
from pages.records import record
from pages.tables import counts, number, table


def exactly_once_page() -> Page:
    """`docs/results/exactly-once.md`."""
    actors, memory, killed = record("augment_actors"), record("augment_memory"), record("kill_matrix")
    layouts, exports, training = record("kill_matrix_layouts"), record("export_kill"), record("train_recovery")
    soaked = record("soak")
    return Page(
        "exactly-once",
        "Same rows, exactly once, whatever dies",
        "This page says what became of runs that were killed, and whether rows depend on actors, shards or memory. "
        "[Exactly once](../exactly_once.md) says how it is done.",
        [
            Section(
                "Killed at random moments",
                "Actors, workers, drivers and nodes of a local cluster of two are killed at random moments; every hash "
                "of the finished run is compared with that of an undisturbed one.",
                [killed],
                [_kills(killed.figures)],
            ),
            Section(
                "A fault a minute",
                "Ingest, training, augmentation and export of DICOM series, of which every fiftieth patient has a "
                "file that is cut off, again and again on a local cluster of two nodes. Every fiftieth row that is "
                "augmented is damaged: pixels cut off or no numbers, no subject, an intensity range upside down, a "
                "flip angle of −1°; exactly these rows must fail. Every minute something is killed, or the disk is "
                "full, read-only or slow for a while; a command that ends badly is typed again. Every chain must end "
                "with the rows, reasons, weights and exported files of an undisturbed one, byte by byte. *Back after* "
                "is the time until the next unit, training step, exported file or finished command; *rate back* the "
                f"time until work goes on for {number(soaked.figures['window_s'], 0)} s at half the undisturbed speed "
                "or more. Both hold the start of Python and Ray where the command was typed again. *Speed* is work per "
                "second beside that of the undisturbed chain, in the seconds before the fault and from when the rate "
                "is back until the next one; 1 is the undisturbed speed. Other programs kept the machine busy, more so "
                "at some times than at others: both late rates (missed) fell into four minutes in which everything on "
                "it was slow, and the chain after the last fault ran at a load above 30 (by `uptime`; not in the "
                "record).",
                [soaked],
                _soaked(soaked.figures),
            ),
            Section(
                "Killed on Ray, altogether",
                "Processes and nodes that were killed while a command ran on Ray, by record. Full disks and their like "
                "are not counted, nor are exports that were killed without Ray, which stand below.",
                [killed, training, soaked],
                [_kills_on_ray(killed.figures, training.figures, soaked.figures)],
            ),
            Section(
                "Other layouts of the same rows",
                "The same rows by one actor and by several, shuffled, and in other shards. In the first record two "
                "layouts differed in one voxel, from sums whose order depended on a row's place in its batch; rows are "
                "filled up to whole registers since, which is the second record.",
                [killed, layouts],
                [
                    table(
                        ["layout", "equal, first record", "equal, second record"],
                        [
                            [name, _yes(killed.figures["layouts_equal"][name]), _yes(equal)]
                            for name, equal in layouts.figures["layouts_equal"].items()
                        ],
                    )
                ],
            ),
            Section(
                "One actor and two",
                "The bytes of all rows by one actor and by two, and by another batch size, which is part of a policy's "
                "digest since it changes last bits.",
                [actors],
                [_actors(actors.figures)],
            ),
            Section(
                "Memory at ten times the rows",
                "The most memory that an actor and the driver held.",
                [memory],
                [_memory(memory.figures)],
            ),
            Section(
                "Exports that were killed",
                "Each target is killed at random moments and started again; folders are compared byte by byte.",
                [exports],
                [
                    table(
                        ["target", "kills", "goes on from what was there", "folders", "equal"],
                        [
                            [f"`{n}`", *(str(f[k]) for k in ("kills", "resumed", "folders", "equal_folders"))]
                            for n, f in exports.figures.items()
                        ],
                    )
                ],
            ),
            Section(
                "Trainings that lost a worker",
                "Two workers, one of them killed; the validation loss at the end beside that of an undisturbed run.",
                [training],
                [
                    table(
                        ["model", "steps", "killed at", "went on from", "loss, undisturbed", "loss, killed"],
                        [
                            [
                                f"`{name}`",
                                str(f["steps"]),
                                str(f["killed"]["killed_at_step"]),
                                str(f["killed"]["went_on_from_step"]),
                                f"{f['undisturbed']['validation_loss']:g}",
                                f"{f['killed']['validation_loss']:g}",
                            ]
                            for name, f in training.figures["models"].items()
                        ],
                    )
                ],
            ),
        ],
    )


def input_page() -> Page:
    """`docs/results/input.md`."""
    hostile, flips, refused = record("hostile_input"), record("bit_flips"), record("refusals")
    ingested, real = record("ingest_real"), record("real_input")
    return Page(
        "input",
        "Hostile, damaged and real input",
        "This page says what became of input that is wrong on purpose, of files with a flipped bit, and of real files "
        "of other people. [What is refused, and when](../refusals.md) has the rules.",
        [
            Section(
                "Hostile input by reader",
                "`make fuzz` makes hostile input for each reader in a process of its own, with limits of time and "
                "memory.",
                [hostile],
                [counts({**hostile.figures["by_reader"], "**all**": hostile.figures["total"]}, "reader")],
            ),
            Section(
                "One flipped bit",
                "The same with one flipped bit in a file of this project. What was accepted gave the rows that were "
                "written; the training state before a damaged one is taken.",
                [flips],
                [counts({**flips.figures["by_reader"], "**all**": flips.figures["total"]}, "file")],
            ),
            Section(
                "How soon a mistake is told",
                "Each refusal provoked on small phantoms, as a command of its own: seconds from the start of Python to "
                "the exit, while other programs ran, too, and seconds of computation in the command's own process. "
                f"Loading alone (`augengine --help`) took {number(refused.figures['python_loads_seconds'], 1)} s. "
                "Provoked by no case: a token that is asked for, a full disk, another job in `--out`, a window of row "
                "groups beyond the memory.",
                [refused],
                [
                    table(
                        ["command", "refused", "moment", "seconds", "of computation"],
                        [
                            [
                                f"`{c['command']}`",
                                c["refused"],
                                c["moment"],
                                number(c["seconds"], 1),
                                number(c["cpu_seconds"], 1),
                            ]
                            for c in refused.figures["refusals"]
                        ],
                    )
                ],
            ),
            Section(
                "Real files, ingested",
                "Public files of several scanners. What fails has a reason.",
                [ingested],
                _ingested(ingested.figures["sets"]),
            ),
            Section(
                "Real files through the demo's model",
                "A model that has seen phantoms alone; its gates accept the rows all the same, which says that gates "
                "look for moved edges, voids and impossible values, and not for lost contrast.",
                [real],
                [
                    table(
                        ["input", "accepted", "rejected", "failed", "skipped"],
                        [[name, *(str(n) for n in f["rows"].values())] for name, f in real.figures.items()],
                    )
                ],
            ),
        ],
    )


def _kills_on_ray(matrix: Mapping[str, Any], training: Mapping[str, Any], soaked: Mapping[str, Any]) -> str:
    """Kills of each record by what was killed, and their sum; a training that was never killed does not count."""
    struck = {kind: found["faults"] for kind, found in soaked["faults_by_kind"].items()}
    trained = sum("killed_at_step" in found["killed"] for found in training["models"].values())
    by_record: dict[str, Mapping[str, int]] = {
        "killed at random moments": matrix["killed"],
        "a fault a minute": {kind: struck.get(kind, 0) for kind in matrix["killed"]},
        "trainings that lost a worker": {"worker": trained},
    }
    kinds = list(matrix["killed"])
    lines = [[name, *(str(n.get(kind, 0)) for kind in kinds), str(sum(n.values()))] for name, n in by_record.items()]
    sums = [sum(n.get(kind, 0) for n in by_record.values()) for kind in kinds]
    lines.append(["**all**", *(str(n) for n in sums), str(sum(sums))])
    return table(["record", *kinds, "all"], lines)


def _soaked(figures: Mapping[str, Any]) -> list[str]:
    first, after = figures["undisturbed"], figures["undisturbed_after"]
    counts, slow = first["counts"], sum(_rate_back(fault) > 60 for fault in figures["faults"])
    whole = [
        ["minutes", number(figures["minutes"], 0)],
        ["faults", str(figures["faults_struck"])],
        ["chains", str(figures["chains"])],
        ["chains equal to the undisturbed one", str(figures["chains_equal"])],
        ["rows of a chain: requested", str(counts["requested"])],
        ["of them accepted, rejected, failed, skipped", ", ".join(str(counts[kind]) for kind in _OUTCOMES)],
        ["damaged rows, and those of them that failed", f"{first['poisoned']}, {first['poisoned_failed']}"],
        ["seconds of the undisturbed chain, and of one after the last fault", _both(first, after)],
        ["seconds of a disturbed chain (median)", number(figures["seconds_of_a_chain"], 0)],
        ["commands typed again", str(sum(figures["commands_typed_again"].values()))],
        ["tracebacks shown to the user", str(figures["tracebacks"])],
        ["faults after which nothing was done for more than a minute", str(figures["slow_recoveries"])],
        ["faults after which the rate was not back within a minute", str(slow)],
        ["load of the machine (median; one for each process that wants a core)", number(figures["load"], 0)],
    ]
    kinds = []
    for kind, f in figures["faults_by_kind"].items():
        rates = [_rate_back(fault) for fault in figures["faults"] if fault["kind"] == kind]
        back = (f["back_after_s"], f["slowest_s"], statistics.median(rates), max(rates))
        speeds = (f"{f[key]:.2f}" for key in ("speed_before", "speed_after"))
        kinds.append([kind, str(f["faults"]), *(number(value, 0) for value in back), *speeds])
    head = ["fault", "times", "back after, s (median)", "slowest, s", "rate back after, s (median)", "slowest, s"]
    return [table(["what", "figure"], whole), table([*head, "speed before", "speed after"], kinds)]


_OUTCOMES = ("accepted", "rejected", "failed", "skipped")


def _rate_back(fault: Mapping[str, Any]) -> float:
    """The rate is not back before anything is done."""
    return float(max(fault["back_after_s"], fault["rate_back_after_s"]))


def _both(first: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    return f"{number(first['seconds'], 0)}, {number(after['seconds'], 0)}"


def _kills(figures: Mapping[str, Any]) -> str:
    rows = []
    for kind, runs in figures["runs"].items():
        lost, twice = (sum(run[key] for run in runs) for key in ("missing", "duplicates"))
        rows.append([kind, str(figures["killed"][kind]), figures["equal"][kind], str(lost), str(twice)])
    return table(["killed", "times", "runs equal", "rows missing", "rows twice"], rows)


def _actors(figures: Mapping[str, Any]) -> str:
    batches = figures["batches_of_8_against_1"]
    largest = batches["largest_difference_grey_levels"]
    return table(
        ["compared", "rows", "equal in every byte", "largest difference"],
        [
            ["one actor, two actors", str(figures["rows"]), str(figures["equal_bytes_one_and_two_actors"]), "0"],
            [
                "batches of 8, of 1",
                str(batches["rows"]),
                str(batches["equal_bytes"]),
                f"{largest:.3g} of {batches['intensity_range_grey_levels']:g} grey levels",
            ],
        ],
    )


def _memory(figures: Mapping[str, Any]) -> str:
    rows = [
        [f"{run['rows']:,}", number(run["actor_peak_mib"], 0), number(run["driver_peak_mib"], 0)]
        for run in figures["runs"]
    ]
    growth = figures["growth_for_10x_rows"]
    rows.append(["growth", *(number(growth[key], 3) for key in ("actor_peak_mib", "driver_peak_mib"))])
    return table(["rows", "actor, MiB", "driver, MiB"], rows)


def _ingested(sets: list[Mapping[str, Any]]) -> list[str]:
    rows = [
        [
            s["set"],
            *(str(s["found"][k]) for k in ("volumes", "subjects")),
            *(str(s["counts"][k]) for k in ("samples", "volumes", "failed")),
            number(s["seconds"], 1),
        ]
        for s in sets
    ]
    reasons = [
        [s["set"], f"`{volume['entry']}`", volume["reason"]]
        for s in sets
        for volume in s["volumes"]
        if volume["reason"]
    ]
    return [
        table(["set", "volumes found", "subjects", "rows", "volumes used", "failed", "s"], rows),
        table(["set", "volume", "why it failed"], reasons),
    ]


def _yes(equal: bool) -> str:
    return "yes" if equal else "no"
