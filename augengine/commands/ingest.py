"""The flags of the ingest job: a folder of MRI goes in; Parquet shards and a table of what became of it come out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from augengine.commands.flags import KEY_HELP, checked, parse_assignments, parse_numbers
from augengine.io.deface import deface_words
from augengine.io.labels import MaskGrid, parse_labels
from augengine.io.layouts import LAYOUTS, check_root
from augengine.io.pseudonym_key import pseudonym_key
from augengine.io.sources import SourceOptions
from augengine.io.tissue import SCHEMES as TISSUE_SCHEMES
from augengine.pipeline.cluster import connect, output_uri, user_errors
from augengine.pipeline.ingest import ingest
from augengine.pipeline.ingest_plan import plan_ingest
from augengine.pipeline.nameless import nameless
from augengine.pipeline.units import Actors
from augengine.prepare import Foreground, Preparation
from augengine.report.console import report_steps, stage
from augengine.report.ingest_report import print_hint, print_ledger, print_preview, print_unused
from augengine.splits import DEFAULT_FRACTIONS

SUBJECT_HELP = "Regular expression: its first group (or whole match) in a volume's path is the subject."
Plane = Literal["acquired", "axial", "coronal", "sagittal"]


def ingest_command(
    root: Annotated[Path, typer.Argument(help="Folder of the data set; all workers must see it.")],
    out: Annotated[str | None, typer.Option(help="Output folder: a path or any fsspec URI.")] = None,
    layout: Annotated[str, typer.Option(help=f"One of {', '.join(LAYOUTS)}.")] = "auto",
    labels: Annotated[str | None, typer.Option(help="Scheme (brats2021, …) or name=code,...")] = None,
    channels: Annotated[
        str, typer.Option(help="name=PATTERN,... (NIfTI, NRRD), =SUFFIX (BIDS), =NUMBER (nnU-Net); BraTS: name,...")
    ] = "",
    tissue: Annotated[
        str | None, typer.Option(help=f"BraTS: SCHEME=PATTERN of tissue maps, of {', '.join(TISSUE_SCHEMES)}.")
    ] = None,
    mask: Annotated[str | None, typer.Option(help="File pattern of the mask.")] = None,
    mask_grid: Annotated[
        MaskGrid, typer.Option(help="image: a mask lies on its image's voxels; header: as it says.")
    ] = "auto",
    set_: Annotated[str, typer.Option("--set", help="Acquisition of all images: echo_time_ms=2.4,...")] = "",
    site: Annotated[str | None, typer.Option(help="Name of the site, written to every sample.")] = None,
    subject: Annotated[str | None, typer.Option(help=SUBJECT_HELP)] = None,
    site_pattern: Annotated[str | None, typer.Option(help="The same for the site.")] = None,
    participants: Annotated[Path | None, typer.Option(help="Table with a column participant_id.")] = None,
    subject_column: Annotated[str | None, typer.Option(help="Its column that names the person.")] = None,
    site_column: Annotated[str | None, typer.Option(help="Its column that names the site.")] = None,
    max_label_loss: Annotated[float, typer.Option(help="Share of a label's volume that may be lost, 0 to 1.")] = 0.1,
    slices: Annotated[bool, typer.Option("--slices/--volumes", help="Cut slices, or keep volumes.")] = True,
    plane: Annotated[Plane, typer.Option(help="What lies in-plane.")] = "acquired",
    size: Annotated[int | None, typer.Option(help="Square in-plane matrix; the field of view fits in.")] = None,
    spacing_mm: Annotated[float | None, typer.Option(help="Voxel size to resample to, mm.")] = None,
    drop_end_slices: Annotated[int, typer.Option(help="Slices left out at each end.")] = 0,
    percentiles: Annotated[str, typer.Option(help="LOW,HIGH of each channel; normalised to 0 and 1.")] = "10,99",
    foreground: Annotated[Foreground, typer.Option(help="Voxels that percentiles are taken of.")] = "all",
    split_seed: Annotated[int, typer.Option(help="Seed of the split by subject.")] = 0,
    fractions: Annotated[str, typer.Option(help="Subjects in train,val,test.")] = ",".join(map(str, DEFAULT_FRACTIONS)),
    labelled_fractions: Annotated[
        str | None, typer.Option(help="The same of subjects with masks, who are then split by themselves.")
    ] = None,
    public_ids: Annotated[bool, typer.Option("--public-ids", help="Keep folder names as subject ids.")] = False,
    pseudonym_key_file: Annotated[Path | None, typer.Option(help=KEY_HELP)] = None,
    allow_echo_planar: Annotated[bool, typer.Option("--allow-echo-planar", help="Take EPI DICOM, too.")] = False,
    deface: Annotated[
        str | None, typer.Option(help="Command that removes faces: 'TOOL … {in} … {out}', NIfTI files.")
    ] = None,
    masks: Annotated[Path | None, typer.Option(help="Duke: folder of masks.")] = None,
    mapping: Annotated[Path | None, typer.Option(help="Duke: filepath mapping, CSV or XLSX.")] = None,
    clinical: Annotated[Path | None, typer.Option(help="Duke: clinical table, to cross-check.")] = None,
    boxes: Annotated[Path | None, typer.Option(help="Duke: annotation boxes, to cross-check.")] = None,
    licence: Annotated[str | None, typer.Option(help="Of the data, e.g. CC-BY-4.0; augmented rows inherit it.")] = None,
    actors: Annotated[int | None, typer.Option(min=1, help="Parallel readers; default: one per CPU.")] = None,
    inline: Annotated[bool, typer.Option("--inline", help="Work in this process, without Ray.")] = False,
    preview: Annotated[bool, typer.Option("--preview", help="Show subjects and splits; read no pixels.")] = False,
    unused: Annotated[Path | None, typer.Option(help="Write the files that no volume uses to this TSV.")] = None,
) -> None:
    """Ingest a data set; running the same command again does what is missing."""
    with user_errors(), nameless(root):
        codes, scheme = parse_labels(labels) if labels else (None, None)
        if deface is not None:
            deface_words(deface)
        options = checked(
            SourceOptions,
            labels=codes,
            scheme=scheme,
            channels=parse_assignments(channels, "--channels", "*"),
            tissue=tissue,
            mask=mask,
            mask_grid=mask_grid,
            acquisition=parse_assignments(set_, "--set"),
            site=site,
            subject=subject,
            site_pattern=site_pattern,
            participants=participants,
            subject_column=subject_column,
            site_column=site_column,
            max_label_loss=max_label_loss,
            public_ids=public_ids,
            pseudonym_key="" if public_ids else pseudonym_key(pseudonym_key_file),
            allow_echo_planar=allow_echo_planar,
            deface=deface,
            masks_root=masks,
            mapping=mapping,
            clinical=clinical,
            boxes=boxes,
        )
        preparation = checked(
            Preparation,
            slices=slices,
            plane=plane,
            size=size,
            spacing_mm=spacing_mm,
            drop_end_slices=drop_end_slices,
            percentiles=parse_numbers(percentiles, "--percentiles"),
            foreground=foreground,
        )
        shares = parse_numbers(fractions, "--fractions")
        of_labelled = parse_numbers(labelled_fractions, "--labelled-fractions") if labelled_fractions else None
        uri = output_uri(out, f"ingest-{root.resolve().name}")
        check_root(root.expanduser(), layout)
        if not inline:
            connect()
        if preview:
            with stage("headers") as report:
                plan = plan_ingest(
                    root,
                    layout,
                    options,
                    split_seed,
                    shares,
                    inline,
                    report_steps(report),
                    labelled_fractions=of_labelled,
                )
            print_preview(plan.sources, plan.splits, plan.files())
            print_hint(plan.hint)
            print_unused(plan.unused, unused)
            return
        with stage("ingest") as report:
            summary = ingest(
                root,
                uri,
                layout=layout,
                options=options,
                preparation=preparation,
                split_seed=split_seed,
                fractions=shares,
                labelled_fractions=of_labelled,
                licence=licence,
                actors=Actors(actors, inline=inline),
                progress=report_steps(report),
            )
        print_ledger(summary, uri)
        print_unused(summary["unused"], unused)
