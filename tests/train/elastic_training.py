"""An elastic training on a cluster of two nodes, of which one dies: for `test_elastic_workers`.

python tests/train/elastic_training.py FOLDER
"""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path

import ray
from ray.cluster_utils import Cluster
from training_cases import recipe, samples_of, write_rows

import augengine.train.run as training

STEPS = 3000
QUIET = {"include_dashboard": False, "object_store_memory": 80 * 2**20}


def worlds(out: Path, newest: int = 1) -> list[int]:
    """The numbers of workers so far, of a checkpoint: of the newest, which may be unfinished, or of an older one."""
    texts = [p.read_text() for p in sorted(out.glob("state/checkpoint_*/progress.json"))]
    found = [json.loads(text)["progress"]["worlds"] for text in texts if text.endswith("}")]
    return list(found[-newest]) if len(found) >= newest else []


def main(folder: Path) -> None:
    """Prints what the run said and, as JSON, the numbers of workers that it had."""
    data, out = write_rows(folder / "data", samples_of()), folder / "run"
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, **QUIET})
    node = cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False)
    training.RESIZE_S = 1.0

    def disturb() -> None:
        while worlds(out, newest=2) != [2]:  # Ray knows this one, and goes on from it
            time.sleep(0.1)
        cluster.remove_node(node, allow_graceful=False)

    threading.Thread(target=disturb, daemon=True).start()
    asked = recipe(
        "segmenter", steps=STEPS, optimiser={"batch_size": 4, "learning_rate": 1e-3}, checkpoint_minutes=0.05,
        hardware={"precision": "float32"}, data={**recipe("segmenter").data.model_dump(), "validation_rows": 0},
    )  # fmt: skip
    training.train(asked, data, str(out), num_workers=(1, 2), use_gpu=False, threads_per_worker=1)
    print(json.dumps(worlds(out)))  # noqa: T201
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
