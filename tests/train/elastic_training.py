"""An elastic training on a cluster where a node dies, or one joins: for `test_elastic_workers`.

python tests/train/elastic_training.py dies|joins FOLDER
"""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import ray
from ray.cluster_utils import Cluster
from training_cases import recipe, samples_of, write_rows

import augengine.train.run as training

STEPS = 6000
QUIET = {"include_dashboard": False, "object_store_memory": 80 * 2**20}


def worlds(out: Path, newest: int = 1) -> list[int]:
    """The numbers of workers so far, of a checkpoint: of the newest, which may be unfinished, or of an older one."""
    texts = [p.read_text() for p in sorted(out.glob("state/checkpoint_*/progress.json"))]
    found = [json.loads(text)["progress"]["worlds"] for text in texts if text.endswith("}")]
    return list(found[-newest]) if len(found) >= newest else []


def main(what: str, folder: Path) -> None:
    """Prints what the run said and, as JSON, the numbers of workers that it had."""
    data, out = write_rows(folder / "data", samples_of()), folder / "run"
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, **QUIET})
    node = cluster.add_node(num_cpus=1) if what == "dies" else None
    ray.init(address=cluster.address, log_to_driver=False)
    training.RESIZE_S = 1.0

    asked = recipe(
        "segmenter",
        steps=STEPS,
        optimiser={"batch_size": 4, "learning_rate": 1e-3},
        checkpoint_minutes=0.05,
        hardware={"precision": "float32"},
        data={**recipe("segmenter").data.model_dump(), "validation_rows": 0},
    )

    def run() -> None:
        training.train(asked, data, str(out), num_workers=(1, 2), use_gpu=False, threads_per_worker=1)

    with ThreadPoolExecutor(1) as pool:  # nodes start in the main thread alone
        running = pool.submit(run)
        while worlds(out, newest=2) != [1 if node is None else 2] and not running.done():
            time.sleep(0.1)  # until there is a checkpoint that Ray knows and goes on from
        if node is None:
            cluster.add_node(num_cpus=1, object_store_memory=QUIET["object_store_memory"])
        else:
            cluster.remove_node(node, allow_graceful=False)
        running.result()
    print(json.dumps(worlds(out)))  # noqa: T201
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
