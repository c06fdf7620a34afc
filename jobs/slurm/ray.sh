#!/usr/bin/env bash
# A Ray cluster on what Slurm allots, a command that joins it, and its end with the command:
#     sbatch --nodes=2 --cpus-per-task=16 --mem=64G jobs/slurm/ray.sh python jobs/augment_duke.py --out /shared/run
# Submit it in the environment whose `ray` and `python` are to run; all nodes must see it. docs/clusters.md says why
# every flag is there.
#SBATCH --job-name=augengine
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=2
#SBATCH --mem=8G
set -euo pipefail
[ $# -gt 0 ] || { echo "error: give the command to run after the script's name" >&2; exit 2; }

port=${RAY_PORT:-$((20000 + SLURM_JOB_ID % 20000))}
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
# One token for all nodes and the command, and for nobody else on the machines.
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN=${RAY_AUTH_TOKEN:-$(python -c 'import secrets; print(secrets.token_hex(32))')}
export RAY_USAGE_STATS_ENABLED=0

# What this job may use of a node, not what the node has; a third of the memory is for objects in shared memory.
start='megabytes=${SLURM_MEM_PER_NODE:-$((${SLURM_MEM_PER_CPU:-2000} * SLURM_CPUS_ON_NODE))}
exec ray start --block --disable-usage-stats --num-cpus="$SLURM_CPUS_ON_NODE" \
    --memory=$((megabytes * 1048576 * 2 / 3)) --object-store-memory=$((megabytes * 1048576 / 3))'

# --block: without it the step ends at once, and Slurm ends what it started.
srun --overlap --nodes=1 --ntasks=1 --nodelist="$head" bash -c "$start --head --port=$port --include-dashboard=false" &
cluster=$!
trap 'kill $(jobs -p) 2> /dev/null || true; wait' EXIT
address=$(srun --overlap --nodes=1 --ntasks=1 --nodelist="$head" hostname -I | awk '{print $1}'):$port
export RAY_ADDRESS=$address
for _ in $(seq 60); do
  ray status > /dev/null 2>&1 && break
  kill -0 $cluster 2> /dev/null || { echo "error: the head of the cluster did not start" >&2; exit 1; }
  sleep 2
done
if [ "$SLURM_JOB_NUM_NODES" -gt 1 ]; then
  srun --overlap --nodes=$((SLURM_JOB_NUM_NODES - 1)) --ntasks=$((SLURM_JOB_NUM_NODES - 1)) --exclude="$head" \
      bash -c "$start --address=$address" &
fi
"$@"
