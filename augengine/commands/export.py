"""The flags of `augengine export`: data sets and augmented runs go in; a folder in another tool's layout comes out."""

from __future__ import annotations

import csv
from dataclasses import asdict
from typing import Annotated, Any

import typer

from augengine.commands.flags import checked, parse_pairs
from augengine.errors import ConfigError
from augengine.export import TARGETS
from augengine.export.nnunet import BRATS_REGIONS
from augengine.export.run import Exported, export
from augengine.export.target import Target
from augengine.io.store import Store
from augengine.pipeline.cluster import connect, output_uri, user_errors
from augengine.pipeline.units import Actors
from augengine.report.console import console, stage, table
from augengine.selection import Request
from augengine.splits import SPLITS
from augengine.told import tell
from augengine.yaml_config import Strict

LABELS_HELP = "Labels in the order of their codes: name,... with name=part+part for a union."
BALANCE_HELP = "Labels whose share of rows stays: augmented rows replace real ones: name,..."
REGIONS_HELP = "nnunet: nested regions, outermost first: brats, or name=label+label,..."


def export_command(
    target: Annotated[str, typer.Argument(help=f"One of {', '.join(TARGETS)}.")],
    data: Annotated[list[str], typer.Argument(help="Ingested data sets (paths or URIs).")],
    out: Annotated[str, typer.Option(help="Folder of the export (path or URI); it must not hold anything else.")],
    augmented: Annotated[list[str] | None, typer.Option(help="Runs of augment; give it once for each.")] = None,
    split: Annotated[str, typer.Option(help="Splits to export.")] = ",".join(SPLITS),
    augmented_per_real: Annotated[float | None, typer.Option(help="Augmented per real training row.")] = None,
    balance: Annotated[str | None, typer.Option(help=BALANCE_HELP)] = None,
    channels: Annotated[str | None, typer.Option(help="Channels, in order: name,...")] = None,
    labels: Annotated[str | None, typer.Option(help=LABELS_HELP)] = None,
    where: Annotated[list[str] | None, typer.Option(help="Condition, e.g. 'gate.sharpness >= 0.8'.")] = None,
    exclude_subjects: Annotated[str | None, typer.Option(help="Subjects that have no part in it: id,...")] = None,
    checkpoint: Annotated[list[str] | None, typer.Option(help="Folder of a model that was moved.")] = None,
    unlabelled: Annotated[str, typer.Option(help="Rows without label map: refuse, skip or keep.")] = "refuse",
    stack: Annotated[bool, typer.Option("--stack", help="Put slices together to volumes.")] = False,
    clear_air: Annotated[bool, typer.Option(help="Synthetic voxels are 0 where the source has exactly 0.")] = True,
    licence: Annotated[str | None, typer.Option(help="Of the source data, if they do not say.")] = None,
    source_orientation: Annotated[str | None, typer.Option(help="nnunet: of the files, e.g. LPS.")] = None,
    regions: Annotated[str | None, typer.Option(help=REGIONS_HELP)] = None,
    ignore_below: Annotated[int | None, typer.Option(help="nnunet: ignore less certain labels, 1-255.")] = None,
    sampling_ratio: Annotated[float | None, typer.Option(help="nnunet: augmented cases drawn per real one.")] = None,
    weights: Annotated[str | None, typer.Option(help="nnunet: CSV file of sample_id,weight: how often.")] = None,
    suffixes: Annotated[str | None, typer.Option(help="bids: channel=SUFFIX,...")] = None,
    nifti: Annotated[bool | None, typer.Option("--nifti", help="hf: columns of NIfTI files.")] = None,
    readers: Annotated[int | None, typer.Option(help="webdataset: workers x ranks that will read.")] = None,
    arrays: Annotated[bool | None, typer.Option("--arrays", help="webdataset: .npy in place of NIfTI.")] = None,
    actors: Annotated[int, typer.Option(min=1, help="Parallel writers.")] = 2,
    inline: Annotated[bool, typer.Option("--inline", help="Work in this process, without Ray.")] = False,
) -> None:
    """Write shards for another trainer; augmented rows are for training alone. The same command again goes on."""
    with user_errors():
        options = {
            "source_orientation": source_orientation,
            "regions": _regions(regions),
            "ignore_below": ignore_below,
            "sampling_ratio": sampling_ratio,
            "weights": _weights(weights),
            "suffixes": _pairs(suffixes, "--suffixes"),
            "nifti": nifti,
            "readers": readers,
            "arrays": arrays,
        }
        made = _target(target, {name: value for name, value in options.items() if value is not None})
        request = Request.of(
            data,
            augmented or (),
            split=_names(split, "--split"),
            augmented_per_real=augmented_per_real,
            balance=_names(balance, "--balance") or (),
            channels=_names(channels, "--channels"),
            labels=_labels(labels),
            where=where or (),
            exclude_subjects=_names(exclude_subjects, "--exclude-subjects") or (),
            checkpoints=checkpoint or (),
            unlabelled=unlabelled,  # type: ignore[arg-type]  # the request checks it
        )
        if not inline:
            connect()
        with stage(f"export {target}") as report:
            found = export(
                made,
                request,
                Store(output_uri(out, "export")),
                stack=stack,
                clear=clear_air,
                licence=licence,
                actors=Actors(actors, inline=inline),
                progress=report,
            )
        _print(found)


def _target(name: str, options: dict[str, Any]) -> Target:
    """The target with its options.

    Raises:
        ConfigError: an unknown target, or a flag that belongs to another one.
    """
    kind: type[Strict] = TARGETS.find(name)
    for flag in options:
        if flag not in kind.model_fields:
            owners = [other for other, model in TARGETS.own.items() if flag in model.model_fields]
            raise ConfigError(
                f"the target {name} has no such flag",
                where="--" + flag.replace("_", "-"),
                next_step=f"it is for {', '.join(owners)}",
            )
    target: Any = checked(kind, **options)
    return target  # type: ignore[no-any-return]


def _names(text: str | None, flag: str) -> list[str] | None:
    """Comma-separated names, of which none may stand twice."""
    if text is None:
        return None
    names = [part.strip() for part in text.split(",") if part.strip()]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ConfigError("give each name once", found=twice[0], where=flag)
    return names


def _weights(path: str | None) -> dict[str, float] | None:
    """Sample ids and weights of a CSV file with these columns.

    Raises:
        ConfigError: no such file or columns, an id twice, or a weight that is no number.
    """
    if path is None:
        return None
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("cannot read the weights", found=str(error), where=path) from None
    found: dict[str, float] = {}
    for n, row in enumerate(rows, 2):
        sample_id, text = row.get("sample_id"), row.get("weight")
        try:
            value = float(text or "")
        except ValueError:
            value = -1.0
        if not sample_id or sample_id in found or not 0 <= value < float("inf"):
            raise ConfigError(
                "weights are a table with the columns sample_id and weight, each id once and each weight from 0 on",
                found=f"{sample_id}, {text}",
                where=f"{path}, line {n}",
            )
        found[sample_id] = value
    return found


def _pairs(text: str | None, flag: str) -> dict[str, str] | None:
    if text is None:
        return None
    return parse_pairs(filter(str.strip, text.split(",")), flag, "for example a=1,b=2")


def _unions(text: str, flag: str) -> dict[str, tuple[str, ...]]:
    pairs = _pairs(text, flag) or {}
    return {name: tuple(part.strip() for part in value.split("+")) for name, value in pairs.items()}


def _labels(text: str | None) -> Any:
    """Names, or unions by name.

    >>> _labels("a,b"), _labels("lesion=core+rim,oedema")
    (['a', 'b'], {'lesion': ('core', 'rim'), 'oedema': ('oedema',)})
    """
    if not text or "=" not in text:
        return _names(text, "--labels")
    written = [part if "=" in part else f"{part}={part}" for part in filter(str.strip, text.split(","))]
    return _unions(",".join(written), "--labels")


def _regions(text: str | None) -> dict[str, tuple[str, ...]] | None:
    if text is None:
        return None
    return dict(BRATS_REGIONS) if text == "brats" else _unions(text, "--regions")


def _print(found: Exported) -> None:
    rows: list[tuple[object, object]] = list(found.counts.items())
    rows += [(f"left out: {reason}", count) for reason, count in sorted(found.left_out.items()) if count]
    rows += [("files", found.files)]
    if found.cleared:
        rows.append(("synthetic voxels set to 0, where the source has 0", found.cleared))
    table("export", ["", ""], rows)
    console.print(f"units made {found.made}, there before {found.skipped}; written to {found.out}")
    tell(**asdict(found))
