"""Train one model: `python jobs/train.py jobs/recipes/cddgm_small.yaml --data runs/data --out runs/generator`."""

from __future__ import annotations

import argparse

from augengine.pipeline.cluster import connect, output_uri, user_errors


def main() -> None:
    """Read flags and the recipe, connect to Ray, train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe", help="a YAML recipe; jobs/recipes/ holds examples")
    parser.add_argument("--data", required=True, help="ingested data set or folder of shards (path or URI)")
    parser.add_argument("--out", help="run folder (path or URI); default runs/<recipe name>")
    parser.add_argument("--workers", type=int, default=1, help="Ray Train workers (default 1)")
    parser.add_argument("--gpu", action=argparse.BooleanOptionalAction, help="default: GPUs if the cluster has them")
    parser.add_argument("--threads", type=int, help="CPU threads per worker; default: all cores, shared out")
    flags = parser.parse_args()
    with user_errors():
        from augengine.train.config import read_recipe

        recipe = read_recipe(flags.recipe)
        out = output_uri(flags.out, recipe.name)
        connect()
        from augengine.train.run import train

        checkpoint = train(
            recipe, flags.data, out, num_workers=flags.workers, use_gpu=flags.gpu, threads_per_worker=flags.threads
        )
        print(f"checkpoint: {checkpoint}")  # noqa: T201


if __name__ == "__main__":
    main()
