"""The flags of `augengine lesions`: labelled shards in; contrast of lesions by site, and a bank of them, out."""

from __future__ import annotations

from typing import Annotated

import typer

from augengine.commands.measure import lesion_names
from augengine.gates.base import LESION
from augengine.io.store import Store
from augengine.metrics.lesion_survey import SurveyLesions
from augengine.pipeline.cluster import connect, output_uri, user_errors
from augengine.pipeline.measure import measure
from augengine.pipeline.units import Actors
from augengine.report.console import console, stage, table
from augengine.report.lesions import FAINT, site_rows, write_bank, write_survey
from augengine.told import tell
from augengine.yaml_config import unknown_name


def lesions_command(
    data: Annotated[str, typer.Argument(help="Labelled rows that ingest wrote.")],
    out: Annotated[str | None, typer.Option(help="Folder for figures, plot and bank/.")] = None,
    lesion: Annotated[
        str | None, typer.Option(help=f"Labels that make a lesion; default those that there are of {','.join(LESION)}.")
    ] = None,
    keep: Annotated[int, typer.Option(min=1, max=100_000, help="Lesions that the bank holds, at most.")] = 512,
    box: Annotated[int, typer.Option(min=4, max=512, help="Voxels along each axis that a lesion must fit in.")] = 64,
    least_ml: Annotated[float, typer.Option(min=0, help="Smaller lesions are not kept.")] = 0.05,
    actors: Annotated[int, typer.Option(min=1, help="Parallel readers.")] = 2,
    inline: Annotated[bool, typer.Option("--inline", help="Work in this process, without Ray.")] = False,
) -> None:
    """How bright and large the lesions of each site are, before any training; and a bank of the training lesions.

    The ratio of a lesion to the ring around it says which patients a segmenter will miss: faint lesions first. The bank
    is the model of policies with the edit lesion_insertion, such as brats_lesion_insertion.

    Example: augengine lesions runs/data --lesion enhancing,oedema,necrosis --out runs/lesions
    """
    with user_errors():
        uri, names = output_uri(out, "lesions"), lesion_names(lesion or ",".join(LESION))
        if not inline:
            connect()
        with stage("lesions") as report:
            found = measure(
                data,
                SurveyLesions,
                {"labels": names, "kept": keep, "size": box, "least_ml": least_ml},
                actors=Actors(actors, inline=inline),
                progress=report,
            )
        there = tuple(name for name in names if name in found.names)
        if missing := [name for name in names if name not in there and (lesion or not there)]:
            raise unknown_name("label", missing[0], sorted(found.names), "--lesion")
        head, rows = site_rows(found)
        table(f"lesions of {data}: median and quartiles over patients", head, rows)
        console.print(f"faint: lesion / ring between {FAINT[0]:g} and {FAINT[1]:g} in every channel")
        about = {"data": data, "lesion": list(there), "keep": keep, "box": box, "least_ml": least_ml}
        paths = write_survey(found, about, Store(uri))
        spec = write_bank(found, names, there, box, Store(uri))
        console.print("\n".join(paths))
        tell(
            sites=[dict(zip(head, row, strict=True)) for row in rows],
            files=paths,
            bank=Store(uri).path("bank"),
            lesions=len(found.lesions),
        )
        larger = f"; {found.too_large} larger than {box} voxels are not in it" if found.too_large else ""
        console.print(
            f"bank: {Store(uri).path('bank')}, {len(found.lesions)} lesions of {len(spec.subject_hashes)} training "
            f"subjects{larger}",
        )
