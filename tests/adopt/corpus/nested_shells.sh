#!/bin/bash
export TOKENIZERS_PARALLELISM=false
MODEL=/m/x
nohup sh -c 'VLLM_LOGGING_LEVEL=DEBUG exec vllm serve /m/y --port 8001' > y.log 2>&1 &
wait
setsid -w bash -c "vllm serve $MODEL --port 8002" < /dev/null &
wait
env -u LANG CUDA_DEVICE_ORDER=PCI_BUS_ID CUDA_VISIBLE_DEVICES=2 vllm serve $MODEL --port 8003
sudo -u me numactl -C 0-7 -m 0 vllm serve $MODEL --port 8004
python3 -W ignore -m vllm.entrypoints.openai.api_server --model $MODEL --port 8005
