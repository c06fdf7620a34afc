"""`python -m fuzz --cases 1000 --out counts.json`: so many cases of each reader; exit code 1 where one went wrong.

`--reader NAME --case N` does one again, in this process.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
from fuzz import pool
from fuzz.readers import READERS


def main() -> int:
    """Run the cases and write the counts."""
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=1000, help="cases of each reader")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--reader", choices=list(READERS), action="append", help="default: all")
    parser.add_argument("--case", type=int, help="do this one alone, without limits")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no case after so long")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, help="JSON of the counts")
    flags = parser.parse_args()
    warnings.simplefilter("ignore")
    np.seterr(all="ignore")
    logging.disable(logging.CRITICAL)
    names = flags.reader or list(READERS)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as scratch:
        if flags.case is not None:
            for name in names:
                print(pool.run_case(READERS[name], name, flags.case, Path(scratch)))  # noqa: T201
            return 0
        began = time.monotonic()
        end = began + flags.seconds
        numbers = itertools.takewhile(lambda _: time.monotonic() < end, itertools.count(flags.first))
        cases = ((name, n) for n in itertools.islice(numbers, flags.cases) for name in names)
        results = list(pool.run(READERS, cases, Path(scratch), flags.processes))
    found = {**pool.counted(results), "first": flags.first, "seconds": round(time.monotonic() - began, 1)}
    text = json.dumps(found, indent=1)
    if flags.out:
        flags.out.write_text(text + "\n")
    print(text)  # noqa: T201
    return int(any(found["total"][outcome] for outcome in pool.OUTCOMES if outcome not in pool.GOOD))


if __name__ == "__main__":
    sys.exit(main())
