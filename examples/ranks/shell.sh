#!/usr/bin/env bash
# Starts two processes on this host, without torchrun and Python. A failure of one ends both.
#
#     examples/ranks/shell.sh shards run
set -euo pipefail
shards=$1 run=$2
export WORLD_SIZE=2 LOCAL_WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=${MASTER_PORT:-29500}
RANK=1 tinyres train "$shards" --output "$run" --device cpu "${@:3}" &
other=$!
RANK=0 tinyres train "$shards" --output "$run" --device cpu "${@:3}"
wait "$other"
