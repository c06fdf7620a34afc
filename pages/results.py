"""All records in; all pages of `docs/results` out, and the list of what is recorded."""

from __future__ import annotations

from pages import counterfactuals, experiment, lesions, robustness, segmenters, speed
from pages.layout import NOTE, Page
from pages.records import names, record
from pages.tables import NONE, table


def pages() -> list[Page]:
    """The pages, in the order of the site's menu."""
    return [
        experiment.page(),
        counterfactuals.page(),
        lesions.page(),
        segmenters.page(),
        segmenters.gates_page(),
        speed.page(),
        robustness.exactly_once_page(),
        robustness.input_page(),
    ]


def texts() -> dict[str, str]:
    """Path below `docs` to the text of each page."""
    found = pages()
    return {"results/index.md": _index(found), **{f"results/{page.name}.md": page.markdown() for page in found}}


def _index(found: list[Page]) -> str:
    where = {r.name: page for page in found for section in page.sections for r in section.records}
    rows = []
    for name in names():
        r, page = record(name), where.get(name)
        shown = f"[{page.title}]({page.name}.md)" if page else "no page yet"
        rows.append([r.link, f"`{r.command}`" if r.command else NONE, r.date or NONE, r.machine or NONE, shown])
    return (
        "\n\n".join(
            [
                "# Results",
                NOTE,
                "These pages hold what was measured. Every figure in them comes from a file that a benchmark wrote: no "
                "figure is typed by hand, and `tests/pages` compares the pages with the files.",
                "\n".join(f"- [{page.title}]({page.name}.md)" for page in found),
                "Parts of a record may have been measured by commands of their own; the pages name these.",
                table(["record", "command", "day", "machine", "shown in"], rows),
            ]
        )
        + "\n"
    )
