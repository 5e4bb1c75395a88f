#!/bin/bash
export LD_LIBRARY_PATH=/usr/local/cuda/lib64:$LD_LIBRARY_PATH
export PYTHONPATH="${PYTHONPATH}:/opt/extra"
OPTS="--trust-remote-code"
OPTS="$OPTS --enforce-eager"
OPTS+=" --swap-space 8"
unset HTTP_PROXY
readonly PORT=8080
vllm serve /m $OPTS --port $PORT
