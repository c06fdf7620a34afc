"""The site builds strictly, without network, and every link of it leads to a file of it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest

from pages.records import ROOT

pytest.importorskip("mkdocs", reason="the site's packages are installed by `make docs`")
pytest.importorskip("mkdocstrings")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    nowhere = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **nowhere, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.slow
def test_every_link_and_picture_of_the_site_is_in_it(site: Path) -> None:
    dead, seen = [], 0
    for page in site.rglob("*.html"):
        if page.name == "404.html":
            continue
        for target in re.findall(r'(?:href|src)="([^"#?]+)', page.read_text(encoding="utf-8")):
            if re.match(r"[a-z]+:|//", target):
                continue
            seen += 1
            path = (page.parent / unquote(target)).resolve()
            if not (path / "index.html" if path.is_dir() else path).exists():
                dead.append(f"{page.relative_to(site)}: {target}")
    assert seen > 1000
    assert dead == []


@pytest.mark.slow
def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert re.findall(r'<(?:script|img|iframe)[^>]* src="(?:https?:)?//[^"]*', text) == [], page
        assert re.findall(r'<link[^>]*rel="(?:stylesheet|preconnect)"[^>]*href="(?:https?:)?//[^"]*', text) == [], page


@pytest.mark.slow
def test_docstrings_are_in_the_reference(site: Path) -> None:
    text = (site / "reference/python.html").read_text(encoding="utf-8")
    for name in ("augengine.records.Sample", "augengine.torch.ShardDataset", "augengine.edits.base.Edit"):
        assert f'id="{name}"' in text, name
