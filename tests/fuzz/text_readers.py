"""Hostile policies, recipes, overrides, protocols, sidecars and tables; what is accepted must say what the text says.

The oracle of YAML is PyYAML's own safe loader with the rules that `docs/refusals.md` states; that of JSON and CSV is
Python's reader. Beyond that no accepted number may be absurd, and a value may not change on its way in.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import warnings
import zipfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import yaml
from fuzz import mutations
from fuzz.pool import Silent
from pydantic import BaseModel

from augengine.bundled import PROTOCOLS, names
from augengine.commands.flags import checked, parse_assignments
from augengine.downstream.protocols import Protocol
from augengine.downstream.protocols import protocol as shipped
from augengine.io import bids_sidecars, tables
from augengine.io.sources import SourceOptions
from augengine.load import Mixture, load_mixture
from augengine.train.config import Recipe, read_recipe
from augengine.yaml_config import Document

ROOT = Path(__file__).parents[2]
ENDLESS = 2.0**53
SIZES = {  # of networks and schedules: more than this is no model, but a mistake that ends a machine
    "timesteps": 10**5,
    "channels": 2**14,
    "token_dim": 2**14,
    "head_channels": 2**14,
    "width": 2**14,
    "layers": 2**10,
    "heads": 2**10,
    "res_blocks": 64,
    "latent_channels": 2**12,
    "encoder_channels": 2**14,
    "res_units": 64,
    "batch_size": 2**20,
    "patch": 2**8,
    "unshuffle": 2**8,
    "norm_groups": 2**14,
    "window_groups": 2**24,
    "per_input": 10**4,
    "retries": 10**4,
    "micro_batch": 2**20,
}


@cache
def texts(kind: str) -> tuple[tuple[str, str], ...]:
    """Shipped files of a kind, by name."""
    files = sorted((ROOT / kind).glob("*.yaml"))
    return tuple((file.name, file.read_text()) for file in files)


def policy(rng: np.random.Generator, folder: Path) -> None:
    """A policy or mix beside those that it may name."""
    _beside(folder)
    name, text = mutations.pick(rng, texts("augengine/policies"))
    text = _changed(rng, text)
    (folder / name).write_text(text, errors="surrogatepass")
    loaded = load_mixture(folder / name)
    _says(text, loaded.to_dict(), expanded=True)
    if Mixture.from_dict(loaded.to_dict()).digest != loaded.digest:
        raise Silent("the policy that is written out is another one")


def recipe(rng: np.random.Generator, folder: Path) -> None:
    """A training recipe."""
    name, text = mutations.pick(rng, texts("augengine/recipes"))
    text = _changed(rng, text)
    (folder / name).write_text(text, errors="surrogatepass")
    found = read_recipe(str(folder / name))
    _says(text, found.model_dump(mode="json"))
    if Recipe.model_validate(found.model_dump(mode="json")) != found:
        raise Silent("the recipe that is written out is another one")


def override(rng: np.random.Generator, folder: Path) -> None:
    """`--set` of a recipe, and of the acquisition of an ingest."""
    if rng.random() < 0.3:
        return _acquisition_flag(rng)
    name, text = mutations.pick(rng, texts("augengine/recipes"))
    (folder / name).write_text(text)
    data = yaml.safe_load(text)
    path = [str(part) for part in mutations.pick(rng, list(mutations.places(data)))]
    kind = int(rng.integers(5))
    if kind == 0:
        path[int(rng.integers(len(path)))] += "z"
    elif kind == 1:
        path.append(str(mutations.pick(rng, ("x", "", "0", "a.b", " "))))
    value = mutations.hostile_value(rng)
    said = value if isinstance(value, str) else yaml.safe_dump(value, default_flow_style=True).removesuffix("...\n")
    assignment = f"{'.'.join(path)}={said.strip()}"
    if kind == 2:
        assignment = mutations.damaged_yaml(rng, assignment)
    found = read_recipe(str(folder / name), [assignment]).model_dump(mode="json")
    keys, equals, said = assignment.partition("=")
    if not equals:
        raise Silent("an override without =")
    wanted, at = _standard(f"value: {said}")["value"], keys.strip().split(".")
    _credible(found)
    _equal(wanted, _at(found, at), keys)


def _acquisition_flag(rng: np.random.Generator) -> None:
    text = mutations.pick(rng, ("echo_time_ms=2.4", "flip_angle_deg=10,manufacturer=GE", "field_strength_t=3"))
    name, _, _ = text.partition("=")
    text = mutations.pick(rng, (f"{name}={mutations.hostile_value(rng)}", mutations.damaged_yaml(rng, text)))
    found = checked(SourceOptions, acquisition=parse_assignments(text, "--set")).acquisition
    for key, value in found.items():
        if isinstance(value, float) and not (math.isfinite(value) and 0 <= value < 1e6):
            raise Silent(f"{key} of {value}")
        if f"{key}" not in text:
            raise Silent(f"nobody said {key}")


def protocol(rng: np.random.Generator, folder: Path) -> None:
    """An evaluation protocol, written out as YAML."""
    known = shipped(mutations.pick(rng, names(PROTOCOLS)))
    text = _changed(rng, yaml.safe_dump(known.model_dump(mode="json")))
    found = Document(text, "protocol.yaml").validate(Protocol)
    _says(text, found.model_dump(mode="json"))


def sidecar(rng: np.random.Generator, folder: Path) -> None:
    """A JSON sidecar of BIDS, and one of the folder above."""
    values: dict[str, Any] = {
        "EchoTime": 0.00244,
        "RepetitionTime": 2.3,
        "FlipAngle": 8,
        "MagneticFieldStrength": 3,
        "SliceThickness": 1,
        "Manufacturer": "Siemens",
        "ManufacturersModelName": "Prisma",
        "ScanOptions": ["PFP", "FS"],
        "InversionTime": 0.9,
        "ImageType": ["ORIGINAL", "PRIMARY", "M"],
    }
    if rng.random() < 0.5:
        values, _ = mutations.absurd(rng, values)
        content = json.dumps(values).encode()
    else:
        content = mutations.damaged(rng, json.dumps(values).encode())
        if rng.random() < 0.1:
            content = b"[" * int(rng.integers(1, 4000)) + content
    (folder / "a_T1w.json").write_bytes(content)
    read, notes = bids_sidecars.read_sidecars(folder, [["a_T1w.json"]])
    found, _ = bids_sidecars.acquisition(read)
    bids_sidecars.no_magnitude(read)
    by_key: dict[str, list[Any]] = {}
    for key, value in json.loads(content.decode("utf-8-sig"), object_pairs_hook=list):
        by_key.setdefault(key, []).append(value)
    for key, number in bids_sidecars.NUMBERS.items():
        value = getattr(found, number.field)
        if value is None or key == "RepetitionTimeExcitation" or by_key.get("RepetitionTimeExcitation"):
            continue
        if not 0 < value <= number.largest * number.factor:
            raise Silent(f"{number.field} {value}")
        wanted = [v[0] if isinstance(v, list) else v for v in by_key.get(key, ())]
        if not any(_number(v) and abs(v * number.factor - value) < 1e-5 for v in wanted):
            raise Silent(f"{key} {wanted}, read as {value}; {notes}")


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def table(rng: np.random.Generator, folder: Path) -> None:
    """A CSV, TSV or XLSX table of participants."""
    rows = [["participant_id", "site", "age"], *[[f"sub-{n:02d}", f"site {n % 3}", str(20 + n)] for n in range(8)]]
    kind = mutations.pick(rng, ("csv", "tsv", "xlsx"))
    path = folder / f"participants.{kind}"
    if kind == "xlsx":
        path.write_bytes(mutations.damaged(rng, _sheet(rng, rows)))
        _bounded(tables.table_rows(path))
        return
    stream = io.StringIO()
    csv.writer(stream, delimiter="\t" if kind == "tsv" else ",").writerows(rows)
    content = mutations.damaged(rng, stream.getvalue().encode())
    path.write_bytes(content)
    found = tables.table_rows(path)
    _bounded(found)
    text = io.StringIO(content.decode("utf-8-sig"), newline="")
    wanted = [[cell.strip() for cell in row] for row in csv.reader(text, delimiter="\t" if kind == "tsv" else ",")]
    if found != wanted:
        raise Silent(f"{len(found)} rows, {len(wanted)} by Python's reader")
    if any("\x00" in cell for row in found for cell in row):
        raise Silent("a zero byte in a cell")


def _bounded(rows: list[list[str]]) -> None:
    if sum(map(len, rows)) > 10**6:
        raise Silent(f"{len(rows)} rows from a small file")


def _sheet(rng: np.random.Generator, rows: list[list[str]]) -> bytes:
    book, content = openpyxl.Workbook(), io.BytesIO()
    for row in rows:
        book.active.append(row)
    if rng.random() < 0.2:
        book.active.cell(row=2**19, column=int(rng.integers(1, 400)), value="far away")
    book.save(content)
    if rng.random() < 0.2:  # a part that unpacks to many times its size
        with zipfile.ZipFile(content, "a", zipfile.ZIP_DEFLATED) as archive, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            archive.writestr("xl/worksheets/sheet1.xml", b"<worksheet>" + b" " * 40_000_000)
    return content.getvalue()


def _beside(folder: Path) -> None:
    for name, text in texts("augengine/policies"):
        (folder / name).write_text(text)


def _changed(rng: np.random.Generator, text: str) -> str:
    if rng.random() < 0.5:
        return mutations.damaged_yaml(rng, text)
    data, _ = mutations.absurd(rng, yaml.safe_load(text))
    return str(yaml.safe_dump(data, allow_unicode=True))


def _standard(text: str) -> Any:
    """The text by PyYAML's own reader; what that refuses, or what has a meaning of its own there, must be refused."""
    try:
        return yaml.load(text, _Plain)
    except yaml.YAMLError as error:
        raise Silent(f"PyYAML refuses it: {str(error).splitlines()[0]}") from None
    except (ValueError, RecursionError, TypeError, AttributeError) as error:
        raise Silent(f"PyYAML cannot read it: {type(error).__name__}") from None


class _Plain(yaml.SafeLoader):
    """Dates are texts, and numbers such as 1e-3 are numbers, as YAML 1.2 has it."""


_Plain.yaml_implicit_resolvers = {
    first: [pair for pair in found if pair[0] not in ("tag:yaml.org,2002:timestamp",)]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Plain.add_constructor("tag:yaml.org,2002:timestamp", None)


def _says(text: str, found: Mapping[str, Any], expanded: bool = False) -> None:
    """Everything that the text states stands in what was accepted, with the same value, and is credible."""
    stated = _standard(text)
    _credible(found)
    if stated is not None:
        _within(stated, found, "", expanded)


def _within(stated: Any, found: Any, at: str, expanded: bool) -> None:
    if isinstance(stated, dict) and isinstance(found, dict):
        for key, value in stated.items():
            if key in found:
                _within(value, found[key], f"{at}.{key}", expanded)
            elif value not in (None, {}, [], ()) and not expanded and not _default(value):
                raise Silent(f"{at}.{key} is not in what was accepted")
    elif isinstance(stated, list) and isinstance(found, list):
        if len(stated) != len(found):
            raise Silent(f"{at} has {len(found)} entries, not {len(stated)}")
        for n, (value, other) in enumerate(zip(stated, found, strict=True)):
            _within(value, other, f"{at}.{n}", expanded)
    elif isinstance(found, dict | list):
        if not (expanded or isinstance(stated, str | dict | list) or stated is None):
            raise Silent(f"{at} is {stated!r}, read as {found!r}"[:300])
    else:
        _equal(stated, found, at)


def _default(value: Any) -> bool:
    """Keys that equal their default may be left out of what is written."""
    return value in ("train", [0])


def _equal(stated: Any, found: Any, at: str) -> None:
    path = at.endswith(".ref") and isinstance(stated, str) and isinstance(found, str)
    if path and (found.endswith(f"/{stated}") or found == os.path.expanduser(stated)):
        return  # a relative path is one beside the file that names it, and ~ is the home folder
    if isinstance(stated, dict | list | tuple) or isinstance(found, dict | list) or stated is None:
        return
    if isinstance(found, bool) != isinstance(stated, bool) or (isinstance(found, str) != isinstance(stated, str)):
        if isinstance(stated, str) and _number(found) and _as_number(stated) == found and "e" in stated.lower():
            return
        raise Silent(f"{at} is {stated!r}, read as {found!r}"[:300])
    if stated != found:
        raise Silent(f"{at} is {stated!r}, read as {found!r}"[:300])


def _as_number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _at(values: Any, path: list[str]) -> Any:
    for part in path:
        if not isinstance(values, dict) or part not in values:
            return None
        values = values[part]
    return values


def _credible(values: Any, key: str = "") -> None:
    """No number that no machine can serve."""
    if isinstance(values, BaseModel):
        values = values.model_dump(mode="json")
    if isinstance(values, dict):
        for name, value in values.items():
            if any(ord(c) < 32 or 0x7F <= ord(c) < 0xA0 or 0xD800 <= ord(c) < 0xE000 for c in str(name)):
                raise Silent(f"a key with a control character: {name!r}")
            _credible(value, str(name))
    elif isinstance(values, list | tuple):
        for value in values:
            _credible(value, key)
    elif isinstance(values, str):
        if any((ord(c) < 32 and c not in "\n\t") or 0x7F <= ord(c) < 0xA0 or 0xD800 <= ord(c) < 0xE000 for c in values):
            raise Silent(f"{key} holds a control character: {values!r}"[:200])
    elif _number(values):
        limit = SIZES.get(key, ENDLESS)
        if not math.isfinite(values) or abs(values) > (limit if key != "seed" else 2.0**64):
            raise Silent(f"{key} of {values}")
        if key in ("channels", "encoder_channels", "strides") and values < 1:
            raise Silent(f"{key} of {values}")


READERS = {
    "policy": policy,
    "recipe": recipe,
    "--set": override,
    "protocol": protocol,
    "sidecar": sidecar,
    "table": table,
}
