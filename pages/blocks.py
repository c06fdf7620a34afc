"""A page with marked places in; the same page with these places filled from the records out.

A place looks like this, each marker on a line of its own:

    <!-- measured: speed -->
    …
    <!-- end -->
"""

from __future__ import annotations

import re

from pages import counterfactuals, experiment, speed

BLOCKS = {
    "experiment": experiment.readme,
    "speed": speed.ways,
    "read_ahead": speed.read_ahead,
    "scaling": speed.scaling,
    "training_cost": speed.training_cost,
    "truth_real": counterfactuals.real_rmse,
    "truth_real_paired": counterfactuals.paired_rmse,
}
_PLACE = re.compile(r"^<!-- measured: (\w+) -->\n.*?^<!-- end -->$", re.MULTILINE | re.DOTALL)


def filled(text: str) -> str:
    """The page with every marked place filled.

    Raises:
        KeyError: a marker that names no block.
    """
    return _PLACE.sub(lambda place: f"<!-- measured: {place[1]} -->\n\n{BLOCKS[place[1]]()}\n\n<!-- end -->", text)


def used(text: str) -> list[str]:
    """The blocks that a page has places for."""
    return [place[1] for place in _PLACE.finditer(text)]
