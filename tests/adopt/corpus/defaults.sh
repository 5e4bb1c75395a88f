#!/bin/bash
# Settings with defaults, one of them taken from another.
MODEL_ROOT="${MODEL_ROOT:-/data/models}"
MODEL_NAME=${MODEL_NAME:=Qwen2.5-7B-Instruct}
: "${GPU_UTIL:=0.85}"
SERVED="${MODEL_NAME,,}"
EXTRA=${DEBUG:+--enable-log-requests}
vllm serve "$MODEL_ROOT/$MODEL_NAME" --served-model-name "$SERVED" --gpu-memory-utilization "$GPU_UTIL" $EXTRA --port ${PORT-8000}
