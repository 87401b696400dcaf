#!/usr/bin/env bash
# One host: all processes here. Several hosts: run this on each, with NNODES and HOST, the first host's address.
#
#     examples/ranks/torchrun.sh shards run
#     NNODES=4 HOST=10.0.0.1 examples/ranks/torchrun.sh shards run
set -euo pipefail
shards=$1 run=$2
exec torchrun --nnodes "${NNODES:-1}" --nproc-per-node "${EACH:-2}" \
    --rdzv-backend c10d --rdzv-endpoint "${HOST:-localhost}:29500" \
    --signals-to-handle SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1 \
    --no-python tinyres train "$shards" --output "$run" --device cpu
