#!/bin/bash
start() {
  local model=$1 port=${2:-8000}
  shift 2
  CUDA_VISIBLE_DEVICES=${GPU:-0} vllm serve "/models/$model" --port "$port" "$@"
}
start Qwen3-8B 8001 --dtype bfloat16
GPU=1
start Llama-3.1-8B 8002 --max-model-len 8192 --served-model-name "llama 3"
