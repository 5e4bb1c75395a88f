#!/bin/bash
GPUS="0,1 2,3"
port=8000
for g in $GPUS; do
  CUDA_VISIBLE_DEVICES=$g vllm serve /m/big --tensor-parallel-size 2 --port $port
  ((port++))
done
for ((i = 1; i <= 2; i++)); do
  llama-server -m /m/s$i.gguf --port $((9000 + i))
done
for n in {1..2}; do vllm serve /m/r$n --port 700$n; done
for n in $(seq 3 4); do vllm serve /m/r$n --port 700$n; done
