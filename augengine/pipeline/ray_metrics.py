"""Records of committed units in; counts and times at Ray's Prometheus endpoint out.

Every node of a Ray cluster serves what its actors counted (`ray_augengine_…`, docs/clusters.md); a run needs nobody who
listens.
"""

from __future__ import annotations

from augengine.io.commits import Record

ROWS, REJECTS, SECONDS = "augengine_rows", "augengine_rejects", "augengine_unit_seconds"
_BOUNDS_S = [0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0]


class RayMetrics:
    """What one actor counts.

    Args:
        stage: of the job, such as `augment`; a label of every count.
    """

    def __init__(self, stage: str) -> None:
        from ray.util.metrics import Counter, Histogram

        self.stage = stage
        self.rows = Counter(ROWS, "Rows by what became of them", ("stage", "outcome"))
        self.rejects = Counter(REJECTS, "Rows that a gate rejected, by gate", ("stage", "gate"))
        self.seconds = Histogram(SECONDS, "Seconds of a unit of work", _BOUNDS_S, ("stage",))

    def count(self, record: Record) -> None:
        """Add a unit that was committed now."""
        tags = {"stage": _ascii(self.stage)}
        self.seconds.observe(record.seconds, tags)
        for outcome, rows in record.counts.items():
            if rows:  # a counter takes no 0
                self.rows.inc(rows, {**tags, "outcome": _ascii(outcome)})
        # Reasons of failed and skipped rows are sentences, of which there may be too many for labels.
        for gate, rows in record.reasons.get("rejected", {}).items():
            self.rejects.inc(rows, {**tags, "gate": _ascii(gate)})


def _ascii(text: str) -> str:
    """A text as Ray's labels may be: it ends a worker that counts under another one."""
    return text.encode("ascii", "backslashreplace").decode()
