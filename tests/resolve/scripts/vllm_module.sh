#!/bin/bash
export CUDA_VISIBLE_DEVICES=0,1
export VLLM_USE_MODELSCOPE=true VLLM_WORKER_MULTIPROC_METHOD=spawn
nohup python3 -m vllm.entrypoints.openai.api_server --model /data/Qwen2.5-14B-Instruct-AWQ \
  --served-model-name qwen2.5-14b gpt-4o --quantization awq_marlin --dtype half \
  --tensor-parallel-size 2 --gpu-memory-utilization 0.88 --max-model-len 16k --max-num-seqs 48 \
  --enable-prefix-caching --enable-chunked-prefill --max-num-batched-tokens 4096 --swap-space 8 \
  --trust-remote-code --host 0.0.0.0 --port 6006 --api-key sk-a-rather-long-key-17 --disable-log-stats \
  --enable-auto-tool-choice --tool-call-parser hermes > vllm.log 2>&1 &
