"""The installed packages in; `docs/licences.md` out, one row for each (`make licences`)."""

from __future__ import annotations

import sys
from pathlib import Path

from augengine.errors import AugengineError
from supply.installed import DOCS, ROOT, RUNTIME, TESTS, Package, packages
from supply.terms import PERMISSIVE, WEAK_COPYLEFT, accepted, licence

TABLE = ROOT / "docs/licences.md"

_HEAD = f"""# Licences

augengine is Apache-2.0. This page is written by `make licences` from the metadata of the installed packages (Linux,
x86-64, the oldest Python that augengine takes) and is checked by `tests/supply/test_licences.py`: every pin of
`constraints.txt` has a row, every package that they bring has one, and every licence is one of these.

- Permissive: {", ".join(sorted(PERMISSIVE))}.
- {", ".join(sorted(WEAK_COPYLEFT))}: only changes to such a package's own files must be published; augengine has none.

What the rows do not say:

- Wheels hold compiled libraries of others, named in the wheel's own licence files. NumPy and SciPy bring libgfortran
  (GPL-3.0 with the GCC runtime exception).
- PyTorch built for CUDA brings NVIDIA's libraries under NVIDIA's own terms; the CPU build, which stands here, does not.
- Optional extras (`nnunet`, `torchio`, `webdataset`, `dicom-seg`, `bids`, `openvino`) are not installed by `make`.

The wheel is Apache-2.0 throughout. A checkout holds one file under other terms, `licensed/duke_protocols.csv`:
aggregate counts of scanner settings (52 rows of settings, no patient rows) taken from the tables of
Duke-Breast-Cancer-MRI, which is CC BY-NC 4.0 (Saha et al. 2018; doi:10.7937/TCIA.e3sv-re93). Where it is at hand the
breast phantom and policies that say `from: duke_protocols` draw from it; elsewhere they draw from invented protocols,
and state it.
"""


def text(found: list[Package]) -> str:
    """The page; versions of the pins only, since others may differ between installations."""
    parts = [_HEAD]
    titles = {
        RUNTIME: "What augengine runs with",
        TESTS: "What only its tests need",
        DOCS: "What only its documentation's site needs",
    }
    for use, title in titles.items():
        rows = [package for package in found if package.use == use]
        parts += [f"## {title}\n", "| package | pinned | licence |\n|---|---|---|"]
        parts += [f"| {p.name} | {p.version.split('+')[0] if p.pinned else ''} | {licence(p)} |" for p in rows]
        parts.append("")
    return "\n".join(parts)


def rows(page: Path = TABLE) -> dict[str, tuple[str, str]]:
    """Pinned version and licence by name, as the page has them."""
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in page.read_text().splitlines()
        if line.startswith("| ")
    ]
    return {name: (version, terms) for name, version, terms in cells if name != "package"}


def main() -> int:
    """Write the page; 2 if a licence is not one that augengine accepts."""
    try:
        found = packages(docs=True)
    except AugengineError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    TABLE.write_text(text(found))
    refused = [f"{p.name}: {licence(p)}" for p in found if not accepted(licence(p))]
    if refused:
        sys.stderr.write(f"error: a licence is on the list in supply/terms.py; found {'; '.join(refused)}\n")
    return 2 if refused else 0


if __name__ == "__main__":
    sys.exit(main())
