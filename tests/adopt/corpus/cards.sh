#!/usr/bin/env bash
set -euo pipefail
BASE_PORT=8100
for i in 0 1 2 3; do
  export CUDA_VISIBLE_DEVICES=$i
  PORT=$((BASE_PORT + i * 10))
  nohup vllm serve /models/Qwen3-8B --served-model-name "qwen-$i" --port $PORT > "logs-$i.log" 2>&1 &
  wait $!
done
