"""`augengine report`: what the page says is what the run holds, hostile names stay text, and its size is bounded."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import SIEMENS, lesion_sample, slice_sample, write_checkpoint, write_samples
from PIL import Image
from report_page import Seen
from report_runs import HOSTILE, edit, hostile_run, write_report_run
from typer.testing import CliRunner

from augengine.cli import app
from augengine.errors import DataError, RunError
from augengine.io.store import Store
from augengine.load import load_policy
from augengine.pipeline.augment import augment
from augengine.pipeline.units import INLINE
from augengine.report.contact_sheet import upright
from augengine.report.page import build, pictures
from augengine.report.page.build import build_report
from augengine.report.page.rows import read_run


def decoded(channel: dict[str, Any], which: str) -> tuple[np.ndarray, np.ndarray]:
    """Intensities and label codes as a page computes them: (S × rows, columns)."""
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(channel[which]))))
    value = (picture[..., 0].astype(float) * 256 + picture[..., 1]) / 65535
    return channel["low"] + value * (channel["high"] - channel["low"]), picture[..., 2]


def test_the_page_says_what_a_run_did(tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(
        "version: 1\nname: told\nedit: acquisition\nselect: {where: {manufacturer: SIEMENS}}\n"
        "params: {target: {empirical: {from: samples, where: {manufacturer: GE MEDICAL SYSTEMS}}}}\n"
        "sampler: {steps: 2}\ngates: [{name: changed, min: 0.5}]\n"
        "output: {per_input: 2, micro_batch: 4, max_reject_rate: 1}\n"
    )
    data = write_samples(tmp_path / "data", [slice_sample(s, i) for s in range(6) for i in range(3)])
    out, model = str(tmp_path / "out"), write_checkpoint(tmp_path / "model")
    summary = augment(load_policy(policy), data, out, {"generator": model}, actors=INLINE)
    assert summary.counts["rejected"] + summary.counts["accepted"] == 18
    result = CliRunner().invoke(app, ["report", out, "--out", str(tmp_path / "r.html"), "--rows", "7"])
    assert result.exit_code == 0, result.output
    page = Seen((tmp_path / "r.html").read_bytes())
    counted = {row[0]: row[1] for row in page.table("outcome", "rows", "share")}
    assert counted == {**{k: str(v) for k, v in summary.counts.items()}, "together": "18"}
    assert len(page.rows) == 7
    for said in ("Synthetic data", load_policy(policy).digest, "model", "name: told"):
        assert said in page.text
    assert str(tmp_path / "model") not in page.text, "where a model lies says nothing elsewhere"
    assert sum(int(n) for *_, n in page.table("source", "target", "rows")) == 18


def test_pictures_hold_every_value_and_label(tmp_path: Path) -> None:
    source = lesion_sample(1)
    after = edit(source, "row-1", image=source.image * np.float32(1.5) + 3, label=np.where(source.label == 5, 1, 0))
    out = write_report_run(tmp_path, [source], accepted=[after])
    (row,) = Seen(build_report([out])).rows
    assert (row["id"], row["source"], row["slices"], row["size"]) == ("row-1", source.sample_id, [0], [32, 32])
    assert [c["name"] for c in row["channels"]] == ["t1", "flair"]
    for n, channel in enumerate(row["channels"]):
        for which, sample in (("source", source), ("edited", after)):
            values, codes = decoded(channel, which)
            step = (channel["high"] - channel["low"]) / 65535
            np.testing.assert_allclose(values, upright(sample.image[n]), atol=step)
            np.testing.assert_array_equal(codes, upright(sample.label))
        assert channel["range"] == [0.0, 620.0]
    voxel_ml = 4.0**3 / 1000
    told = {name: (before, then) for name, before, then in row["volumes"]}
    assert told["csf"] == (pytest.approx((source.label == 5).sum() * voxel_ml), 0)
    assert told["necrosis"][1] == pytest.approx((source.label == 5).sum() * voxel_ml)


def test_volumes_show_the_slice_that_changed_most_and_stay_small(tmp_path: Path) -> None:
    source = lesion_sample(1, at_mm=(-8.0, 0.0, 4.0), size=24)
    image = source.image.copy()
    image[1, :, :, 17] += 500
    out = write_report_run(tmp_path, [source], accepted=[edit(source, "row", image=image)])
    rows = read_run(out)
    per_slice = 2 * 2 * 24 * 24
    for room, count in ((5 * per_slice, 5), (1, 1), (10**9, 24)):
        (row,) = pictures.pictures(rows, "run", pictures.choose(rows, 3), room, 10**9)
        assert len(row["slices"]) == count
        assert 17 in row["slices"]
        values, _ = decoded(row["channels"][1], "edited")
        at = row["slices"].index(17)
        step = (row["channels"][1]["high"] - row["channels"][1]["low"]) / 65535
        np.testing.assert_allclose(values[24 * at : 24 * at + 24], upright(image[1, :, :, 17]), atol=step)


def test_values_that_are_no_numbers_are_counted(tmp_path: Path) -> None:
    source = slice_sample(1)
    image = source.image.copy()
    image[0, 3, 4] = np.nan
    image[0, 5, 6] = np.inf
    out = write_report_run(tmp_path, [source], rejected=[(edit(source, "row", image=image), "it is damaged")])
    (row,) = Seen(build_report([out])).rows
    assert row["channels"][0]["no_numbers"] == 2
    assert row["reason"] == "it is damaged"


def test_rejected_rows_and_every_subject_are_shown(tmp_path: Path) -> None:
    sources = [slice_sample(s, i) for s in range(5) for i in range(4)]
    made = [edit(s, f"row-{n:02d}") for n, s in enumerate(sources)]
    out = write_report_run(tmp_path, sources, accepted=made[:12], rejected=[(s, "why") for s in made[12:]])
    rows = read_run(out)
    chosen = pictures.choose(rows, 9)
    assert [s.outcome for s in chosen] == ["accepted"] * 6 + ["rejected"] * 3
    assert {s.subject_id for s in chosen} == {f"S{s:03d}" for s in range(5)}
    assert len(pictures.choose(rows, 100)) == 20
    assert pictures.choose(rows, 0) == []


def test_a_part_of_a_large_run_is_drawn_and_all_of_it_counted(tmp_path: Path) -> None:
    sources = [slice_sample(s, i) for s in range(4) for i in range(4)]
    made = [edit(s, f"row-{n:02d}", gate=n / 10) for n, s in enumerate(sources)]
    first = write_report_run(tmp_path / "a", sources, accepted=made)
    second = write_report_run(tmp_path / "b", sources, accepted=made[::-1])
    rows, again = read_run(first, most=5), read_run(second, most=5)
    assert [s.row_id for s in rows.kept] == [s.row_id for s in again.kept]
    assert len(rows.kept) == 5
    assert rows.counts["accepted"] == rows.gates["changed"].judged == 16
    assert rows.gates["changed"].broken == sum(n / 10 < 0.3 for n in range(16))


def test_a_page_has_a_largest_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = [slice_sample(s) for s in range(6)]
    out = write_report_run(tmp_path, sources, accepted=[edit(s, f"row-{n}") for n, s in enumerate(sources)])
    whole = Seen(build_report([out]))
    one = sum(len(c[k]) for c in whole.rows[0]["channels"] for k in ("source", "edited"))
    monkeypatch.setattr(build, "MOST_CHARACTERS", int(3.5 * one))
    page = Seen(build_report([out]))
    assert len(page.rows) == 3
    assert "3 more were left out" in page.text


def test_hostile_texts_stay_texts(tmp_path: Path) -> None:
    page = build_report([hostile_run(tmp_path)])
    seen = Seen(page)
    assert [tag for tag, _ in seen.elements].count("script") == 2
    assert not [tag for tag, _ in seen.elements if tag in ("img", "iframe", "object", "embed", "link", "base", "form")]
    for tag, attributes in seen.elements:
        assert not [name for name in attributes if name.startswith("on") or name == "style"], (tag, attributes)
        for name in ("href", "src", "action"):
            assert (attributes.get(name) or "#").startswith("#")
    assert HOSTILE.encode() not in page
    assert HOSTILE in seen.text, "the reader sees what the file says"
    (row, *_) = seen.rows
    assert HOSTILE in row["labels"]
    assert row["subject"] == HOSTILE
    assert chr(0x202E) not in page.decode(), "no text turns others round"


def test_the_security_policy_names_the_page_s_own_script_and_style_alone(tmp_path: Path) -> None:
    page = build_report([hostile_run(tmp_path)]).decode()
    policy = next(a["content"] for t, a in Seen(page.encode()).elements if a.get("http-equiv"))
    script, style = (re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL) for tag in ("script", "style"))
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for (text,) in (script, style)]
    assert policy == (
        f"default-src 'none'; script-src 'sha256-{hashes[0]}'; style-src 'sha256-{hashes[1]}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", page)


def test_several_runs_stand_in_one_page(tmp_path: Path) -> None:
    source = slice_sample(1)
    runs = [write_report_run(tmp_path / name, [source], accepted=[edit(source, f"{name}-row")]) for name in "ab"]
    page = Seen(build_report(runs))
    assert [row["run"] for row in page.rows] == ["a/out", "b/out"]
    assert [row["commands"][0] for row in page.rows] == [
        f"augengine explain {n}-row --out {r}" for n, r in zip("ab", runs, strict=True)
    ]
    assert [line[0] for line in page.table("run", "policy", "accepted", "rejected", "failed", "skipped")] == [
        "a/out",
        "b/out",
    ]


def test_an_unfinished_run_says_so(tmp_path: Path) -> None:
    out = write_report_run(tmp_path, [slice_sample(1)], accepted=[edit(slice_sample(1), "row")])
    assert "not finished" not in Seen(build_report([out])).text
    Store(out).remove("_SUCCESS.json")
    page = Seen(build_report([out]))
    assert "not finished" in page.text
    assert len(page.rows) == 1


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    source = slice_sample(1)
    out = write_report_run(tmp_path, [source], accepted=[edit(source, "row")])
    other = write_samples(tmp_path / "other", [slice_sample(2)])
    with pytest.raises(DataError, match="the source row is not in this data; found S001#0000; give the folder"):
        build_report([out], other)
    with pytest.raises(RunError, match=r"an augmented run holds policy.yaml"):
        build_report([other])
    (tmp_path / "data").rename(tmp_path / "moved")
    with pytest.raises(DataError, match=r"rows that a run was made from must be there; found .* by --data"):
        build_report([out])
    assert len(Seen(build_report([out], str(tmp_path / "moved"))).rows) == 1
    result = CliRunner().invoke(app, ["report", out, "--out", str(tmp_path / "report.pdf")])
    assert (result.exit_code, "the report is an HTML file" in result.output) == (2, True)


def test_no_row_with_pixels(tmp_path: Path) -> None:
    out = write_report_run(tmp_path, [slice_sample(1)])
    page = Seen(build_report([out]))
    assert page.rows == []
    assert "No row was judged." in page.text
    assert SIEMENS.manufacturer not in page.text
