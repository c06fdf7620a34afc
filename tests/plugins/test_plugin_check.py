"""`augengine check --plugin`: a line per promise that is kept, and exit code 2 at the first that is broken."""

from __future__ import annotations

from pathlib import Path

import pytest
from builders import slice_sample, write_samples
from installed_packages import EDIT, Packages
from typer.testing import CliRunner

from augengine.cli import app

GOOD = EDIT.format(name="Adds")
SEGMENTER = """
import numpy as np, torch
from augengine.downstream.segmenters import Segmenter
from augengine.io.store import Store

class Thresholds(Segmenter):
    name, channels, regions = "thresholds", ("t1", "flair"), {"bright": ("oedema",)}
    @classmethod
    def fit(cls, shards, steps, seed, out, **_):
        Store(out).write("t", b"0.5")
        return out
    @classmethod
    def load(cls, folder, *, device="cpu"):
        found = cls()
        found.at = float(Store(folder).read("t"))
        return found
    def _predict(self, x, seeds):
        return (4 * (x[:, :1] - self.at)).sigmoid()
"""
TARGET = """
import json
from typing import ClassVar
from augengine.export.target import File, by_row_group
from augengine.yaml_config import Strict

class Lists(Strict):
    name: ClassVar[str] = "lists"
    def check(self, cases, about): pass
    def units(self, cases, about): return by_row_group(cases)
    def files(self, items, unit, about):
        for item in items:
            yield File(item.case.name + ".json", json.dumps(list(about.channels)).encode(), (item.case.name,))
    def finish(self, cases, about, listed): return iter(())
    def identity(self): return {}
"""
GATE = """
from augengine.gates import Gate
class Mean(Gate):
    def value(self, case, tools): return float(case.after.image.mean())
"""
EXTRACTOR = """
from augengine.metrics.extractor import Extractor
def means(weights_path, device):
    return Extractor("means", lambda x: x.mean(axis=tuple(range(2, x.ndim))))
"""
READER = """
from augengine.io.sources import Listing
class Reader:
    layout = "ours"
    def __init__(self, root, options): self.root, self.options = root, options
    def listing(self):
        files = [p.relative_to(self.root).as_posix() for p in self.root.rglob("*") if p.is_file()]
        return Listing([], unused={f: "no image" for f in files})
    def files(self, entry): return []
    def scan(self, entry): pass
    def read(self, source): pass
"""
KINDS = {
    "edit": ("augengine.edits", "Adds", "Adds", GOOD),
    "gate": ("augengine.gates", "mean", "Mean", GATE),
    "segmenter": ("augengine.segmenters", "thresholds", "Thresholds", SEGMENTER),
    "target": ("augengine.targets", "lists", "Lists", TARGET),
    "extractor": ("augengine.extractors", "means", "means", EXTRACTOR),
    "layout": ("augengine.layouts", "ours", "Reader", READER),
}
# Kind, what is replaced in the code that is right, by what, and what is said of it.
BROKEN = [
    ("edit", "rng.uniform(1, params.by)", "np.random.uniform(1, 9)", "nothing is drawn from the random generators"),
    ("edit", 'np.float32(p.params["add"])', "np.random.rand(*s.image.shape).astype('f4')", "nothing is drawn from"),
    ("edit", 'np.float32(p.params["add"])', "samples[0].image", "depends on its own sample and plan"),
    ("edit", 'np.float32(p.params["add"])', "np.float32(len(samples) * 9)", "a batch makes what its rows make alone"),
    ("edit", 'np.float32(p.params["add"])', "np.float32('nan')", "an image is finite"),
    ("edit", 's.image + np.float32(p.params["add"])', "np.add(s.image, 1, out=s.image)", "apply leaves the arrays"),
    ("edit", "s.replace(image=", "s.replace(subject_id='X', image=", "a row has the subject_id of its source"),
    ("edit", "sample, plan): return None", "sample, plan): return sample.label == 1", "nothing changes outside"),
    (
        "edit",
        's.image + np.float32(p.params["add"])',
        "s.image, label=1 - (s.label > 0).astype('u1')",
        "a label changes where the image does",
    ),
    ("edit", '{"add": float(rng.uniform(1, params.by))}', '{"add": rng.uniform(1, 2, 3)}', "JSON of a plan fails"),
    ("edit", "return Drawing(", "import augengine.edits.base as b; return b.Skip('no breast'); (", "found no breast"),
    ("edit", "by: float = 10.0", "by: float", "Params(), of an edit without a policy in its package, fails"),
    ("edit", "sampler, specs): pass", "sampler, specs): 1 / 0", "ZeroDivisionError"),
    ("gate", "float(case.after.image.mean())", "1.0", "a gate's value depends on the row"),
    ("gate", "float(case.after.image.mean())", "float('nan')", "a gate gives a finite number"),
    (
        "gate",
        "case.after.image.mean()",
        "__import__('numpy').add(case.after.image, 1, out=case.after.image).mean()",
        "a gate leaves the rows",
    ),
    ("gate", "float(case.after.image.mean())", "__import__('random').random()", "nothing is drawn from"),
    ("segmenter", "(4 * (x[:, :1] - self.at)).sigmoid()", "x[:, :1] * 3", "what predict returns are probabilities"),
    ("segmenter", "(x[:, :1] - self.at)", "(x[:, :1] - x.mean())", "neither its place nor its neighbours"),
    ("segmenter", "x[:, :1]", "x", "predict returns float32 (B, R, *)"),
    ("segmenter", "return out", "return out + '/x'", "fit returns its folder"),
    ("target", "json.dumps(list(about.channels))", "str(id(object()))", "equal rows give equal bytes"),
    ("target", "for item in items:", "for item in list(items)[1:]:", "every case must stand in a file"),
    ("target", "return {}", "return {1, 2}", "fails"),
    ("extractor", "lambda x: x.mean(axis=tuple(range(2, x.ndim)))", "lambda x: x[:, :, 0, 0] * 0", "tell images apart"),
    ("extractor", "lambda x: x.mean(", "lambda x: (x - x.mean(0) * (len(x) > 1)).mean(", "images beside it"),
    ("layout", 'Listing([], unused={f: "no image" for f in files})', "Listing([])", "every file belongs to an entry"),
    (
        "layout",
        "self.root, self.options = root, options",
        "self.root, self.options, self.f = root, 0, open(__file__)",
        "sending the reader to a worker fails",
    ),
]


def checked(packages: Packages, kind: str, source: str, *flags: str) -> tuple[int, str]:
    group, name, thing, _ = KINDS[kind]
    packages.add("mine", {group: {name: f"mine:{thing}"}}, {"mine.py": source})
    result = CliRunner().invoke(app, ["check", "--plugin", "mine", *flags])
    return result.exit_code, result.output


@pytest.mark.parametrize("kind", KINDS)
def test_what_keeps_its_promises_is_told_so(packages: Packages, kind: str) -> None:
    code, told = checked(packages, kind, KINDS[kind][3])
    assert code == 0, told
    lines = told.splitlines()
    assert len(lines) >= 2
    assert all(line.startswith(f"{kind} '{KINDS[kind][1]}': ") for line in lines)


@pytest.mark.parametrize(("kind", "right", "wrong", "said"), BROKEN)
def test_what_breaks_one_is_one_line(packages: Packages, kind: str, right: str, wrong: str, said: str) -> None:
    source = KINDS[kind][3]
    assert source.count(right) >= 1
    code, told = checked(packages, kind, source.replace(right, wrong))
    last = told.splitlines()[-1]
    assert code == 2, told
    assert last.startswith(f"error: {kind} '{KINDS[kind][1]}' of mine: ")
    assert said in last
    assert "Traceback" not in told


def test_rows_of_one_s_own_are_checked_on(packages: Packages, tmp_path: Path) -> None:
    source = GOOD.replace("return Drawing(", "assert sample.channels == ('t1',); return Drawing(")
    code, told = checked(packages, "edit", source)
    assert (code, "AssertionError" in told) == (2, True)
    data = write_samples(tmp_path / "data", [slice_sample(n) for n in range(3)])
    assert checked(packages, "edit", source, "--rows", data)[0] == 0
    few = write_samples(tmp_path / "few", [slice_sample(0)])
    code, told = checked(packages, "edit", source, "--rows", few)
    assert (code, "two or more rows of one shape" in told) == (2, True)


def test_packages_that_cannot_be_checked(packages: Packages) -> None:
    def told(*words: str) -> str:
        result = CliRunner().invoke(app, ["check", *words])
        assert result.exit_code == 2
        return result.output

    assert "there is nothing to check" in told()
    assert "give --plugin PACKAGE, too" in told("duke_strict", "--rows", "x")
    assert "found nothing_there; pip install it into this environment; installed plug-ins:" in told(
        "--plugin", "nothing_there"
    )
    assert "give it one of augengine.edits, augengine.gates" in told("--plugin", "numpy")
    packages.add("typo", {"augengine.edtis": {"a": "b:c"}})
    assert "typo: unknown group of entry points 'augengine.edtis'; did you mean 'augengine.edits'?" in told(
        "--plugin", "typo"
    )
    packages.add("mine", {"augengine.gates": {"changed": "mine:X"}})
    assert "'changed' of augengine and of mine 1.0" in told("--plugin", "mine")
    text = "version: 1\nname: p\nedit: nothing\nparams: {}\ngates: [{name: sharpness, min: 0}]\n"
    packages.add("my-files", {"augengine.policies": {"p": "my_files.folder:p"}}, {"my_files/folder/p.yaml": text})
    assert "p.yaml:3: unknown edit 'nothing'" in told("--plugin", "my_files")
    assert "p.yaml:3: unknown edit 'nothing'" in told("--plugin", "my-files")
