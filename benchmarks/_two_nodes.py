"""A local Ray cluster of two nodes whose processes can be found and killed."""

from __future__ import annotations

from pathlib import Path

QUIET = {"include_dashboard": False}


class TwoNodes:
    """A head and one more node, which may be lost and replaced.

    Args:
        head_cpus: logical CPUs of the head.
        node_cpus: those of the other node.
    """

    def __init__(self, head_cpus: int, node_cpus: int) -> None:
        from ray.cluster_utils import Cluster

        self.node_cpus = node_cpus
        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": head_cpus, **QUIET})
        self.address: str = self.cluster.address
        self.add_node()

    def add_node(self) -> None:
        """Start the second node."""
        self.node = self.cluster.add_node(num_cpus=self.node_cpus)

    def lose_node(self) -> None:
        """Kill every process of the second node."""
        self.cluster.remove_node(self.node, allow_graceful=False)

    def workers(self) -> list[tuple[int, str]]:
        """Worker processes that this cluster's raylets started, with their titles: actors, Ray's helpers, idle ones.

        Not the agents, with which a raylet dies: that is the loss of a node.
        """
        nodes = (self.cluster.head_node, self.node)
        raylets = {info.process.pid for node in nodes for info in node.all_processes.get("raylet", [])}
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
                title = (entry / "cmdline").read_text()
            except (OSError, IndexError):
                continue
            if parent in raylets and title.startswith("ray::") and "Agent" not in title:
                found.append((int(entry.name), title.strip("\0")))
        return sorted(found)

    def shutdown(self) -> None:
        """End both nodes."""
        self.cluster.shutdown()
