"""Shards, a policy and perhaps a table's sites in; how many rows each site has, and how many the policy takes, out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from augengine.errors import DataError
from augengine.io.dataset import dataset_files
from augengine.io.shards import iter_metadata
from augengine.io.store import Place, Store
from augengine.load import Mixture
from augengine.yaml_config import unknown_name

UNSTATED = "(no site)"


class SiteRows(NamedTuple):
    """Rows of a site, and those that the policy's `select` takes."""

    rows: int
    selected: int


def rows_by_site(
    data: Place, mixture: Mixture, sites: Sequence[str] = (), stated: Mapping[str, str] | None = None
) -> dict[str, SiteRows]:
    """Count the rows of a data set by site.

    Args:
        sites: those that are asked for; none: every one that there is.
        stated: subject id to site, in place of the rows' own.

    Raises:
        DataError: no row states a site.
        ConfigError: a site without rows.
    """
    store, rows, selected = Store.at(data), Counter[str](), Counter[str]()
    for row in iter_metadata(store, dataset_files(store)):
        site = (row["site"] if stated is None else stated[row["subject_id"]]) or UNSTATED
        rows[site] += 1
        selected[site] += mixture.takes(row)
    if not rows.keys() - {UNSTATED}:
        raise DataError(
            "a plan by site needs rows that state theirs",
            found=f"{rows.total()} rows, none of which does",
            where=store.uri,
            next_step="give --participants FILE, or ingest with --site-column",
        )
    for site in sites:
        if site not in rows:
            raise unknown_name("site", site, sorted(rows), "--site")
    return {site: SiteRows(rows[site], selected[site]) for site in sites or sorted(rows)}
